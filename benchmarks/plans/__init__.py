"""What training and memory take on hardware that is not here; see `__main__.py`."""
