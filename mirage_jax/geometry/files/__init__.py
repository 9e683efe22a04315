"""Readers and writers of camera files, one module per family; no pickle anywhere.

Conventions: every reader returns OpenCV cam_to_world and intrinsics in pixels as float32, checked
by ``validate_camera``; every writer replaces its target in one step.

Read next: ``../camera_files.py``, which picks the module by file name.
"""
