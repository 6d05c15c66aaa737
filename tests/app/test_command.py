"""`fgclip2 app` without its extra."""

import sys

from typer.testing import CliRunner

from fgclip2.cli.main import app


def test_the_missing_extra_is_one_line_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = CliRunner().invoke(app, ["app"])
    assert done.exit_code == 1
    assert done.stderr == 'fgclip2: gradio is not installed; run: pip install "fgclip2[app]"\n'
