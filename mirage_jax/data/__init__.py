"""Recording, storing and reading clips with exact geometry.

This package never imports JAX or TensorFlow: a process that only records or reads data stays
small.  Frames are uint8, depth is z-depth in metres with 0 for unknown, poses are OpenCV camera
to world.  Read next: ``clip.py`` for the record, ``source.py`` for reading, ``doom/record.py``
for recording.
"""
