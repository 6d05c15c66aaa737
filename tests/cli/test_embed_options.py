"""Options of `fgclip2 embed` that have no effect are refused, with and without `--engine`."""

import re

import pytest
from typer.testing import CliRunner

from fgclip2.cli.main import app


def refusal(*arguments: str) -> str:
    """Return the message without its frame."""
    result = CliRunner().invoke(app, ["embed", "photo.png", "-o", "out.npy", *arguments])
    assert result.exit_code == 2, f"{result.stdout}\n{result.stderr}"
    return " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--kind", "image"), ("--id-column", "key"), ("--image-column", "p"), ("--text-column", "t")),
        *(("--boxes-column", "b"), ("--images-folder", "in"), ("--backend", "onnx"), ("--precision", "fp16")),
        *(("--dtype", "float32"), ("--workers", "2"), ("--cpus-per-worker", "2"), ("--rows-per-file", "9")),
        *(("--address", "auto"), ("--object-store", "900")),
    ],
)
def test_options_that_work_with_an_engine_only(option, value):
    assert f"{option}: leave it out: works with --engine only" in refusal(option, value)


def test_options_that_an_engine_does_not_have():
    assert "--skip-errors: leave it out: with --engine errors are" in refusal("--engine", "local", "--skip-errors")
    for option, value in (("--address", "auto"), ("--object-store", "900")):
        assert "works with --engine ray only" in refusal("--engine", "local", option, value)
