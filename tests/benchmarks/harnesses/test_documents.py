"""The section on other harnesses: the same code in both documents, and it runs, on stand-ins for their packages."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from fgclip2.assets import embedded_checkpoint
from fgclip2.benchmarks.harnesses.clip_benchmark import load_clip
from fgclip2.benchmarks.harnesses.mteb import MTEBModel

DOCUMENTS = [Path(__file__).parents[3] / "docs" / name for name in ("benchmarks.md", "benchmarks_zh.md")]


def codes(document: Path) -> list[str]:
    found = re.findall(
        r"^```(?:python|bash)\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [code for code in found if "harnesses" in code or "clip_benchmark" in code]


@pytest.fixture
def code() -> list[str]:
    return codes(DOCUMENTS[0])


def test_both_languages_have_the_same_code(code):
    assert len(code) == 3
    assert code == codes(DOCUMENTS[1])


def test_mteb_gets_the_model(code, monkeypatch, capsys):
    mteb = ModuleType("mteb")
    mteb.get_tasks = lambda tasks, languages: tasks
    mteb.evaluate = lambda model, tasks: (type(model), len(tasks))
    monkeypatch.setitem(sys.modules, "mteb", mteb)
    exec(code[0].replace('"qihoo360/fg-clip2-base"', repr(str(embedded_checkpoint()))), {})
    assert capsys.readouterr().out.strip() == str((MTEBModel, 2))


def test_clip_benchmark_gets_the_loader(code, monkeypatch):
    package, called = ModuleType("clip_benchmark"), []
    package.models = SimpleNamespace(TYPE2FUNC={}, MODEL_TYPES=["open_clip"])
    package.cli = SimpleNamespace(main=lambda: called.append(True))
    monkeypatch.setitem(sys.modules, "clip_benchmark", package)
    exec(code[1], {})
    models = package.models
    assert models.TYPE2FUNC.pop("fgclip2") is load_clip
    assert models.MODEL_TYPES == ["open_clip", "fgclip2"]
    assert called == [True]
    assert "--model_type fgclip2" in code[2]
