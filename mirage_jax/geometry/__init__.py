"""Cameras, projection, depth resampling, trajectories and camera files, on NumPy and JAX alike.

Nothing in this package imports JAX; functions follow the arrays they are given.

Conventions: OpenCV axes (x right, y down, z forward), ``cam_to_world`` 4x4, intrinsics in pixels
with the centre of the top-left pixel at (0.5, 0.5), z-depth in scene units with 0 = unknown, masks
True = keep.

Read next: ``camera.py``, ``projection.py``, ``depth.py``; ``trajectories.py``, ``presets.py`` and
``keys.py`` for paths to walk; ``camera_files/`` for files, and ``path_info.py``,
``path_alignment.py`` and ``interpolation.py`` for what can be done with them.
"""
