"""Plans the conversion of each released model to a file of ours: everything is checked, then moved.

Conventions: planning reads headers only and raises for every mistake; writing a `Plan` then streams
the tensors. A written file is complete in itself: its header holds the model's kind and config, so
that it can be loaded and exported again without anything else.

Read next: `stream.py` for the moving, `exports.py` for the way back.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mirage_jax.config import to_dict
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.convert import sizes
from mirage_jax.models.convert.autoencoder import (
    AUTOENCODER_MARKERS,
    LatentStatistics,
    autoencoder_entries,
    statistics_params,
)
from mirage_jax.models.convert.denoiser import denoiser_entries_for
from mirage_jax.models.convert.layout import Entry, check_entries, layout_of
from mirage_jax.models.convert.lora import lora_entries, lora_tensors, scaled, stated_scale
from mirage_jax.models.convert.sources import Source
from mirage_jax.models.convert.stream import Progress, import_bytes, import_file
from mirage_jax.models.convert.text_encoder import (
    TEXT_MARKERS,
    text_encoder_config,
    text_encoder_entries,
    without_tied_table,
)
from mirage_jax.models.convert.wrappers import strip_wrappers
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.functional import Path as TreePath
from mirage_jax.models.functional import abstract_params, flatten
from mirage_jax.models.text_encoder import TextEncoderConfig

# Kind of model -> file of a world's folder.
FILES = {
    "denoiser": "denoiser.safetensors",
    "lora": "lora.safetensors",
    "codec": "codec.safetensors",
    "text_encoder": "text_encoder.safetensors",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The conversion of one model, checked.

    Attributes:
      kind: a key of `FILES`.
      config: of the model; for a LoRA, of the denoiser that it adapts.
      entries: one for every tensor.
      tensors: name -> tensor, not read yet.
      notes: what the user should know.
      ours: parameters that the source does not hold.
    """

    kind: str
    config: Any
    entries: Sequence[Entry]
    tensors: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    ours: Mapping[TreePath, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes that writing reads."""
        return import_bytes(self.entries, self.tensors)

    def write(self, folder: Path, *, dtype: str | None, progress: Progress) -> Path:
        """Write the file into a folder, which is made if needed; returns its path."""
        path = folder / FILES[self.kind]
        metadata = {"kind": self.kind, "config": json.dumps(to_dict(self.config))}
        import_file(
            path,
            self.entries,
            self.tensors,
            metadata=metadata,
            dtype=dtype,
            ours=self.ours,
            progress=progress,
        )
        return path


def plan_denoiser(
    backbone: Source,
    branch: Source | None = None,
    *,
    config: DenoiserConfig | None = None,
    heads: int | None = None,
    branch_layers: Sequence[int] | None = None,
) -> Plan:
    """Plan backbone and memory branch.

    Args:
      backbone: its weights; may hold the branch too.
      branch: the branch's weights, if they are apart.
      config: sizes; None reads them off the tensors.
      heads: attention heads, where neither tensors nor `config.json` tell.
      branch_layers: blocks with hints, likewise.

    Raises:
      ValueError: listing all tensors that are missing, unexpected or misshapen, or naming a size
        that cannot be told.
    """
    tensors = strip_wrappers(backbone.tensors)
    given = dict(backbone.config)
    if branch is not None:
        beside = strip_wrappers(branch.tensors)
        twice = sorted(tensors.keys() & beside.keys())
        if twice:
            raise ValueError(
                f"backbone and branch both hold {len(twice)} tensors such as {twice[0]}, expected "
                f"the branch's alone in {branch.path}; leave the branch out if the backbone has it"
            )
        tensors |= beside
        given |= {k: v for k, v in branch.config.items() if k == "vace_layers"}
    notes = [*_notes(backbone), *(_notes(branch) if branch else ())]
    if config is None:
        config = sizes.denoiser_config(tensors, given, heads=heads, branch_layers=branch_layers)
    elif config.branch_layers and not sizes.has_branch(tensors):
        config = dataclasses.replace(config, branch_layers=(), condition_channels=0)
        notes.append("the config has a memory branch, of which no weights were given: left out")
    entries = denoiser_entries_for(tensors, config)
    check_entries(entries, flatten(abstract_params(config)), tensors, what="denoiser weights")
    return Plan("denoiser", config, entries, tensors, tuple(notes))


def plan_lora(source: Source, config: DenoiserConfig) -> Plan:
    """Plan a LoRA of a denoiser; see `plan_denoiser` for errors."""
    scale = stated_scale(source.adapter)
    tensors = scaled(lora_tensors(source.tensors), scale)
    entries, shapes = lora_entries(tensors, config)
    check_entries(entries, shapes, tensors, what="LoRA weights")
    notes = _notes(source)
    if scale != 1.0:
        notes = (*notes, f"{source.path}: its scale {scale:g} is multiplied into the weights")
    return Plan("lora", config, entries, tensors, notes)


def plan_autoencoder(source: Source, config: AutoencoderConfig | None = None) -> Plan:
    """Plan an autoencoder; see `plan_denoiser` for errors."""
    tensors = strip_wrappers(source.tensors)
    layout = layout_of(tensors, AUTOENCODER_MARKERS, what="autoencoder weights")
    config = config or sizes.autoencoder_config(tensors)
    entries = autoencoder_entries(config, layout)
    check_entries(entries, flatten(abstract_params(config)), tensors, what="autoencoder weights")
    channels = config.latent_channels
    known = sizes.latent_statistics(channels, source.config)
    notes = _notes(source)
    if known is None:
        note = f"latents of {channels} channels are left unnormalised: no statistics are known"
        notes = (*notes, f"{source.path}: {note}")
    plain = LatentStatistics([0.0] * channels, [1.0] * channels)
    given = statistics_params(config, known or plain)
    ours: dict[TreePath, np.ndarray] = {
        (name,): np.asarray(values) for name, values in given.items()
    }
    return Plan("codec", config, entries, tensors, notes, ours)


def plan_text_encoder(source: Source, config: TextEncoderConfig | None = None) -> Plan:
    """Plan a UMT5 text encoder; see `plan_denoiser` for errors."""
    tensors = without_tied_table(strip_wrappers(source.tensors))
    layout = layout_of(tensors, TEXT_MARKERS, what="text encoder weights")
    if config is None:
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        config = text_encoder_config(shapes, layout=layout)
        given = source.config
        config = dataclasses.replace(
            config,
            eps=float(given.get("layer_norm_epsilon", config.eps)),
            max_distance=given.get("relative_attention_max_distance", config.max_distance),
        )
    entries = text_encoder_entries(config, layout)
    check_entries(entries, flatten(abstract_params(config)), tensors, what="text encoder weights")
    return Plan("text_encoder", config, entries, tensors, _notes(source))


def _notes(source: Source) -> tuple[str, ...]:
    if not source.others:
        return ()
    some = ", ".join(source.others[:6]) + (", ..." if len(source.others) > 6 else "")
    return (f"{source.path}: left out {len(source.others)} values that are no tensors: {some}",)
