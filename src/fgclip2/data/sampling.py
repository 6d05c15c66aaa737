"""How often an epoch draws the samples of each source and language: the arithmetic for records and for shards."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from ..languages import LANGUAGES, Language

logger = logging.getLogger(__name__)

_HIGHEST_RATE = 1_000_000  # numbers of draws stay far below 2**63


def check_sampling_rates(rates: Sequence[float], sources: int) -> None:
    """Raise a `ValueError` unless there is a positive number for each of so many sources."""
    is_list = isinstance(rates, Sequence) and len(rates) == sources
    if not is_list or not all(isinstance(rate, Real) and 0 < rate < math.inf for rate in rates):
        raise ValueError(f"`sampling_rates` must be a positive number for each of {sources} sources, got {rates!r}")
    if max(rates) > _HIGHEST_RATE:
        raise ValueError(f"`sampling_rates` must be at most {_HIGHEST_RATE:,}, got {rates!r}")


def check_language_shares(shares: Any) -> None:
    """Raise a `ValueError` unless shares are a dict of positive numbers by language, which add up to 1."""
    are_shares = isinstance(shares, dict) and all(isinstance(share, (int, float)) for share in shares.values())
    if not are_shares or not set(shares) <= set(LANGUAGES) or min(shares.values(), default=0) <= 0:
        allowed = " and ".join(map(repr, LANGUAGES))
        raise ValueError(f"`language_shares` must be positive numbers for {allowed}, got {shares!r}")
    if not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        raise ValueError(f"`language_shares` must add up to 1, got {shares!r}")


def count_draws(counts: np.ndarray, rates: Sequence[float], shares: Mapping[str, float] | None = None) -> np.ndarray:
    """Count how many samples of each source and language an epoch draws.

    A rate of 2.5 draws 2.5 times as many samples as there are, 0.25 a quarter of them. Shares of languages change the
    rates of all sources alike, so that each language has its share and an epoch is as long as without them. Of what is
    there at least one sample is drawn.

    Args:
        counts: Samples, int64 (sources, languages), at least one of them; with `shares` in the order of `LANGUAGES`.
        rates: Rate of each source.
        shares: Share of each language of the samples, which add up to 1; `None`: as the sources have them.

    Returns:
        Draws, int64 (sources, languages).

    Raises:
        ValueError: `shares` are not those of the languages that there are.
    """
    draws = counts * np.array(rates, dtype=float)[:, None]
    if shares:
        wanted, there = np.array([shares.get(name, 0.0) for name in LANGUAGES]), counts.sum(axis=0) > 0
        if ((wanted > 0) != there).any():
            found = {name: int(count) for name, count in zip(LANGUAGES, counts.sum(axis=0), strict=True) if count}
            raise ValueError(f"`language_shares` must name the languages of the records ({found}), got {dict(shares)}")
        draws[:, there] *= draws.sum() * wanted[there] / draws[:, there].sum(axis=0)
    return np.maximum(np.rint(draws), counts > 0).astype(np.int64)


def divide_draws(draws: Sequence[int], count: int) -> list[int]:
    """Return how many of the first `count` of all draws are of each kind, where kinds take turns as evenly as they can.

    As `count` grows no number falls: where all draws are cut into parts, those of each kind are too.

    Args:
        draws: Draws of each kind.
        count: From 0 to their sum.
    """
    divided, total = [], sum(draws)
    for of_kind in reversed(draws):  # the last takes its rounded share, then the one before it of the rest, and so on
        divided.append((2 * count * of_kind + total) // (2 * total) if total else 0)
        count, total = count - divided[-1], total - of_kind
    return divided[::-1]


def warn_of_copies(
    counts: np.ndarray, draws: np.ndarray, batch_size: int, languages: Sequence[Language | None], by_language: bool
) -> None:
    """Warn of samples that each batch has several times, so that copies are negatives of each other.

    Args:
        counts, draws: Samples of each source and language, and how many of them an epoch draws, (sources, languages).
        batch_size: Samples of a batch of all ranks.
        languages: Names of the languages; `None` for samples in any.
        by_language: Whether a batch is of one language.
    """
    totals = draws.sum(axis=0) if by_language else np.full(len(languages), draws.sum())
    of_batch = draws * batch_size / np.maximum(totals, 1)  # (sources, languages)
    for source, language in np.argwhere((of_batch > counts) & (totals >= batch_size)).tolist():
        logger.warning(
            "each batch of all ranks draws about %.0f records of source %d%s, which has %d: copies of one are "
            "negatives of each other. Lower its sampling rate%s, or add records",
            of_batch[source, language],
            source + 1,
            f" in language {languages[language]!r}" if languages[language] else "",
            counts[source, language],
            " or the language's share" if languages[language] else "",
        )
