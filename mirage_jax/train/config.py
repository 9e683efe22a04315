"""The one config of a world: its models, memory, chunking, data and the stages of its training.

Config files return plain values from `get_config(variant)`; `load("configs/doom.py:tiny")` runs one
and turns the values into the frozen dataclasses of the components. Sizes in pixels, frames or
latent cells as named. Read next: `configs/doom.py`, `mirage_jax/train/stage_config.py`,
`mirage_jax/config.py` (how mappings become dataclasses).
"""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from typing import Any, Literal

from mirage_jax.config import from_dict, to_dict
from mirage_jax.data.mixture import parse_mixture
from mirage_jax.diffusion.config import SamplingConfig
from mirage_jax.distributed.mesh import MeshConfig
from mirage_jax.memory.state import MemoryConfig
from mirage_jax.models import patch_path
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.codec import CodecConfig
from mirage_jax.models.condition import ConditionConfig, condition_channels
from mirage_jax.models.config import ChunkConfig
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.depth_head import DepthHeadConfig
from mirage_jax.models.learned_read import LearnedReadConfig
from mirage_jax.train.stage_config import (
    BranchStageConfig,
    CodecStageConfig,
    DenoiserStageConfig,
    DepthStageConfig,
    LoraStageConfig,
    ReadStageConfig,
)

RAM_BYTES = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where clips come from and their frame size.

    Attributes:
        source: "recorded" reads ArrayRecord files of `directory`; "procedural" makes `num_clips`
            clips as it goes.
        directory: dataset folder, relative to the working folder.
        height: frame height in pixels.
        width: frame width in pixels.
        num_clips: clips per split of the procedural source.
        clip_frames: frames per clip of the procedural source.
        mirror: also train on clips mirrored left to right (twice the latents to encode and keep).
        mixture: several dataset folders in place of `directory`, each with the share of draws it
            gets, as ("data/doom=3", "data/mine=1"); a weight left out is 1.
        texts: text cache of `mirage encode text` with the captions of all clips, relative to the
            working folder; read by denoisers that read text.
        latents: folder of `mirage encode latents` with the latents of these clips, relative to the
            working folder; empty where a stage is to encode them into its workdir.
        ram_bytes: of clips, or of their latents, that a process may hold in memory. The frames of
            further clips, and the latents of a split that has more, are read from disk whenever
            they are drawn, which changes no batch.
    """

    source: Literal["recorded", "procedural"] = "recorded"
    directory: str = "data/doom"
    height: int = 96
    width: int = 128
    num_clips: int = 8
    clip_frames: int = 81
    mirror: bool = False
    texts: str = ""
    latents: str = ""
    mixture: tuple[str, ...] = ()
    ram_bytes: int = RAM_BYTES

    def __post_init__(self) -> None:
        if self.mixture and self.source != "recorded":
            raise ValueError(f"data.mixture: got data.source {self.source!r}, expected recorded")
        parse_mixture(self.mixture)
        if self.ram_bytes < 0:
            raise ValueError(f"data.ram_bytes: got {self.ram_bytes}, expected 0 or more")


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """Everything about one world; the same object trains and generates.

    Attributes:
        name: of the world; names the folder of its weights.
        seed: of parameters, batches and draws.
        data: clips and their frame size.
        codec: video codec: the small one that is trained here, or a released autoencoder.
        depth_head: depth of latent cells, or None where depth is always given.
        denoiser: diffusion transformer with its memory branch.
        learned_read: correction of the memory read, or None.
        condition: what the memory branch is told.
        memory: conventions, retention, and the capacity of a rollout.
        chunk: latent frames made at once.
        sampling: solver settings.
        mesh: how training is divided among devices; never changes what is computed.
        codec_train, depth_train, denoiser_train: the stages of a world trained from scratch.
        read_train: training of the learned read alone, after the codec.
        branch_train: training of the memory branch beside a given backbone.
        lora_train: training of a low-rank change of a given denoiser.
        full_train: training of all parameters of a given denoiser.
    """

    name: str
    seed: int = 0
    data: DataConfig = DataConfig()
    codec: CodecConfig | AutoencoderConfig = CodecConfig()
    depth_head: DepthHeadConfig | None = DepthHeadConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    learned_read: LearnedReadConfig | None = None
    condition: ConditionConfig = ConditionConfig()
    memory: MemoryConfig = MemoryConfig(capacity=65536, channels=48)
    chunk: ChunkConfig = ChunkConfig()
    sampling: SamplingConfig = SamplingConfig()
    mesh: MeshConfig = MeshConfig()
    codec_train: CodecStageConfig = CodecStageConfig()
    depth_train: DepthStageConfig = DepthStageConfig()
    denoiser_train: DenoiserStageConfig = DenoiserStageConfig()
    read_train: ReadStageConfig = ReadStageConfig()
    branch_train: BranchStageConfig = BranchStageConfig()
    lora_train: LoraStageConfig = LoraStageConfig()
    full_train: DenoiserStageConfig = DenoiserStageConfig()

    def __post_init__(self) -> None:
        patch_path.check(self.codec, self.learned_read)
        stride, channels = self.codec.spatial_stride, self.codec.latent_channels
        if self.data.height % stride or self.data.width % stride:
            raise ValueError(
                f"data.height/width: got {self.data.height}x{self.data.width}, expected multiples "
                f"of codec.spatial_stride {stride}"
            )
        same = {
            "denoiser.latent_channels": self.denoiser.latent_channels,
            "denoiser.out_channels": self.denoiser.out_channels,
            "memory.channels": self.memory.channels,
        }
        if self.depth_head is not None:
            same["depth_head.latent_channels"] = self.depth_head.latent_channels
        if self.learned_read is not None:
            same["learned_read.latent_channels"] = self.learned_read.latent_channels
        _require_equal(same, channels, "codec.latent_channels")
        expected = condition_channels(self.condition, channels)
        found = {"denoiser.condition_channels": self.denoiser.condition_channels}
        if self.denoiser.branch_layers:
            _require_equal(found, expected, "the channels of condition")
        found = {"chunk.temporal_stride": self.chunk.temporal_stride}
        _require_equal(found, self.codec.temporal_stride, "codec.temporal_stride")

    def denoiser_stage(self, name: str) -> DenoiserStageConfig:
        """Return the settings of a stage that trains the denoiser or parts of it, by its name."""
        stages = {
            "denoiser": self.denoiser_train,
            "branch": self.branch_train,
            "lora": self.lora_train,
            "full": self.full_train,
        }
        return stages[name]

    @property
    def frame_hw(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self.data.height, self.data.width

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Height and width of a latent frame in cells."""
        stride = self.codec.spatial_stride
        return self.data.height // stride, self.data.width // stride


def _require_equal(values: dict[str, int], expected: int, what: str) -> None:
    for name, value in values.items():
        if value != expected:
            raise ValueError(f"{name}: got {value}, expected {what}, {expected}; make them equal")


def load(path: str) -> WorldConfig:
    """Load a config file.

    Args:
        path: "file.py" or "file.py:variant"; the file defines `get_config(variant: str)`.

    Raises:
        ValueError: for a missing file, a file without `get_config`, an unknown key or a value out
            of range.
    """
    return from_dict(WorldConfig, load_values(path))


def load_values(path: str) -> dict[str, Any]:
    """Return the plain values of a config file; see `load`."""
    file, _, variant = path.partition(":")
    if not Path(file).is_file():
        raise ValueError(
            f"--config: got {path!r}, expected an existing file, e.g. configs/doom.py:tiny"
        )
    get_config = runpy.run_path(file).get("get_config")
    if get_config is None:
        raise ValueError(
            f"--config: {file} defines no get_config(variant), expected one; see configs/doom.py"
        )
    values = get_config(variant) if variant else get_config()
    return values.to_dict() if hasattr(values, "to_dict") else values


def replace(world: WorldConfig, overrides: dict[str, Any]) -> WorldConfig:
    """Return the config with some values replaced.

    Keys are dotted, e.g. {"codec_train.steps": 10}.
    """
    values = to_dict(world)
    for key, value in overrides.items():
        *parents, last = key.split(".")
        inner = values
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    return from_dict(WorldConfig, values)
