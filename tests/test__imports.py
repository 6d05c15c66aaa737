import sys

import pytest

from fgclip2._imports import require


def test_an_installed_module_is_imported():
    assert require("json", "data").loads("[1]") == [1]


def test_a_missing_module_names_the_pip_command():
    with pytest.raises(ImportError, match=r'^no_such_module is not installed; run: pip install "fgclip2\[data\]"$'):
        require("no_such_module", "data")


def test_an_error_inside_an_installed_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        require("broken_module", "data")
    assert "broken_module" not in sys.modules
