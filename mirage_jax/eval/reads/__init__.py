"""`mirage evaluate read`: one frame written, read later in every way. Start at `evaluate.py`."""
