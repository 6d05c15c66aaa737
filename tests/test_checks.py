"""The checks of arguments: what passes, and what a message says."""

import math

import numpy as np
import pytest

from fgclip2.checks import (
    check_choice,
    check_flag,
    check_number,
    check_positive_integer,
    environment_flag,
    one_of,
)


def test_one_of_reads_like_a_sentence():
    assert one_of(["paper"]) == "'paper'"
    assert one_of(["paper", "released"]) == "'paper' or 'released'"
    assert one_of(["en", "zh", None]) == "'en', 'zh' or None"


def test_what_is_allowed_passes():
    check_choice("preset", "paper", iter(["paper", "released"]))
    check_choice("language", None, ("en", None))
    for flag in (True, False):
        check_flag("freeze", flag)
    for number in (0, 1, 0.5, 1e-9):
        check_number("dropout", number, 0, 1)
    for integer in (1, 10**12):
        check_positive_integer("batch_size", integer)


@pytest.mark.parametrize(
    ("check", "arguments", "message"),
    [
        (check_choice, ("`preset`", "foo", ["paper", "released"]), "`preset` must be 'paper' or 'released', got 'foo'"),
        (check_choice, ("preset", None, ["paper"]), "preset must be 'paper', got None"),
        (check_flag, ("freeze", 1), "freeze must be True or False, got 1"),
        (check_flag, ("freeze", "yes"), "freeze must be True or False, got 'yes'"),
        (check_flag, ("freeze", None), "freeze must be True or False, got None"),
        (check_number, ("dropout", 1.5, 0, 1), "dropout must be a number from 0 to 1, got 1.5"),
        (check_number, ("dropout", -1, 0, 1), "dropout must be a number from 0 to 1, got -1"),
        (check_number, ("dropout", math.nan, 0, 1), "dropout must be a number from 0 to 1, got nan"),
        (check_number, ("dropout", True, 0, 1), "dropout must be a number from 0 to 1, got True"),
        (check_number, ("dropout", 10**400, 0), f"dropout must be a number from 0 on, got {10**400}"),
        (check_number, ("dropout", "0.5", 0, 1), "dropout must be a number from 0 to 1, got '0.5'"),
        (check_positive_integer, ("count", 0), "count must be a positive integer, got 0"),
        (check_positive_integer, ("count", 2.0), "count must be a positive integer, got 2.0"),
        (check_positive_integer, ("count", True), "count must be a positive integer, got True"),
        (check_positive_integer, ("count", "3"), "count must be a positive integer, got '3'"),
        (check_positive_integer, ("count", np.array([1, 2])), r"count must be a positive integer, got array([1, 2])"),
    ],
)
def test_mistakes_are_named_with_what_is_allowed(check, arguments, message):
    with pytest.raises(ValueError, match=r" must be .*, got ") as caught:
        check(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("true", True), ("0", False), ("", False), (None, False)])
def test_an_environment_variable_is_set_or_not(monkeypatch, value, expected):
    monkeypatch.delenv("FGCLIP2_SOMETHING", raising=False)
    if value is not None:
        monkeypatch.setenv("FGCLIP2_SOMETHING", value)
    assert environment_flag("FGCLIP2_SOMETHING") is expected
