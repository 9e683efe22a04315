"""Metrics of generated video, each defined once and held against another implementation in tests.

Pictures are uint8 [..., H, W, 3]; distances of pictures are in pixels of the frame as it is. PSNR,
SSIM and displacement are in `mirage_jax/eval/image.py`.
Read next: `camera.py`, `camera_from_pictures.py`, `flow.py`, `detail.py`, `frechet.py`, `lpips.py`.
"""
