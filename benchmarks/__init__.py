"""Commands that measure: `python -m benchmarks.memory` for the latent memory.

Every one prints what it measured line by line and ends with one line of JSON.
"""
