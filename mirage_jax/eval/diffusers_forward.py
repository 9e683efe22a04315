"""Runs one exported model in Diffusers or Transformers: a script for a process of its own.

    python diffusers_forward.py KIND FOLDER

FOLDER holds an export in the Diffusers layout and `inputs.npz`; `outputs.npz` is written beside.
This is the one file of the package that imports torch. It is never imported, only run, by
`against_diffusers.py`: torch stays out of every process of ours.

Conventions: arrays in the files are ours (channel last), and so are latents (normalised).
"""

import sys
from pathlib import Path

import numpy as np
import torch


def main(kind: str, folder: Path) -> None:
    """Read inputs, run the model, write outputs."""
    with np.load(folder / "inputs.npz") as file:
        inputs = {name: torch.from_numpy(file[name]) for name in file.files}
    run = {"denoiser": _denoiser, "lora": _lora, "codec": _codec, "text_encoder": _text_encoder}
    with torch.inference_mode():
        outputs = run[kind](folder, inputs)
    np.savez(folder / "outputs.npz", **{name: out.numpy() for name, out in outputs.items()})


def _denoiser(folder: Path, inputs: dict) -> dict:
    return _velocity(_transformer(folder), inputs)


def _lora(folder: Path, inputs: dict) -> dict:
    model = _transformer(folder)
    model.load_lora_adapter(
        str(folder), weight_name="pytorch_lora_weights.safetensors", prefix="transformer"
    )
    return _velocity(model, inputs)


def _transformer(folder: Path):
    from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

    kind = WanTransformer3DModel
    if WanVACETransformer3DModel.__name__ in (folder / "transformer/config.json").read_text():
        kind = WanVACETransformer3DModel
    return kind.from_pretrained(folder / "transformer", torch_dtype=torch.float32).eval()


def _velocity(model, inputs: dict) -> dict:
    x, timestep = _channels_second(inputs["x"]), inputs["timestep"]
    _, rows, columns = model.config.patch_size
    if "condition" in inputs:
        condition = _channels_second(inputs["condition"])
        out = model(x, timestep[:, 0], inputs["text"], control_hidden_states=condition)
    else:
        tokens = (x.shape[3] // rows) * (x.shape[4] // columns)
        out = model(x, timestep.repeat_interleave(tokens, dim=1), inputs["text"])
    return {"velocity": _channels_last(out.sample)}


def _codec(folder: Path, inputs: dict) -> dict:
    from diffusers import AutoencoderKLWan

    model = AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()
    mean = torch.tensor(model.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(model.config.latents_std).view(1, -1, 1, 1, 1)
    latents = model.encode(_channels_second(inputs["video"])).latent_dist.mode()
    video = model.decode(_channels_second(inputs["latents"]) * std + mean).sample
    return {"latents": _channels_last((latents - mean) / std), "video": _channels_last(video)}


def _text_encoder(folder: Path, inputs: dict) -> dict:
    from transformers import UMT5EncoderModel

    model = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    mask = inputs["mask"]
    embedding = model(inputs["ids"], attention_mask=mask).last_hidden_state
    return {"embedding": embedding * mask[..., None]}


def _channels_second(x):
    return torch.movedim(x, -1, 1).contiguous()


def _channels_last(x):
    return torch.movedim(x, 1, -1).contiguous()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
