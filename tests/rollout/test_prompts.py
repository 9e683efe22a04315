"""Prompt files: which prompt each chunk follows, and what is wrong with a line."""

import pytest

from mirage_jax.rollout.prompts import PromptPlan, chunk_after_chunk, read_prompts


def test_lines_are_followed_chunk_after_chunk_and_the_last_goes_on(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeffa hall\n\n  a cave  \r\na hall\n", encoding="utf-8")
    plan = read_prompts(path)
    assert [plan.at(chunk) for chunk in range(5)] == [
        "a hall",
        "a cave",
        "a hall",
        "a hall",
        "a hall",
    ]


def test_objects_say_from_which_chunk_on_a_prompt_holds(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"chunk": 3, "prompt": "b"}\n{"prompt": "a", "chunk": 0}\n')
    plan = read_prompts(path)
    assert [plan.at(chunk) for chunk in range(5)] == ["a", "a", "a", "b", "b"]


def test_without_prompts_every_chunk_follows_the_empty_one():
    assert PromptPlan().at(7) == ""
    assert chunk_after_chunk(["a"]).at(7) == "a"


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("p.txt", "\n \n", "no prompt"),
        ("p.jsonl", "a hall\n", "p.jsonl, line 1"),
        ("p.jsonl", '{"chunk": 0, "prompt": "a"}\n{"chunk": 1}\n', "line 2: got"),
        ("p.jsonl", '{"chunk": -1, "prompt": "a"}', "chunk -1"),
        ("p.jsonl", '{"chunk": true, "prompt": "a"}', "chunk True"),
        ("p.jsonl", '{"chunk": 0, "prompt": 3}', "prompt 3"),
        ("p.jsonl", '{"chunk": 1, "prompt": "a"}', "the first of them 0"),
        ("p.jsonl", '{"chunk": 0, "prompt": "a"}\n{"chunk": 0, "prompt": "b"}', "increasing"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_refused(tmp_path, name, text, match):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=match):
        read_prompts(tmp_path / name)


def test_a_missing_or_foreign_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="--prompt-file"):
        read_prompts(tmp_path / "none.txt")
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        read_prompts(tmp_path / "p.txt")
