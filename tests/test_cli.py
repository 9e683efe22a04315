"""The command line turns mistakes of the user into one message and exit code 2."""

import types
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mirage_jax.cli import main

CONFIG = Path(__file__).parents[1] / "configs" / "procedural.py"


@pytest.fixture
def failing(monkeypatch):
    """Registers a command `fail` that raises what the test hands it."""

    def register(error: BaseException):
        @click.command()
        def command():
            raise error

        module = types.ModuleType("failing_command")
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(__import__("sys").modules, "failing_command", module)
        monkeypatch.setitem(main.COMMANDS, "fail", ("failing_command", "Fail."))

    return register


@pytest.mark.parametrize(
    "error",
    [
        ValueError("depth: got all zeros"),
        TypeError("depth: got all zeros"),
        FileNotFoundError(2, "No such file", "depth: got all zeros"),
    ],
)
def test_a_user_mistake_ends_with_code_2_and_its_message_without_a_traceback(failing, error):
    failing(error)
    result = CliRunner().invoke(main.cli, ["fail"])
    assert result.exit_code == 2
    assert "depth: got all zeros" in result.output
    assert "Traceback" not in result.output


def test_debugging_shows_the_original_error(failing, monkeypatch):
    monkeypatch.setenv("MIRAGE_DEBUG", "1")
    failing(ValueError("depth: got all zeros"))
    result = CliRunner().invoke(main.cli, ["fail"])
    assert isinstance(result.exception, ValueError)


def test_a_defect_of_ours_is_not_dressed_up_as_a_user_mistake(failing):
    failing(ZeroDivisionError("division by zero"))
    result = CliRunner().invoke(main.cli, ["fail"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_an_unknown_command_is_refused_with_code_2():
    result = CliRunner().invoke(main.cli, ["generat"])
    assert result.exit_code == 2
    assert "No such command" in result.output


def test_help_lists_every_command_with_its_line():
    result = CliRunner().invoke(main.cli, ["--help"])
    for name, (_, text) in main.COMMANDS.items():
        assert name in result.output
        assert text in result.output


def test_a_folder_of_data_that_no_stage_would_read_is_refused(tmp_path):
    fixed = ["train", "--config", str(CONFIG), "--stage", "codec"]
    fixed += ["--workdir", str(tmp_path / "run"), "--data", str(tmp_path)]
    result = CliRunner().invoke(main.cli, fixed)
    assert result.exit_code == 2
    assert "--data" in result.output
    assert "procedural (data.source) and no folder is read" in " ".join(result.output.split())
    assert not (tmp_path / "run").exists()
