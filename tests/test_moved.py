"""Old paths of modules open the very modules that have the new names."""

import importlib
import sys

import pytest

from fgclip2._moved import MOVED

from .interpreters import run_python


@pytest.mark.parametrize(("old", "new"), MOVED.items(), ids=MOVED)
def test_an_old_path_opens_the_new_module(monkeypatch, old, new):
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=rf"^{old} is {new} since fgclip2 0\.2; the old name goes in 0\.3$"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(new)
    assert module.__name__ == new
    assert module.__spec__.name == new


def test_modules_within_a_moved_folder_are_found():
    sys.modules.pop("fgclip2.data.demo.sources", None)
    with pytest.warns(DeprecationWarning, match=r"fgclip2\.data\.demo\.sources is fgclip2\.drawings\.sources"):
        old = importlib.import_module("fgclip2.data.demo.sources")
    assert old.Source is importlib.import_module("fgclip2.drawings.sources").Source


def test_an_old_import_statement_works_in_a_new_process():
    code = (
        "import pickle\n"
        "from fgclip2.data.hard_negatives import HardNegative as old\n"
        "from fgclip2.hard_negatives import HardNegative as new\n"
        "import fgclip2.data.demo.sources\n"
        "assert old is new and pickle.loads(pickle.dumps(old('a', 'b', 'c', 'd'))) == new('a', 'b', 'c', 'd')\n"
        "print(old.__module__)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "fgclip2.hard_negatives.generation", done.stderr


def test_what_never_was_is_not_found():
    for name in ("fgclip2.data.demonstration", "fgclip2.embedder_of_old"):
        with pytest.raises(ModuleNotFoundError, match=name):
            importlib.import_module(name)
