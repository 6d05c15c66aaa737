"""Checks of arguments and settings: each returns quietly or raises a `ValueError` that names value and remedy."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable
from typing import Any


def one_of(allowed: Iterable[Any]) -> str:
    """Return the allowed values as a message names them, e.g. "'paper' or 'released'"."""
    *others, last = map(repr, allowed)
    return f"{', '.join(others)} or {last}" if others else last


def check_choice(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise a `ValueError` unless `value` is one of `allowed`.

    Args:
        name: The argument or setting, as the message should call it.
        value: What was given.
        allowed: The values that may be given, in the order in which the message lists them.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} must be {one_of(allowed)}, got {value!r}")


def check_flag(name: str, value: Any) -> None:
    """Raise a `ValueError` unless `value` is `True` or `False`."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, not too large for a float; booleans are none."""
    is_one = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_one and abs(value) <= sys.float_info.max  # math.isfinite raises for an integer such as 10**400


def check_number(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raise a `ValueError` unless `value` is a finite number from `low` to `high`; NaN and booleans are none."""
    if not is_number(value) or not low <= value <= high:
        bounds = f"from {low} on" if high == math.inf else f"from {low} to {high}"
        raise ValueError(f"{name} must be a number {bounds}, got {value!r}")


def check_positive_integer(name: str, value: Any) -> None:
    """Raise a `ValueError` unless `value` is an integer above zero; booleans are none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def environment_flag(name: str) -> bool:
    """Return whether an environment variable is set to anything but 0 and the empty string."""
    return os.environ.get(name, "") not in ("", "0")
