"""Prompts to token ids, through `tokenizers` (`tokenizer.json`) or `sentencepiece` (`.model`).

Conventions: ids are [n, length], text first, then the end-of-sentence token, then 0; longer prompts
are cut so that the end-of-sentence token still fits. Prompts are cleaned first, see `clean_prompt`.
Neither library is imported before a tokenizer is loaded.

Read next: `encode_text.py`, which turns ids into embeddings.
"""

import hashlib
import html
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

LENGTH = 512  # tokens of a prompt in the released models
FILES = ("tokenizer.json", "spiece.model", "tokenizer.model")  # looked for in a folder, in order
_END = "</s>"
_QUOTES = {**dict.fromkeys(range(0x2018, 0x201C), "'"), **dict.fromkeys(range(0x201C, 0x2020), '"')}
_QUOTES[0x02BC] = "'"


class Tokens(NamedTuple):
    """Token ids of prompts.

    Attributes:
        ids: [n, length] int32, 0 under padding.
        mask: [n, length] bool, True where there is text (its end token included).
    """

    ids: np.ndarray
    mask: np.ndarray


class Tokenizer:
    """Turns prompts into `Tokens`.

    Attributes:
        length: tokens of a prompt, padding included.
        digest: sha256 of the file it came from, hexadecimal.
    """

    def __init__(
        self,
        pieces: Callable[[list[str]], list[list[int]]],
        end: int,
        digest: str,
        length: int = LENGTH,
    ):
        """Wrap a library's tokenizer: `pieces` gives ids without special tokens."""
        self._pieces, self._end = pieces, end
        self.digest, self.length = digest, length

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Return the ids of cleaned prompts."""
        ids = np.zeros((len(prompts), self.length), np.int32)
        counts = np.zeros(len(prompts), np.int64)
        for row, pieces in enumerate(self._pieces([clean_prompt(text) for text in prompts])):
            text = [*pieces[: self.length - 1], self._end]
            ids[row, : len(text)], counts[row] = text, len(text)
        return Tokens(ids, np.arange(self.length) < counts[:, None])


def clean_prompt(text: str) -> str:
    """Return a prompt as the tokenizer gets it.

    HTML entities are resolved (twice, as `&amp;lt;` occurs), typographic quotes become plain ones,
    control characters go, runs of white space become one space. Ligatures and full-width letters
    are folded by the tokenizer itself (NFKC). The release also repairs text decoded with the wrong
    encoding; this does not: give UTF-8.
    """
    text = html.unescape(html.unescape(text)).translate(_QUOTES)
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"\s+", " ", text)
    return "".join(c for c in text if unicodedata.category(c) != "Cc").strip()


def load_tokenizer(path: str | os.PathLike[str], *, length: int = LENGTH) -> Tokenizer:
    """Load the tokenizer of a file, or of a folder that holds one of `FILES`.

    Args:
        path: `tokenizer.json` for `tokenizers`, any `.model` for `sentencepiece`.
        length: tokens of a prompt, padding included.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, has no end-of-sentence token, or the library that reads it
            is not installed.
    """
    file = _find(Path(path))
    pieces, end = (_load_json if file.suffix == ".json" else _load_sentencepiece)(file)
    if end is None or end < 0:
        raise ValueError(
            f"tokenizer {file}: got no token {_END!r}, expected the tokenizer of a T5 text encoder"
        )
    return Tokenizer(pieces, end, hashlib.sha256(file.read_bytes()).hexdigest(), length)


def _find(path: Path) -> Path:
    candidates = [path / name for name in FILES] if path.is_dir() else [path]
    for file in candidates:
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"--tokenizer: got {path}, expected a tokenizer.json or a sentencepiece .model, or a "
        "folder with one; it comes with the text encoder's release"
    )


def _load_json(file: Path) -> tuple[Callable[[list[str]], list[list[int]]], int | None]:
    try:
        import tokenizers
    except ImportError as error:
        raise _not_installed("tokenizers", file) from error
    try:
        tokenizer = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises Exception itself
        raise ValueError(
            f"tokenizer {file}: cannot be read ({error}), expected a tokenizer.json"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def pieces(texts: list[str]) -> list[list[int]]:
        return [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]

    return pieces, tokenizer.token_to_id(_END)


def _load_sentencepiece(file: Path) -> tuple[Callable[[list[str]], list[list[int]]], int | None]:
    try:
        import sentencepiece
    except ImportError as error:
        raise _not_installed("sentencepiece", file) from error
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(file.read_bytes())
    except RuntimeError as error:
        raise ValueError(
            f"tokenizer {file}: cannot be read ({error}), expected a sentencepiece model"
        ) from error
    return processor.EncodeAsIds, processor.eos_id()


def _not_installed(library: str, file: Path) -> ValueError:
    return ValueError(
        f"tokenizer {file}: needs {library}, which is not installed; pip install 'mirage-jax[text]'"
    )
