"""The page of the memory of a training step beside the script that writes it."""

from pathlib import Path

import pytest

from scripts.perf import step_memory

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("language", step_memory.PAGES)
def test_the_page_has_a_row_for_each_case(language):
    its = step_memory.PAGES[language]
    expected = step_memory.table([(case, 1, 1.0) for case in step_memory.cases()], its["headings"], its["words"])
    page = (DOCS / f"training_memory{language}.md").read_text(encoding="utf-8").splitlines()
    start = page.index(expected[0])
    rows = page[start : page.index("", start)]
    assert [row.split(" | ")[:6] for row in rows] == [row.split(" | ")[:6] for row in expected]  # what a case says
