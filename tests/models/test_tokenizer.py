"""Tokenizers of both libraries: the same ids, an end token, padding, cuts and cleaning."""

import numpy as np
import pytest
import sentencepiece
import tiny_text
import tokenizers

from mirage_jax.models.tokenizer import clean_prompt, load_tokenizer


@pytest.fixture(scope="module")
def model():
    return tiny_text.sentencepiece_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    (folder / "spiece.model").write_bytes(model)
    (folder / "tokenizer.json").write_text(tiny_text.as_tokenizer_json(model))
    return folder


PROMPTS = ["a red door in the cave", "", "walk  back,\nthen turn to the “sky”", "xyz"]


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.json"])
def test_ids_end_with_the_end_token_and_are_padded_with_zeros(folder, model, name):
    tokens = load_tokenizer(folder / name, length=40)(PROMPTS)
    assert tokens.ids.shape == tokens.mask.shape == (4, 40)
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    for prompt, ids, mask in zip(PROMPTS, *tokens, strict=True):
        text = prompt.replace("“", '"').replace("”", '"')
        expected = [*library.encode(text), library.eos_id()]
        assert ids[mask].tolist() == expected
        assert mask[: len(expected)].all()
        assert not ids[len(expected) :].any()


def test_both_libraries_give_the_same_ids(folder):
    one, other = (load_tokenizer(folder / name) for name in ("spiece.model", "tokenizer.json"))
    np.testing.assert_array_equal(
        one(tiny_text.SENTENCES[:5]).ids, other(tiny_text.SENTENCES[:5]).ids
    )
    assert one.digest != other.digest


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.json"])
def test_a_long_prompt_is_cut_and_still_ends(folder, name):
    long = " ".join(tiny_text.SENTENCES)
    whole = load_tokenizer(folder / name, length=2000)([long])
    cut = load_tokenizer(folder / name, length=12)([long])
    assert cut.mask.all()
    np.testing.assert_array_equal(cut.ids[0, :11], whole.ids[0, :11])
    assert cut.ids[0, 11] == 1
    assert load_tokenizer(folder / name)([long]).ids.shape == (1, 512)


def test_a_folder_s_tokenizer_is_found(folder):
    assert load_tokenizer(folder).digest == load_tokenizer(folder / "tokenizer.json").digest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  two\twords \n\n here ", "two words here"),
        ("a &amp;lt;b&gt; &quot;c&quot;", 'a <b> "c"'),
        ("“a dog’s life”", '"a dog\'s life"'),
        ("cafe\u0301 \x00\x07", "café"),
        ("走廊，红色的门", "走廊，红色的门"),
    ],
)
def test_prompts_are_cleaned(text, expected):
    assert clean_prompt(text) == expected


def test_what_is_no_tokenizer_is_refused(tmp_path):
    for name in ("broken.json", "broken.model"):
        (tmp_path / name).write_text("{}")
        with pytest.raises(ValueError, match=rf"{name}: cannot be read"):
            load_tokenizer(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="--tokenizer"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path):
    unigram = tokenizers.models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0)
    tokenizers.Tokenizer(unigram).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="no token '</s>'"):
        load_tokenizer(tmp_path)
