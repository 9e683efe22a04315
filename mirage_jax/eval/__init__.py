"""Measurements: image metrics, revisits, camera following, the codec, and the baselines each must beat."""
