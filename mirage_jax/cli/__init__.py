"""The `mirage` command. Thin: parse, validate, then import what does the work.

Read next: `mirage_jax/cli/main.py` (the table of commands), then one module per command.
"""
