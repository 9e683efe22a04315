"""A world on disk: `world.json` with every config, and one safetensors file for each model.

`World` is what rollout and evaluation take: configs and parameters, nothing else. Where the folder
has a `lora.safetensors`, it is merged into the denoiser as it is read. The folder holds
`world.json`, `codec.safetensors`, `depth.safetensors`, `denoiser.safetensors` and, where the world
has a learned read, `learned_read.safetensors`.
Read next: `mirage_jax/rollout/loop.py`, `mirage_jax/world_model`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mirage_jax import config as config_lib
from mirage_jax.diffusion.config import SamplingConfig
from mirage_jax.memory.state import MemoryConfig
from mirage_jax.models import files, patch_path
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.codec import CodecConfig
from mirage_jax.models.condition import ConditionConfig
from mirage_jax.models.config import ChunkConfig
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.depth_head import DepthHeadConfig
from mirage_jax.models.learned_read import LearnedReadConfig
from mirage_jax.models.lora import LoraConfig, apply_lora

# Model -> file stem of its weights.
WEIGHT_FILES = {
    "codec": "codec",
    "depth_head": "depth",
    "denoiser": "denoiser",
    "learned_read": "learned_read",
}
CONFIG_FILE = "world.json"
LORA_FILE = "lora.safetensors"


@dataclasses.dataclass(frozen=True)
class WorldSpec:
    """Everything that shapes a world's models and how they are run.

    Attributes:
        name: of the world.
        height: of a frame in pixels.
        width: of a frame in pixels.
        codec: video codec.
        depth_head: depth of latent cells; None where depth is given along the path.
        denoiser: diffusion transformer with its memory branch.
        memory: capacity, retention and how rows are chosen.
        learned_read: correction of the memory read, or None.
        condition: what the memory branch is told.
        chunk: latent frames made at once.
        sampling: solver settings.
    """

    name: str
    height: int
    width: int
    codec: CodecConfig | AutoencoderConfig
    depth_head: DepthHeadConfig | None
    denoiser: DenoiserConfig
    memory: MemoryConfig
    learned_read: LearnedReadConfig | None = None
    condition: ConditionConfig = ConditionConfig()
    chunk: ChunkConfig = ChunkConfig()
    sampling: SamplingConfig = SamplingConfig()

    def __post_init__(self) -> None:
        patch_path.check(self.codec, self.learned_read)
        stride = self.codec.spatial_stride
        if self.height % stride or self.width % stride:
            raise ValueError(
                f"height/width: got {self.height}x{self.width}, expected multiples of the codec's "
                f"stride {stride}"
            )

    @property
    def frame_hw(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self.height, self.width

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Height and width of a latent frame in cells."""
        return self.height // self.codec.spatial_stride, self.width // self.codec.spatial_stride


@dataclasses.dataclass(frozen=True)
class World:
    """Configs and parameters of a world.

    Attributes:
        spec: the configs; has the fields `mirage_jax/world_model` asks for.
        params: "codec", "depth_head", "denoiser", "learned_read" -> nested dict of arrays.
    """

    spec: WorldSpec
    params: dict[str, Any]


def save_world(directory: str | Path, world: World, dtype: str | None = None) -> None:
    """Write a world's folder; weights first, so that a folder with `world.json` is whole.

    Args:
        directory: folder, made if needed.
        world: what to write.
        dtype: storage dtype of the weights, e.g. "float16"; None keeps them.
    """
    directory = Path(directory)
    for name in _models(world.spec, list(world.params)):
        path = directory / f"{WEIGHT_FILES[name]}.safetensors"
        files.save_params(path, world.params[name], {"world": world.spec.name}, dtype=dtype)
    save_spec(directory, world.spec)


def save_spec(directory: Path, spec: WorldSpec) -> Path:
    """Write only the configs of a world's folder; returns the file."""
    text = json.dumps({"format": 1, **config_lib.to_dict(spec)}, indent=2)
    (directory / CONFIG_FILE).write_text(text + "\n")
    return directory / CONFIG_FILE


def world_spec(config: Any) -> WorldSpec:
    """Take what rollout needs out of a training config.

    Args:
        config: has the fields of `WorldSpec`, but `data.height` and `data.width` for the frame.
    """
    names = [field.name for field in dataclasses.fields(WorldSpec)]
    values = {name: getattr(config, name) for name in names if name not in ("height", "width")}
    return WorldSpec(height=config.data.height, width=config.data.width, **values)


def export_world(
    workdir: str | Path,
    spec: WorldSpec,
    directory: str | Path,
    dtype: str | None = None,
    weights: str | Path | None = None,
    only: Sequence[str] | None = None,
) -> World:
    """Gather the weights that training left in a working folder into a world's folder.

    Args:
        workdir: of `mirage train`.
        spec: from `world_spec`.
        directory: folder to write.
        dtype: storage dtype of the weights, e.g. "float16".
        weights: folder of given weights, for what the workdir does not hold.
        only: names of the models to gather; None for all. The folder then serves what needs no
            others, such as `mirage evaluate read`.

    Returns:
        The world, with the weights as they are in `workdir`.

    Raises:
        FileNotFoundError: a stage has not been trained; all missing files are named.
    """
    folders = [Path(workdir), *([Path(weights)] if weights else [])]
    params = _load_params(folders, spec, "--workdir", _models(spec, only))
    world = World(spec=spec, params=params)
    save_world(directory, world, dtype=dtype)
    return world


def load_world(directory: str | Path, only: Sequence[str] | None = None) -> World:
    """Read a world's folder.

    Args:
        directory: folder written by `save_world`.
        only: names of the models to read, for what needs no others; None for all.

    Returns:
        The world with its weights.

    Raises:
        FileNotFoundError: the folder or one of its files is missing; all missing files are named.
        ValueError: a file does not fit the configs.
    """
    directory = Path(directory)
    spec = load_spec(directory)
    return World(spec, _load_params([directory], spec, "--weights", _models(spec, only)))


def load_spec(directory: str | Path) -> WorldSpec:
    """Read only the configs of a world's folder.

    Raises:
        FileNotFoundError: no `world.json` there.
        ValueError: it is not JSON, or has an unknown key or format.
    """
    path = Path(directory) / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"--weights: got {directory}, expected a folder with {CONFIG_FILE}; train one with "
            "mirage train, "
            "or leave the option out to use the shipped weights"
        )
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: got broken JSON ({error}), expected a world's configs; fetch it again"
        ) from error
    if not isinstance(values, dict) or values.pop("format", None) != 1:
        raise ValueError(
            f'{path}: expected an object with "format": 1; it was written by another version'
        )
    return config_lib.from_dict(WorldSpec, values)


def _load_params(
    folders: Sequence[Path], spec: WorldSpec, argument: str, models: Sequence[str]
) -> dict[str, Any]:
    """Read the weights of models, each from the first folder that has it.

    A LoRA is merged into the denoiser. All files that are in no folder are named.
    """
    names = {name: f"{WEIGHT_FILES[name]}.safetensors" for name in models}
    paths = {name: _first_with(folders, file) for name, file in names.items()}
    missing = [names[name] for name, path in paths.items() if path is None]
    if missing:
        raise FileNotFoundError(
            f"{argument}: {folders[0]} lacks {', '.join(missing)}, expected one file for each "
            "model of the world; train them with mirage train, or give the folder of the shipped "
            "weights"
        )
    params = {
        name: files.load_params(path, getattr(spec, name), dtype=_kept_dtype(getattr(spec, name)))
        for name, path in paths.items()
        if path is not None
    }
    lora = _first_with(folders, LORA_FILE)
    if lora is not None and "denoiser" in params:
        params["denoiser"] = _with_lora(params["denoiser"], lora)
    return params


def _kept_dtype(model: Any) -> Literal["model", "stored"]:
    """Return how a model's weights are read: as stored where it computes in half precision.

    Each parameter is widened or rounded where it is used, so a model of five billion parameters
    stored in bfloat16 gives the same numbers from half the memory.
    """
    return "model" if getattr(model, "dtype", "float32") == "float32" else "stored"


def _first_with(folders: Sequence[Path], file: str) -> Path | None:
    return next((folder / file for folder in folders if (folder / file).is_file()), None)


def _with_lora(denoiser: Any, path: Path) -> Any:
    """Merge a LoRA; one that training left says its scale, a released one has 1."""
    config = json.loads(files.load_metadata(path).get("lora", "{}"))
    scale = config_lib.from_dict(LoraConfig, config).scale
    return apply_lora(denoiser, files.load_tree(path), scale)


def _models(spec: WorldSpec, only: Sequence[str] | None = None) -> list[str]:
    """Return the names of a world's models, or of those of `only` that it has."""
    unknown = sorted(set(only or ()) - set(WEIGHT_FILES))
    if unknown:
        raise ValueError(f"models: got {unknown}, expected some of {list(WEIGHT_FILES)}")
    return [
        name
        for name in WEIGHT_FILES
        if getattr(spec, name) is not None and (only is None or name in only)
    ]
