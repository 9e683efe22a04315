"""Codes of the ``kind`` array: what sort of surface a pixel shows.

Read next: ``clip.py``.
"""

UNKNOWN, WALL, FLOOR, CEILING, SKY = 0, 1, 2, 3, 4
