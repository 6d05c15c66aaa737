"""Filters: which entries of an index an SQL expression on their metadata allows, by DuckDB."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .._imports import require
from ..errors import FilterError
from ..files import printable

# DuckDB opens no file and no address, loads no extension, and none of this can be changed back.
SETTINGS = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",  # a name of a table is never that of a Python variable
    "memory_limit": "1GB",
    "preserve_insertion_order": "true",  # the answers come in the order of the rows
    "lock_configuration": "true",  # the last one
}
SECONDS = 10.0
MAX_CHARACTERS = 100_000

# An expression may be made of these, by the names of DuckDB's parser; sub-queries, windows and lambdas are none.
EXPRESSIONS = frozenset(
    ["COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN", "CASE", "CAST", "TYPE", "FUNCTION"]
)
SYMBOLS = frozenset(["+", "-", "*", "/", "//", "%", "||", "~~", "!~~", "~~*", "!~~*", "like_escape", "ilike_escape"])
FUNCTIONS = frozenset(
    [
        *("abs", "ceil", "floor", "round", "sign", "sqrt"),
        *("contains", "starts_with", "ends_with", "prefix", "suffix", "length", "lower", "upper", "trim", "substring"),
        *("regexp_matches", "regexp_full_match"),
        *("date_part", "year", "month", "day", "hour"),
        *("ifnull", "nullif", "greatest", "least"),
    ]
)


def allowed_rows(
    where: str, kinds: Mapping[str, type], column: Callable[[str], Sequence[Any]], rows: int
) -> np.ndarray:
    """Return which rows an SQL expression is true of.

    Args:
        where: What could stand behind WHERE, e.g. `"camera = 'X' and year > 2020"`: comparisons, `and`, `or`, `not`,
            `in`, `between`, `like`, `is null`, `case`, `cast`, arithmetic and the functions in [`FUNCTIONS`].
        kinds: Name of a column -> its type, `str`, `bool`, `int` or `float`.
        column: Called with the names of the columns that are used; gives the values of all rows, `None` where there is
            none.
        rows: How many rows there are.

    Returns:
        Boolean (rows,).

    Raises:
        FilterError: It is no such expression, names an unknown column, can't be computed, or takes too long.
        ImportError: DuckDB is not installed.
    """
    duckdb, pyarrow = require("duckdb", "search"), require("pyarrow", "search")
    if not isinstance(where, str) or not where.strip():
        raise FilterError(f"where must be an expression such as 'year > 2020', got {where!r:.80}")
    if len(where) > MAX_CHARACTERS:
        raise FilterError(f"where has {len(where):,} characters, more than {MAX_CHARACTERS:,}")
    shown = printable(where) if len(where) <= 200 else printable(where[:200]) + "…"
    types = {str: pyarrow.string(), bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}
    with connect(duckdb) as connection:
        try:
            used = _check(_parse(connection, where, shown), list(kinds), shown)
        except RecursionError as error:  # each operator of a chain, as a + b + c, is a level of the tree
            raise FilterError(f"where={shown!r} is nested too deeply: make it simpler") from error
        table = {name: pyarrow.array(column(name), types[kinds[name]]) for name in kinds if name in used}
        connection.register("entries", pyarrow.table(table or {"row": pyarrow.array(range(rows))}))
        timer = threading.Timer(SECONDS, connection.interrupt)
        timer.start()
        try:
            found = connection.execute(f"SELECT ({where}\n) IS TRUE AS allowed FROM entries").fetchnumpy()
        except duckdb.InterruptException as error:
            raise FilterError(f"where={shown!r} takes more than {SECONDS:.0f} seconds: make it simpler") from error
        except duckdb.Error as error:
            raise FilterError(f"where={shown!r} can't be computed: {_first_line(error)}") from error
        finally:
            timer.cancel()
    assert len(found["allowed"]) == rows
    return np.asarray(found["allowed"], bool)


def check_allowed(allowed: np.ndarray | None, rows: int, what: str) -> None:
    """Raise a `ValueError` unless a mask of what a search may find has a boolean for each row of the index."""
    if allowed is not None and (np.shape(allowed), np.asarray(allowed).dtype) != ((rows,), bool):
        raise ValueError(
            f"allowed must be an array of {rows} booleans, one for each of the index's {what}, got shape "
            f"{np.shape(allowed)} of {np.asarray(allowed).dtype}"
        )


@contextmanager
def connect(duckdb: Any) -> Iterator[Any]:
    """Yield a connection to a database in memory, by which nothing outside it can be reached; see [`SETTINGS`]."""
    with duckdb.connect(":memory:") as connection:
        for name, value in SETTINGS.items():
            connection.execute(f"SET {name} = '{value}'")
        yield connection


def _parse(connection: Any, where: str, shown: str) -> dict[str, Any]:
    """Return the tree of an expression by DuckDB's own parser, which runs nothing.

    Around it stands a query whose other parts have to come back as they are: what closes the brackets and goes on with
    UNION, or with another statement, changes them.
    """

    def tree(expression: str) -> Any:
        query = f"SELECT true FROM entries WHERE (\n{expression}\n)"  # a comment ends with its line
        ((answer,),) = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
        return json.loads(answer)

    def skeleton(parsed: Any) -> Any:
        rest = copy.deepcopy(parsed)
        rest["statements"][0]["node"].pop("where_clause", None)
        return _without_places(rest)

    parsed = tree(where)
    if parsed.get("error"):
        raise FilterError(f"where={shown!r} is not an expression: {_first_line(parsed.get('error_message'))}")
    if skeleton(parsed) != skeleton(tree("true")):
        raise FilterError(f"where={shown!r} must be one expression, as behind WHERE, and nothing else")
    return parsed["statements"][0]["node"]["where_clause"]


def _without_places(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_without_places(item) for item in tree]
    if isinstance(tree, dict):
        return {key: _without_places(item) for key, item in tree.items() if not key.startswith("query_location")}
    return tree


def _check(tree: dict[str, Any], columns: list[str], shown: str) -> set[str]:
    """Return the columns that an expression names.

    Raises:
        ValueError: It has parts that are not allowed, or columns that are not there.
    """
    known = {name.casefold(): name for name in columns}
    used = set()
    for node in _nodes(tree):
        kind = node["class"]
        if kind not in EXPRESSIONS or node.get("type") == "ARRAY_CONSTRUCTOR":
            raise FilterError(
                f"where={shown!r} has a {kind.lower().replace('_', ' ')}, which a filter can't have: it is made of "
                "columns, values, comparisons, and, or, not, in, between, like, is null, case, cast, arithmetic and "
                "functions of one row"
            )
        if kind == "COLUMN_REF":
            name = ".".join(node["column_names"])
            if name.casefold() not in known:
                raise FilterError(
                    f"where={shown!r} names the column {printable(name)!r}; there are "
                    f"{', '.join(map(printable, columns))} (a text stands in single quotes: 'X')"
                )
            used.add(known[name.casefold()])
        if kind == "FUNCTION" and (
            node["function_name"] not in FUNCTIONS | SYMBOLS or node.get("schema") or node.get("catalog")
        ):
            raise FilterError(
                f"where={shown!r} calls {printable(node['function_name'])}, which a filter can't; there are "
                f"{', '.join(sorted(FUNCTIONS))}"
            )
    return used


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield all parts of an expression."""
    waiting = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            if "class" in item:
                yield item
            waiting += item.values()


def _first_line(error: Any) -> str:
    return printable(str(error).strip().split("\n")[0])
