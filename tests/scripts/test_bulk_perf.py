"""What the engines of bulk embedding cost, as docs/bulk.md states it."""

import re
from importlib.util import find_spec

import pytest

from scripts.perf.bulk import MARKS, ROWS, Assumptions, Used, cost, cost_table, main, overhead_table, replace_table
from tests.docs.documents import ROOT, read

PAGES = {"en": ROOT / "docs" / "bulk.md", "zh": ROOT / "docs" / "bulk_zh.md"}


def test_costs_by_hand():
    given = Assumptions(images=3600, seconds_per_image=1.5, overhead_per_image=0.5, core_hour=0.1, days=1)
    found = cost(given)
    assert (found.core_hours, found.dollars) == (2, pytest.approx(0.2))
    assert found.cores == pytest.approx(2 / 24)
    assert found.input_terabytes == pytest.approx(3600 * 1e5 / 1e12)
    assert found.output_terabytes == pytest.approx(3600 * (4 * 768 + 20) / 1e12)
    assert (found.files, found.runs) == (4, 1)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_has_the_costs_of_its_assumptions(language):
    table = read(PAGES[language]).split(f"{MARKS[1]}\n")[1].split("\n\n")[0].strip()
    seconds, milliseconds = (re.search(rf"\| (\S+) CPU {unit} \|", table)[1] for unit in ("s", "ms"))
    instructions = re.search(r"AVX\w+", table)[0]
    given = Assumptions(
        seconds_per_image=float(seconds), instructions=instructions, overhead_per_image=float(milliseconds) / 1000
    )
    assert table == cost_table(given, language)


def test_what_a_longer_table_costs_more_is_the_cost_of_its_rows():
    more = ROWS[1] - ROWS[0]
    short, long = Used(wall=10, cpu=20 + 0.02 * ROWS[0]), Used(wall=10 + 0.01 * more, cpu=20 + 0.02 * ROWS[1])
    (row,) = overhead_table({"ray": (short, long)}, {"ray": "Ray"}, "| … |").splitlines()[2:]
    assert row.startswith("| Ray | 20 s | 20.0 ms | ")


def test_a_table_takes_the_place_of_another(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- m -->\n| old |\n|---|\n| 1 |\n\nafter\n", encoding="utf-8")
    replace_table(page, "<!-- m -->", "| new |")
    assert page.read_text(encoding="utf-8") == "before\n<!-- m -->\n| new |\n\nafter\n"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: `make ray` has it")
def test_the_script_measures_all_engines(tmp_path):
    pages = tmp_path / "page.md", tmp_path / "page_zh.md"
    for page in pages:
        page.write_text("\n\n".join(f"{mark}\n" for mark in MARKS), encoding="utf-8")
    main(["--output", *map(str, pages)])
    for page in pages:
        overhead, costs = (part.strip() for part in page.read_text(encoding="utf-8").split(MARKS[1]))
        assert len(overhead.splitlines()) == 1 + 2 + 3
        assert "1,000,000,000" in costs
        print(overhead, costs, sep="\n\n")
