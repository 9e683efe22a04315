"""Measurements, and the baselines that each of them must beat.

Image metrics, revisits, camera following and the codec.
"""
