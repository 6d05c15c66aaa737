"""Which samples of shards of several sources an epoch draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..languages import LANGUAGES, Language
from .readers.checks import check_language_option
from .sampling import check_sampling_rates, count_draws, divide_draws
from .shard_files import Shard, count_shards, find_shards, places_of

_SHARDS = 0  # stream of random numbers, of those of `ShardedRecords`
_MOST_CELLS = 64  # each of which has a shard open in every worker


class ShardSource(NamedTuple):
    """Shards that are drawn from together, and how they are taken."""

    places: list[str]  # a folder, an index, or `.tar` that were named one after another
    shards: list[Shard]
    language: Language | None  # of all samples; None: that of each
    rate: float  # how many times an epoch takes the samples

    @property
    def name(self) -> str:
        """The place, or the first and the last of several."""
        if len(self.places) == 1:
            return self.places[0]
        return f"{self.places[0]} … {self.places[-1]} ({len(self.places):,} shards)"


def find_sources(
    shards: str | Path | Sequence[str | Path],
    language: Language | Sequence[Language | None] | None,
    sampling_rates: Sequence[float] | None,
    follow_links: bool,
) -> list[ShardSource]:
    """Find the shards of one place or of each of several; arguments are those of `ShardedRecords`.

    Each folder and index is a source. So are `.tar` that follow each other and have one rate and language.

    Raises:
        ValueError: As `list_shards`; or a language or rate is none, or there is not one for each place.
    """
    places = places_of(shards)
    languages = [language] * len(places) if language is None or isinstance(language, str) else list(language)
    if len(languages) != len(places):
        raise ValueError(f"language must be one, or one for each of {len(places)} sources, got {language!r}")
    for of_source in languages:
        check_language_option(of_source)
    rates = [1.0] * len(places) if sampling_rates is None else sampling_rates
    check_sampling_rates(rates, len(places))
    found = []
    for number, (place, of_source, rate) in enumerate(zip(places, languages, rates, strict=True)):
        its_shards = find_shards(place, follow_links)
        is_tar = [shard.path for shard in its_shards] == [place]  # found as it is named
        found.append(((of_source, float(rate), None if is_tar else number), place, its_shards))
    sources = []
    for (of_source, rate, _), of_one in groupby(found, key=itemgetter(0)):
        _, its_places, parts = zip(*of_one, strict=True)
        sources.append(ShardSource(list(its_places), list(chain(*parts)), of_source, rate))
    return sources


class ShardPart(NamedTuple):
    """Samples to read of one shard."""

    shard: int
    offsets: list[int]  # of the samples among those that the shard has in the language of their cell, sorted
    samples: int  # that it has in this language
    number_of_pass: int


class ShardCell:
    """The samples that some shards have, or those of them in one language, drawn pass after pass.

    A pass has each sample once, shard by shard in an order of its own. All passes are one row of samples, in which
    epochs go on where the last one stopped: with a rate of 0.25 four epochs are a pass; with 2.5 an epoch has two
    passes and half of one, whose other half the next epoch begins with. Places are numbers of samples in this row.

    Args:
        first: Number of the first of the shards, which follow each other.
        samples: Samples of each shard, int64 (S,), at least one in all.
        draws: Samples that an epoch draws.
        language: Language of the samples; `None`: any.
        source: Number of the source, which other orders follow from than from that of another.
        seed: Seed of the orders; `None`: shards stay in order.
        rotated: Whether a pass begins at a sample drawn for it, and goes round to this; else with its first shard.

    Attributes:
        draws, language: As above.
        total: Samples of a pass.
    """

    def __init__(
        self,
        first: int,
        samples: np.ndarray,
        draws: int,
        language: Language | None,
        source: int,
        seed: int | None,
        rotated: bool,
    ):
        self.draws, self.language, self.total = draws, language, int(samples.sum())
        self._first, self._samples, self._source = first, samples, source
        self._seed, self._rotated = seed, rotated

    def spans(self, epoch: int, start: int, stop: int) -> list[range]:
        """Return the places of a part of an epoch's draws: a range in each pass that it has some of.

        It has its share of each pass, so that all parts are in the same pass at about the same time.
        """
        first, last = epoch * self.draws, (epoch + 1) * self.draws
        cuts = [first, *range((first // self.total + 1) * self.total, last, self.total), last]
        lengths = [end - begin for begin, end in pairwise(cuts)]
        shares = zip(cuts, divide_draws(lengths, start), divide_draws(lengths, stop), strict=False)
        return [range(begin + low, begin + high) for begin, low, high in shares if low < high]

    def locate(self, spans: Sequence[range], wanted: np.ndarray) -> Iterator[ShardPart]:
        """Yield the parts of shards that have the wanted samples of [`spans`], one after another.

        Args:
            spans: Places, a range in each of several passes.
            wanted: Which of all of these are, bool (N,).
        """
        start = 0
        for span in spans:
            yield from self._locate_in_pass(*divmod(span.start, self.total), wanted[start : start + len(span)])
            start += len(span)

    def _locate_in_pass(self, number_of_pass: int, place: int, wanted: np.ndarray) -> Iterator[ShardPart]:
        """Yield the parts of shards that have the wanted, bool (N,), of the samples from a place in a pass on."""
        order, rotation = self._order(number_of_pass)
        samples = self._samples[order]
        ends = np.cumsum(samples)
        while wanted.any():
            place_in_order = (place + rotation) % self.total
            number = int(np.searchsorted(ends, place_in_order, side="right"))
            left = int(ends[number]) - place_in_order  # in this shard
            offsets = int(samples[number]) - left + np.flatnonzero(wanted[:left])
            if len(offsets):
                shard = self._first + int(order[number])
                yield ShardPart(shard, offsets.tolist(), int(samples[number]), number_of_pass)
            place, wanted = place + left, wanted[left:]

    def _order(self, number_of_pass: int) -> tuple[np.ndarray, int]:
        """Return the order of the shards, (S,), and at which of the samples in it a pass begins and ends."""
        if self._seed is None:
            return np.arange(len(self._samples)), 0
        rng = np.random.default_rng([self._seed, number_of_pass, _SHARDS, *([self._source] if self._source else [])])
        order = rng.permutation(len(self._samples))
        # Those that fill no batch at the end of a part are else the same in each pass, where shards are few.
        return order, int(rng.integers(self.total)) if self._rotated else 0


class ShardRow:
    """Samples that batches are cut from; cells take turns in it.

    Args:
        language: Language of all of them; `None`: any.
        cells: Where they come from.
    """

    def __init__(self, language: Language | None, cells: Sequence[ShardCell]):
        self.language, self.cells = language, cells

    def __len__(self) -> int:
        """Return the number of samples that an epoch draws."""
        return sum(cell.draws for cell in self.cells)

    def divide(self, place: int) -> np.ndarray:
        """Return how many of the samples of an epoch before a place each cell has, int64 (cells,)."""
        return np.array(divide_draws([cell.draws for cell in self.cells], place), dtype=np.int64)


class ShardMixture:
    """Draws of an epoch out of the shards of several sources.

    Args:
        sources: Sources of [`find_sources`], whose samples are counted where no index has done it.
        language_batches: Whether each language is a row by itself, if there are several (`"homogeneous"`), or all are
            one row (`"mixed"`).
        language_shares: Share of each language in an epoch; `None`: as the sources have them.
        on_error: `"skip"` takes what can be read of a broken shard that has to be counted, with a warning.
        seed: Seed of the orders of shards; `None`: they stay in order.

    Attributes:
        sources: The sources with their numbers of samples.
        shards: The shards of all sources.
        languages: The language of all samples of each shard; `None`: that of each sample.
        sampling_rates: Rate of each source; `None`: 1 throughout.
        counts, draws: Samples of each source in each language, and how many of them an epoch draws, int64
            (sources, languages).
        columns: The languages that these arrays have; `None` in place of all where none are told apart.
        rows: Rows of samples, that of each language or one.

    Raises:
        ValueError: `language_shares` are not those of the languages that there are, or there are too many sources.
        BrokenShardError: A shard had to be counted and is broken.
    """

    def __init__(
        self,
        sources: Sequence[ShardSource],
        language_batches: Literal["homogeneous", "mixed"],
        language_shares: Mapping[str, float] | None,
        on_error: Literal["raise", "skip"],
        seed: int | None,
    ):
        in_one_language = len({source.language for source in sources}) == 1 and sources[0].language is not None
        by_language = language_shares is not None or (language_batches == "homogeneous" and not in_one_language)
        self.columns: tuple[Language | None, ...] = LANGUAGES if by_language else (None,)
        rates = [source.rate for source in sources]
        self.sampling_rates = None if set(rates) == {1.0} else rates
        if self.sampling_rates is not None:
            _check_number(sources, self.columns)
        self.sources = _counted(sources, by_language, on_error)
        self.shards = [shard for source in self.sources for shard in source.shards]
        self.languages = [source.language for source in self.sources for _ in source.shards]
        samples = [_samples(source, by_language) for source in self.sources]  # (shards, languages) of each source
        self.counts = np.array([of_source.sum(axis=0) for of_source in samples])
        self.draws = count_draws(self.counts, rates, language_shares)

        parts = list(zip(samples, self.draws, strict=True))
        if self.sampling_rates is None:  # all shards in one order, as it was before there were rates
            parts = [(np.concatenate(samples), self.draws.sum(axis=0))]
        rotated = self.sampling_rates is not None or language_shares is not None  # else also as it was
        cells: list[list[ShardCell]] = [[] for _ in self.columns]
        first = 0
        for source, (of_shards, draws) in enumerate(parts):
            for column in np.flatnonzero(draws).tolist():
                language, of_cell = self.columns[column], int(draws[column])
                cell = ShardCell(first, of_shards[:, column], of_cell, language, source, seed, rotated)
                cells[column].append(cell)
            first += len(of_shards)
        if language_batches == "homogeneous":
            self.rows = [ShardRow(language, its) for language, its in zip(self.columns, cells, strict=True)]
        else:
            self.rows = [ShardRow(None, [cell for its in cells for cell in its])]


def _check_number(sources: Sequence[ShardSource], columns: Sequence[Language | None]) -> None:
    """Raise a `ValueError` if workers would have to hold too many shards open."""
    cells = sum(1 if source.language else len(columns) for source in sources)
    if cells > _MOST_CELLS:
        each = " (each language of one counts)" if len(columns) > 1 else ""
        raise ValueError(
            f"shards with `sampling_rates` must be of at most {_MOST_CELLS} sources{each}, got {cells}, for each "
            "loader worker has a shard of every one open: put shards of one rate and language into one folder, or name "
            "their .tar one after another"
        )


def _counted(
    sources: Sequence[ShardSource], by_language: bool, on_error: Literal["raise", "skip"]
) -> list[ShardSource]:
    """Return sources with the numbers of their samples, and `by_language` of those in each language."""
    shards = [shard for source in sources for shard in source.shards]
    wanted = [by_language and source.language is None for source in sources for _ in source.shards]
    counted = iter(count_shards(shards, wanted, on_error))
    return [source._replace(shards=[next(counted) for _ in source.shards]) for source in sources]


def _samples(source: ShardSource, by_language: bool) -> np.ndarray:
    """Return the samples of each shard, int64 (shards, languages), or (shards, 1) of all languages together."""
    rows: list[tuple[int, ...]]
    if not by_language:
        rows = [(shard.samples,) for shard in source.shards]
    elif source.language is None:
        rows = [shard.languages or () for shard in source.shards]
    else:
        rows = [tuple(shard.samples * (name == source.language) for name in LANGUAGES) for shard in source.shards]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(LANGUAGES) if by_language else 1)
