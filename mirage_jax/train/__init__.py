"""Training of the codec, the depth head and the denoiser. Start with `loop.py`."""
