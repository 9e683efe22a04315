"""Embeddings of prompts on disk, so that training and generation need not load the text encoder.

A cache is one `.safetensors` file, or a folder of them; each file holds, under the hash of its
prompt, the rows [n, d] that a prompt has before padding. The header says the prompts in full, which
encoder made them, and to how many rows they are padded. Files are written whole. A folder grows by
a file at a time, by any number of writers; a single file is written anew when prompts are added, so
it is for a few hundred prompts.

Prompts are compared letter by letter, as they were given. A padded embedding ends in zeros, which
the denoiser attends to.

Read next: `captions.py` (the prompts of clips); `mirage encode text` fills a cache.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mirage_jax.atomic import replacing

_FORMAT = "mirage texts 1"
# Of the embeddings of a cache -> the code that safetensors has for it.
_DTYPES = {"bfloat16": "BF16", "float32": "F32"}
_LONGEST = 1 << 16  # rows; bounds what a damaged header can make us allocate


class TextSpec(NamedTuple):
    """What all embeddings of a cache have in common.

    Attributes:
        encoder: identity of encoder and tokenizer, see `models/encode_text.py`.
        length: rows of a padded embedding.
        width: channels of a row.
        dtype: "bfloat16" or "float32".
    """

    encoder: str
    length: int
    width: int
    dtype: str = "bfloat16"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Tell whether an embedding may have this shape."""
        return len(shape) == 2 and 0 < shape[0] <= self.length and shape[1] == self.width

    @property
    def numpy_dtype(self) -> np.dtype:
        """The dtype of the embeddings."""
        return np.dtype(ml_dtypes.bfloat16 if self.dtype == "bfloat16" else self.dtype)


class TextCache:
    """Random access to the embeddings of a cache by prompt; safe to hand to other processes."""

    def __init__(self, path: Path, spec: TextSpec, places: Mapping[str, tuple[Path, str]]):
        self.path, self.spec = path, spec
        self._places = dict(places)
        self._files: dict[Path, Any] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, prompt: str) -> bool:
        return prompt in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}

    def __getitem__(self, prompt: str) -> np.ndarray:
        """Return the padded embedding [length, d] of a prompt; see `rows` for errors."""
        rows = self.rows(prompt)
        padded = np.zeros((self.spec.length, self.spec.width), self.spec.numpy_dtype)
        padded[: len(rows)] = rows
        return padded

    def rows(self, prompt: str) -> np.ndarray:
        """Return the rows [n, d] of a prompt without padding.

        Raises:
            ValueError: it is not in the cache; the message says how to add it.
        """
        self.require([prompt])
        path, key = self._places[prompt]
        if path not in self._files:
            self._files[path] = _opened(path)
        return self._files[path].get_tensor(key)

    def require(self, prompts: Iterable[str]) -> None:
        """Raise unless all prompts are there.

        Raises:
            ValueError: naming some that are missing, and how to add them.
        """
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._places]
        if missing:
            shown = ", ".join(repr(_shortened(prompt)) for prompt in missing[:3])
            raise ValueError(
                f"text cache {self.path}: {len(missing)} prompts are not among its "
                f"{len(self)}: {shown}{', ...' if len(missing) > 3 else ''}; add them with "
                f"mirage encode text --out {shlex.quote(str(self.path))} --prompt ... or "
                "--prompt-file FILE"
            )


def open_texts(
    path: str | os.PathLike[str], *, encoder: str | None = None, width: int | None = None
) -> TextCache:
    """Open a cache; only headers are read.

    Args:
        path: file or folder.
        encoder: identity that the embeddings must have, or None for any.
        width: channels that they must have, or None for any.

    Raises:
        FileNotFoundError: there is no such cache.
        ValueError: a file is damaged, or of another encoder or width.
    """
    parts = _parts(Path(path))
    if not parts:
        raise FileNotFoundError(
            f"text cache: got {path}, expected a .safetensors file or a folder of them; make one "
            f"with mirage encode text --out {shlex.quote(str(path))} --prompt ..."
        )
    places: dict[str, tuple[Path, str]] = {}
    specs: dict[TextSpec, Path] = {}
    for part in parts:
        spec, prompts = _read_header(part)
        specs.setdefault(spec, part)
        places |= {prompt: (part, key) for key, prompt in prompts.items()}
    (spec, first), *others = specs.items()
    if others:
        raise ValueError(
            f"text cache {path}: {first.name} holds {spec} but {others[0][1].name} holds "
            f"{others[0][0]}, expected one encoder; move the files of the other one away"
        )
    _check_spec(Path(path), spec, encoder, width)
    return TextCache(Path(path), spec, places)


def add_texts(
    path: str | os.PathLike[str], spec: TextSpec, embeddings: Mapping[str, np.ndarray]
) -> int:
    """Add prompts to a cache, which is made if needed; a reader sees all of them or none.

    Args:
        path: file (`.safetensors`) or folder.
        spec: what made them.
        embeddings: prompt -> rows [n, d] without padding.

    Returns:
        Bytes of the file written, 0 if there was nothing to add.

    Raises:
        ValueError: the cache is of another encoder, or an embedding does not fit `spec`.
    """
    path, entries = Path(path), dict(embeddings)
    if not entries:
        return 0
    for prompt, rows in entries.items():
        if not spec.fits(rows.shape) or rows.dtype != spec.numpy_dtype:
            raise ValueError(
                f"embedding of {_shortened(prompt)!r}: got {rows.dtype} {rows.shape}, expected 1 "
                f"to {spec.length} rows of {spec.width} in {spec.dtype}"
            )
    cache = _existing(path, spec)
    if cache and _is_file(path):
        entries = {prompt: cache.rows(prompt) for prompt in cache} | entries
    prompts = {_key(prompt): prompt for prompt in entries}
    data = save(
        {_key(prompt): np.ascontiguousarray(rows) for prompt, rows in entries.items()},
        metadata={
            "format": _FORMAT,
            "encoder": spec.encoder,
            "length": str(spec.length),
            "width": str(spec.width),
            "dtype": spec.dtype,
            "prompts": json.dumps(prompts),
        },
    )
    # Named after its prompts, so that several writers do not meet.
    name = hashlib.sha256("".join(sorted(prompts)).encode()).hexdigest()[:16]
    with replacing(path if _is_file(path) else path / f"texts_{name}.safetensors") as temporary:
        temporary.write_bytes(data)
    return len(data)


def missing_prompts(
    path: str | os.PathLike[str], spec: TextSpec, prompts: Iterable[str]
) -> list[str]:
    """Return the distinct prompts that a cache, which need not exist yet, lacks.

    Raises:
        ValueError: the cache is damaged, or holds something else than `spec` says.
    """
    cache = _existing(Path(path), spec) or ()
    return [prompt for prompt in dict.fromkeys(prompts) if prompt not in cache]


def _existing(path: Path, spec: TextSpec) -> TextCache | None:
    """Return the cache to add to, None if there is none; refuse another kind of embedding."""
    if not _parts(path):
        return None
    cache = open_texts(path, encoder=spec.encoder, width=spec.width)
    if cache.spec != spec:
        raise ValueError(
            f"text cache {path}: holds {cache.spec}, expected {spec} to be added; choose the same "
            "length and dtype, or another --out"
        )
    return cache


def _read_header(path: Path) -> tuple[TextSpec, dict[str, str]]:
    """Return what a file holds (key -> prompt), every size checked against its header."""
    file = _opened(path)
    header = file.metadata() or {}
    if header.get("format") != _FORMAT:
        raise ValueError(
            f"text cache {path}: got format {header.get('format')!r}, expected {_FORMAT!r}; "
            "give a file that mirage encode text wrote"
        )
    try:
        sizes = int(header["length"]), int(header["width"])
        spec = TextSpec(header["encoder"], *sizes, header["dtype"])
        prompts = {str(key): str(prompt) for key, prompt in json.loads(header["prompts"]).items()}
    except (KeyError, ValueError, AttributeError) as error:
        raise _damaged(path, f"its header ({error})") from error
    if not 0 < spec.length <= _LONGEST or spec.dtype not in _DTYPES:
        raise _damaged(path, str(spec))
    if prompts.keys() != set(file.keys()):
        raise _damaged(path, "other prompts than tensors")
    for key, prompt in prompts.items():
        entry = file.get_slice(key)
        shape = tuple(entry.get_shape())
        right_dtype = entry.get_dtype() == _DTYPES[spec.dtype]
        if not spec.fits(shape) or not right_dtype or _key(prompt) != key:
            raise _damaged(path, f"{entry.get_dtype()} {shape} for {_shortened(prompt)!r}")
    return spec, prompts


def _check_spec(path: Path, spec: TextSpec, encoder: str | None, width: int | None) -> None:
    if encoder is not None and spec.encoder != encoder:
        raise ValueError(
            f"text cache {path}: made by encoder {spec.encoder}, expected {encoder}; encode its "
            "prompts again with mirage encode text and another --out"
        )
    if width is not None and spec.width != width:
        raise ValueError(
            f"text cache {path}: got embeddings of width {spec.width}, expected {width}, the "
            "denoiser's text_width; encode the prompts with the text encoder of this world"
        )


def _is_file(path: Path) -> bool:
    return path.suffix == ".safetensors"


def _parts(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob("*.safetensors"))
    return [path] if path.is_file() else []


def _key(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:32]


def _shortened(prompt: str, limit: int = 60) -> str:
    return prompt if len(prompt) <= limit else prompt[: limit - 3] + "..."


def _opened(path: Path) -> Any:
    try:
        return safe_open(os.fspath(path), framework="numpy")
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(
        f"text cache {path}: damaged - got {what} - expected a whole file of mirage encode text; "
        "delete it and encode its prompts again"
    )
