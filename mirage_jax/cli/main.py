"""Entry point of the `mirage` command: a table of subcommands, imported on use.

Each subcommand is a module `mirage_jax/cli/<name>.py` with a click command called `command`. Those
modules import click (and geometry at most) at the top and everything heavy inside the function, so
that `--help` is fast and a mistake in a flag is reported before JAX starts.

Mistakes of the user (ValueError, TypeError, a missing file) end with exit code 2 and one message.
Set `MIRAGE_DEBUG=1` to see the traceback instead.
"""

import importlib
import os

import click

import mirage_jax
from mirage_jax.distributed import exit_codes

# command -> (module, one-line help)
COMMANDS = {
    "generate": ("mirage_jax.cli.generate", "Generate a video along a camera path."),
    "train": ("mirage_jax.cli.train", "Train the codec, the depth head or the denoiser."),
    "plan": ("mirage_jax.cli.plan", "Say how large a config's models and runs are."),
    "evaluate": ("mirage_jax.cli.evaluate", "Measure revisits, camera following and the codec."),
    "record": ("mirage_jax.cli.record", "Record clips of a world with depth and cameras."),
    "prepare": ("mirage_jax.cli.prepare", "Make a data set of your own recordings."),
    "encode": ("mirage_jax.cli.encode", "Encode prompts or clips for training and generation."),
    "export": ("mirage_jax.cli.export", "Gather trained weights into a world's folder."),
    "convert": ("mirage_jax.cli.convert", "Convert released weights, both ways."),
    "cameras": ("mirage_jax.cli.cameras", "Read, judge, convert, draw and move cameras."),
    "video": ("mirage_jax.cli.video", "Convert videos to mp4, GIF, WebP or pictures."),
    "scene": ("mirage_jax.cli.scene", "Make a scene from a photograph; look at scenes."),
    "depth": ("mirage_jax.cli.depth", "Read, judge, align and estimate depth."),
    "memory": ("mirage_jax.cli.memory", "Look into a saved memory."),
}

_USER_ERRORS = (
    ValueError,
    TypeError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


class UserError(click.ClickException):
    """A mistake of the user: exit code 2 and one message."""

    exit_code = exit_codes.MISTAKE


class LazyGroup(click.Group):
    """A click group that imports a subcommand when it is invoked, not when it is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Lists the commands of the table, in its order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports one command; None when there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands from the table alone, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command and turns user mistakes into one message."""
        try:
            return super().invoke(ctx)
        except _USER_ERRORS as error:
            if not is_mistake(error):
                raise
            raise UserError(str(error)) from error


def is_mistake(error: Exception) -> bool:
    """Whether an error is the user's to mend, and is not to be shown with its traceback."""
    # An error of JAX's own kinds is a defect of ours, never of the user.
    own = not type(error).__module__.startswith("jax")
    return isinstance(error, _USER_ERRORS) and own and not _is_debugging()


def _is_debugging() -> bool:
    return os.environ.get("MIRAGE_DEBUG", "") not in ("", "0")


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mirage_jax.__version__, prog_name="mirage")
@click.option("-v", "--verbose", is_flag=True, help="Also log what libraries report.")
def cli(verbose: bool) -> None:
    """A video world model whose memory is a sparse 3-D grid of its own latent tokens.

    Start with `mirage generate --help`.
    """
    from absl import logging

    logging.set_verbosity(logging.INFO if verbose else logging.WARNING)
    if not verbose:
        # Orbax logs the traceback of what it raises as well, once for each of its threads.
        logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)


def main() -> None:
    """Runs the `mirage` command."""
    cli(prog_name="mirage")


if __name__ == "__main__":
    main()
