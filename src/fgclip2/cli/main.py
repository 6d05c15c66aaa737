"""Entry point of the command `fgclip2`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import (
    bench,
    classify,
    convert,
    data,
    demo,
    doctor,
    embed,
    export,
    hard_negatives,
    heatmap,
    init,
    regions,
    search,
    train,
)


class ErrorsInOneLine(TyperGroup):
    """Turns the errors that users cause into one line on stderr and exit code 1; writes UTF-8."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # File names need not be valid Unicode, and a Windows pipe is not UTF-8 by itself.
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        return super().main(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # typer ends quietly when the reader of a pipe has gone
        except (ValueError, OSError, ImportError) as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"fgclip2: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from error


_SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(cls=ErrorsInOneLine, **_SETTINGS)
data_app = typer.Typer(help="Look after training data.", **_SETTINGS)
app.add_typer(data_app, name="data")
bench_app = typer.Typer(help="Measure models on benchmarks.", **_SETTINGS)
app.add_typer(bench_app, name="bench")


def _print_version(value: bool) -> None:
    if value:
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
    usage.
    """


def _add(name: str, command: Callable[..., None], examples: str, group: typer.Typer = app, **settings: Any) -> None:
    lines = "\n  ".join(["Examples:", *examples.strip().splitlines()])
    group.command(name, epilog=f"\b\n{lines}", **settings)(command)  # \b: the lines stay as they are


_add("embed", embed.embed, embed.EXAMPLES)
_add("search", search.search, search.EXAMPLES)
_add("classify", classify.classify, classify.EXAMPLES)
_add("regions", regions.regions, regions.EXAMPLES)
_add("heatmap", heatmap.heatmap, heatmap.EXAMPLES)
_add("demo", demo.demo, demo.EXAMPLES)
_add("doctor", doctor.doctor, doctor.EXAMPLES)
_add("convert", convert.convert, convert.EXAMPLES)
_add("export", export.export, export.EXAMPLES)
_add("init", init.init, init.EXAMPLES)
_add("train", train.train, train.EXAMPLES, cls=train.TrainCommand, context_settings={"ignore_unknown_options": True})
_add("validate", data.validate, data.VALIDATE_EXAMPLES, data_app)
_add("hard-negatives", hard_negatives.hard_negatives, hard_negatives.EXAMPLES, data_app)
_add("list", bench.list_benchmarks, bench.LIST_EXAMPLES, bench_app)
_add("check", bench.check, bench.CHECK_EXAMPLES, bench_app)
_add("run", bench.run, bench.RUN_EXAMPLES, bench_app)
_add("report", bench.report, bench.REPORT_EXAMPLES, bench_app)
