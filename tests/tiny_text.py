"""A tiny text encoder with tokenizers of both libraries, trained here on a few sentences."""

import io
from pathlib import Path

import sentencepiece
import tokenizers

from mirage_jax.config import to_dict
from mirage_jax.models import files, functional
from mirage_jax.models.text_encoder import TextEncoderConfig

SENTENCES = [
    "a long hall with brick walls and two red doors",
    "the camera turns left and walks back to the door",
    "a dark cave, water on the ground, light from above",
    "walk through the hall, then turn right at the cave",
    "green hills under a grey sky with a small red house",
] * 4
CONFIG = TextEncoderConfig(
    vocabulary=64, width=16, attention_width=24, mlp_width=32, heads=4, layers=2
)


def sentencepiece_model() -> bytes:
    """A unigram model with T5's special tokens: pad 0, end 1, unknown 2."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=written, vocab_size=60,
        hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1,
        minloglevel=2,
    )  # fmt: skip
    return written.getvalue()


def as_tokenizer_json(model: bytes) -> str:
    """The same pieces and scores for the other library."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, unk_id=2))
    tokenizer.normalizer = tokenizers.normalizers.NFKC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.enable_truncation(7)  # as files in the wild do; the loader undoes it
    return tokenizer.to_str()


def save_text_model(folder: Path, seed: int = 0) -> Path:
    """Write a world's folder with a text encoder of random weights and its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    params = functional.init(CONFIG, seed)
    header = {"config": to_dict(CONFIG)}
    files.save_params(folder / "text_encoder.safetensors", params, header, dtype="bfloat16")
    (folder / "tokenizer.json").write_text(as_tokenizer_json(sentencepiece_model()))
    return folder
