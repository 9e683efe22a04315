"""Kernels, one folder each: public function, plain-JAX reference, named test sizes.

Read next: `rasterize_points/api.py`.
"""
