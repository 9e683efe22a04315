"""The latent memory: tokens of past latent frames, each with the world position it was seen at.

Read next: `state.py` (what a memory is), `write.py`, `read.py`, `fill.py`, `files.py`.
"""
