"""Filters: what an expression may be, and that nothing else gets through."""

import sys

import numpy as np
import pytest

from fgclip2.search import filters
from fgclip2.search.filters import allowed_rows

COLUMNS = {
    "id": ["a.png", "b.png", "狗.png"],
    "camera": ["X", "Y", None],
    "year": [2020, 2021, 2022],
    "地点": ["北京", "上海", "北京"],
    "sharp": [True, None, False],
    "score": [0.5, 1.5, None],
}
KINDS = {"id": str, "camera": str, "year": int, "地点": str, "sharp": bool, "score": float}


def rows(where: str) -> list[int]:
    return np.flatnonzero(allowed_rows(where, KINDS, COLUMNS.__getitem__, 3)).tolist()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("camera = 'X' and year > 2019", [0]),
        ("Camera = 'X' or YEAR = 2021", [0, 1]),
        ("地点 = '北京' and not sharp", [2]),
        ("camera is null", [2]),
        ("camera <> 'X'", [1]),  # of null nothing is known
        ("coalesce(camera, '?') in ('?', 'Y')", [1, 2]),
        ("year between 2021 and 2022 and id like '%.png'", [1, 2]),
        ("lower(camera) = 'x' -- a comment", [0]),
        ("case when score > 1 then true else sharp end", [0, 1]),
        ("score * 2 + 1 >= 2.0", [0, 1]),
        ("cast(year as varchar) = '2020' or date '2021-05-01' = date (year || '-05-01')", [0, 1]),
        ("regexp_matches(id, '^[ab]')", [0, 1]),
        ("id = 'it''s'", []),
        ("true", [0, 1, 2]),
    ],
)
def test_expressions(where, expected):
    assert rows(where) == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("camera = (select content from read_text('/etc/passwd'))", "has a subquery, which a filter can't have"),
        ("exists (select * from read_csv('/etc/passwd'))", "has a subquery"),
        ("camera in (select camera from entries)", "has a subquery"),
        ("year = 1) union select true where (true", "must be one expression"),
        ("true; attach '/tmp/x.db' as x", "is not an expression: syntax error"),
        ("true) ; copy entries to '/tmp/x' ; select (true", "is not an expression"),
        ("true) limit 1 --", "is not an expression|must be one expression"),
        ("copy entries to '/tmp/x'", "is not an expression"),
        ("attach '/tmp/x.db'", "can't be computed: Catalog Error: Type with name attach"),
        ("pragma database_list", "is not an expression"),
        ("read_csv('/etc/passwd')", "calls read_csv, which a filter can't; there are abs, "),
        ("getenv('HOME') = ''", "calls getenv"),
        ("main.lower(camera) = 'x'", "calls lower"),
        ("repeat('x', 1000000000) = ''", "calls repeat"),
        ("sum(year) > 1", "calls sum"),
        ("row_number() over () = 1", "has a window"),
        ("list_filter([1], x -> x > 0) is null", "has a lambda|calls"),
        ("columns(*) = 1", "has a star"),
        ("$1 = 1", "must be one expression|has a parameter"),
        ("camera collate nocase = 'x'", "has a collate"),
        ("yaer > 2020", "names the column 'yaer'; there are id, camera, year, 地点, sharp, score"),
        ('camera = "X"', "names the column 'X'.*a text stands in single quotes"),
        ("entries.year > 2020", "names the column 'entries.year'"),
        ("rowid = 1", "names the column 'rowid'"),
        ("year > 'x'", "can't be computed: Conversion Error"),
        ("camera", "can't be computed"),
        (" ", "where must be an expression such as"),
        ("true or " * 20_000 + "true", "more than 100,000"),
        ("year" + " + 1" * 900 + " > 0", "is nested too deeply: make it simpler"),
    ],
)
def test_anything_else_is_refused(where, message):
    with pytest.raises(ValueError, match=message):
        rows(where)


def test_what_is_not_refused_can_not_leave_the_process_either():
    duckdb = pytest.importorskip("duckdb")
    with filters.connect(duckdb) as connection:
        for query in [
            "select * from read_csv('/etc/passwd')",
            "select * from '/etc/passwd'",
            "copy (select 1) to '/tmp/x.csv'",
            "attach '/tmp/x.db'",
            "install httpfs",
            "load httpfs",
            "set enable_external_access = true",
            "set threads = 1",
            "select * from COLUMNS",
        ]:
            with pytest.raises(duckdb.Error):
                connection.execute(query).fetchall()


def test_a_filter_that_takes_too_long_is_ended(monkeypatch):
    monkeypatch.setattr(filters, "SECONDS", 0.05)
    values = ["a" * 2000 + "b"] * 20_000
    slow = " or ".join([f"regexp_matches(id, '(a|aa)+{number}$')" for number in range(50)])
    with pytest.raises(ValueError, match="takes more than 0 seconds: make it simpler"):
        allowed_rows(slow, {"id": str}, lambda _: values, len(values))


def test_only_columns_that_are_used_are_asked_for():
    asked = []

    def column(name):
        asked.append(name)
        return COLUMNS[name]

    allowed_rows("YEAR > 2020", KINDS, column, 3)
    assert asked == ["year"]


def test_without_duckdb_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ImportError, match=r'pip install "fgclip2\[search\]"'):
        rows("true")
