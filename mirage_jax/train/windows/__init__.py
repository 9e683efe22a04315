"""Windows of clips, on which the depth head, the learned read and the denoiser are trained.

A window is what one chunk of a rollout sees. Start with `draw.py` (which frames), then `inputs.py`
(what the models see of them) and `stage.py` (what the stages share).
"""
