"""Kernels, one folder each: public function, plain-JAX reference, fast versions, test sizes.

Read next: `platform.py` (which version runs), `rasterize_points/api.py`.
"""
