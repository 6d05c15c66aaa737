"""The command `fgclip2`: the list of its commands, each of which is imported when it is used."""

from __future__ import annotations

import errno
import functools
import io
import sys
import warnings
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from ..files import printable

INTERRUPTED = 130  # the exit code of shells for what Ctrl-C has ended
# What the system says of a file, and what users can do about it.
_WAYS_OUT = {
    errno.ENOENT: "there is no such file or folder; check the name",
    errno.EISDIR: "it is a folder; give the name of a file",
    errno.ENOTDIR: "a part of this path is a file; give a folder",
    errno.EEXIST: "it exists already; choose another name",
    errno.EACCES: "it may not be read or written; change its permissions or choose another place",
    errno.EPERM: "it may not be read or written; change its permissions or choose another place",
    errno.EROFS: "it can't be written, its disk is read-only; choose another place",
    errno.ENOSPC: "it can't be written, the disk is full; make room and run the command again",
}


class ErrorsInOneLine(TyperGroup):
    """Turns the errors that users cause into one line on stderr and exit code 1; writes UTF-8."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # File names need not be valid Unicode, and a Windows pipe is not UTF-8 by itself.
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        return super().main(*args, **kwargs)

    def get_params(self, ctx: Any) -> Any:
        params = super().get_params(ctx)
        for param in params:
            # Typer's own --install-completion and --show-completion: it checks the type of None, and imports pydantic
            # for that, which would double the time that completing a command's name takes.
            if getattr(param, "is_flag", False) and param.default is None:
                param.default = False
        return params

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # typer ends quietly when the reader of a pipe has gone
        except KeyboardInterrupt as error:
            kept = str(error) or "nothing was written"  # what keeps a part of its work says so in the exception
            typer.echo(f"fgclip2: interrupted: {kept}", err=True)
            raise typer.Exit(INTERRUPTED) from error
        except (ValueError, OSError, ImportError) as error:
            if ctx.params.get("debug"):
                raise
            message = str(error)
            if isinstance(error, OSError) and error.filename is not None and error.errno in _WAYS_OUT:
                message = f"{error.filename}: {_WAYS_OUT[error.errno]}"
            typer.echo(f"fgclip2: {printable(' '.join(message.split()))}", err=True)
            raise typer.Exit(1) from error


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Print a warning, one that is for users in a line without the place in the code."""
    for_users = f"fgclip2: {printable(' '.join(str(message).split()))}"
    typer.echo(
        for_users if category is UserWarning else warnings.formatwarning(message, category, filename, lineno), err=True
    )


class LateCommand(TyperCommand):
    """Stands for a command in the lists of commands, and imports it when its arguments or its own help are asked for.

    Its callback returns the command itself, see `_add`.
    """

    def load(self) -> TyperCommand:
        """Import the command itself."""
        assert self.callback is not None
        return self.callback()

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        return self.load().make_context(*args, **kwargs)


def _with_hyphens(name: str) -> str:
    return name.replace("_", "-")


_SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    # Options may be written with - or _ between their words; commands too.
    "context_settings": {"help_option_names": ["-h", "--help"], "token_normalize_func": _with_hyphens},
}
app = typer.Typer(cls=ErrorsInOneLine, **_SETTINGS)
data_app = typer.Typer(help="Look after training data.", **_SETTINGS)
app.add_typer(data_app, name="data")
bench_app = typer.Typer(help="Measure models on benchmarks.", **_SETTINGS)
app.add_typer(bench_app, name="bench")


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(version("fgclip2"))
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Search, label and embed images with FG-CLIP 2, in Chinese and English.

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 an input or a file can't be used, 2 wrong
    usage, 130 interrupted.
    """


def _add(
    name: str,
    first_line: str,
    module: str | None = None,
    function: str | None = None,
    examples: str = "EXAMPLES",
    group: typer.Typer = app,
) -> None:
    """Add a command to a group without importing it.

    Args:
        name: The command as it is typed, without its group.
        first_line: The first line of its help, as in its docstring.
        module: Where it is in this folder; `None`: named as the command.
        function: Its function in the module; `None`: named as the command.
        examples: The name of its examples in the module. There may also be `COMMAND_SETTINGS`, for typer.
        group: The group that it belongs to.
    """

    def load() -> Any:
        home = import_module(f".{module or name}", __package__)
        command = getattr(home, function or name)

        @functools.wraps(command)
        def registered_command(*args: Any, **kwargs: Any) -> None:
            from .._registration import register
            from .common import given_path

            kwargs = {option: given_path(value) for option, value in kwargs.items()}
            register()  # which the console script has left for now, see fgclip2_command
            command(*args, **kwargs)

        lines = "\n  ".join(["Examples:", *getattr(home, examples).strip().splitlines()])
        alone = typer.Typer(add_completion=False, **_SETTINGS)
        settings = getattr(home, "COMMAND_SETTINGS", {})
        alone.command(name, epilog=f"\b\n{lines}", **settings)(registered_command)  # \b: the lines stay as they are
        return get_command(alone)

    group.command(name, cls=LateCommand, short_help=first_line)(load)


_add("embed", "Write vectors of images or texts to a file.")
_add("index", "Index images of a folder, an archive or a Parquet file, or bring the index up to date.")
_add("search", "Search images of a folder, an archive or a Parquet file by texts or images.")
_add("duplicates", "List the near-duplicates of a folder of images.")
_add("classify", "Score images against labels.")
_add("regions", "Label boxes of images.")
_add("calibrate", "Fit probabilities to labelled pairs.")
_add("heatmap", "Show where in an image a text applies.")
_add("serve", "Answer programs over HTTP: embeddings in the form of OpenAI's API, regions, labels, search.")
_add(
    "mcp", "Offer search, labels, regions and comparison of images as tools of the Model Context Protocol, over stdio."
)
_add(
    "app", "Try a checkpoint in the browser: search, labels, boxes, heat maps and comparisons, in Chinese and English."
)
_add("demo", "Search and label the bundled pictures, and show the results on a page.")
_add("doctor", "Check the installation against known answers.")
_add("convert", "Rewrite an official checkpoint for transformers.")
_add("export", "Write a checkpoint that loads without this package.")
_add("init", "Write a checkpoint to start training from.")
_add("train", "Train a checkpoint on images with captions, boxes and hard negatives.")

_add("validate", "Read a data set whole and list what is wrong with it.", "data", group=data_app)
_add("shards", "Write records as tar shards, by all cores, and go on where a run was killed.", group=data_app)
_add("hard-negatives", "Give regions hard negatives.", "hard_negatives", "hard_negatives", group=data_app)

_add("list", "List the benchmarks.", "bench", "list_benchmarks", "LIST_EXAMPLES", bench_app)
_add("check", "Read a data set whole and list what is wrong with it.", "bench", None, "CHECK_EXAMPLES", bench_app)
_add("run", "Measure a model on a data set.", "bench", None, "RUN_EXAMPLES", bench_app)
_add("report", "Put results beside the published numbers.", "bench", None, "REPORT_EXAMPLES", bench_app)
