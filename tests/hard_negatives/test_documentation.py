"""The code and the tables of the documentation."""

import re
from pathlib import Path

import pytest

from fgclip2.hard_negatives import KINDS

from .conftest import texts

DOCS = [Path(__file__).parents[2] / "docs" / name for name in ("hard_negatives.md", "hard_negatives_zh.md")]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_code_and_examples_of_the_documentation_hold(path, capsys):
    text = path.read_text(encoding="utf-8")
    namespace: dict = {}
    for block in re.findall(r"(?<!<!-- not run -->\n)```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, path.name, "exec"), namespace)  # what a reader types
    assert len(capsys.readouterr().out.splitlines()) == 9
    assert namespace["lines"]("- a cat\n\na dog\n", "a dog") == ["a cat"]
    assert "两只狗" in namespace["prompt"]("两只狗", 10, "zh")[0]["content"]
    rows = re.findall(r"^\| (\w+).*?\| (.+?): (.+?) \| (.+?): (.+?) \|$", text, flags=re.MULTILINE)
    assert [row[0] for row in rows] == list(KINDS)
    for kind, english, false_english, chinese, false_chinese in rows:
        assert false_english in texts(english, kind)
        assert false_chinese in texts(chinese, kind)


def test_both_languages_of_the_documentation_have_the_same_code():
    def code(path) -> list[str]:
        blocks = re.findall(r"```\w+\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        return [re.sub(r"  #.*", "", block) for block in blocks]

    assert code(DOCS[0]) == code(DOCS[1])
