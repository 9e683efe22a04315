"""The latent memory, measured: speed beside the public release's algorithm, growth, size, balance.

Read next: `__main__.py` (what is run), `scenes.py` (on what), `peers.py` (against what).
"""
