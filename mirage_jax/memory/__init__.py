"""The latent memory: tokens of past latent frames, each with the world position it was seen at.

Read next: `config.py` (the rules), `state.py` (what a memory is), `write.py`, `read.py`, `rows.py`
(the rows without their pages), `sharded.py` (one memory over many devices), `files.py`.
"""
