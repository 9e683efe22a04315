"""People's own recordings to clips: read, fit to the training size, checked, cut and written.

Read next: ``recording.py`` (what every layout is read to), ``layouts/``, ``prepare.py``.
"""
