"""Hard negatives for the regions of a whole file of records in FineHARD's schema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..data.readers.checks import check_text, shown
from ..data.records import InvalidRecordError
from ..files import UTF8_BOM, decode_json, replacing
from ..lexicon import KINDS, Kind, Vocabulary
from .generation import Generator, HardNegative, generate_hard_negatives

Generate = Callable[..., list[HardNegative]]


@dataclass
class HardNegativeReport:
    """Counts of what `write_hard_negatives` did."""

    records: int = 0
    regions: int = 0
    kept: int = 0  # regions that had negatives and keep them
    filled: int = 0  # regions that have new ones
    by_kind: Counter[str] = field(default_factory=Counter)  # new negatives
    without: list[tuple[str, str]] = field(default_factory=list)  # where, and the text that has nothing to change


def write_hard_negatives(
    source: str | Path,
    target: str | Path,
    count: int = 10,
    seed: int = 0,
    replace: bool = False,
    vocabulary: Vocabulary | None = None,
    kinds: Sequence[Kind] = KINDS,
    generator: Generator | None = None,
) -> HardNegativeReport:
    """Copy a file of records and give its regions hard negatives.

    Regions get `short_expr_negs` (`{"0": text, ...}`), `neg_kinds` (`{"0": kind, ...}`) and `flag_short_neg` 1; where
    the text has nothing to change, the flag is 0. Everything else stays as it is. JSONL is read a line at a time; a
    JSON list is held in memory.

    Args:
        source: One JSON list of records, or one record on each line.
        target: A new file of the same form. It appears when it is complete.
        replace: Make new negatives also for regions that have some; these are kept where no new ones can be made.
        count, seed, vocabulary, kinds, generator: As for `generate_hard_negatives`. Records with `is_cn` true are
            Chinese; the language of others is seen from each text.

    Returns:
        Counts, and the regions for which nothing could be generated.

    Raises:
        ValueError: A record can't be used; names file, line (or number in the list), field and value. Or the
            generator gave what can't be used.
        FileExistsError: There is a file at `target`.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise FileExistsError(f"{target} exists; choose a new name, or remove it first")
    report = HardNegativeReport()
    generate = partial(
        generate_hard_negatives, count=count, seed=seed, vocabulary=vocabulary, kinds=kinds, generator=generator
    )
    with source.open("rb") as file:
        lines = (line.removeprefix(UTF8_BOM).strip() for line in file)
        is_list = next(filter(None, lines), b"").startswith(b"[")
    begin, between, end = ("[\n", ",\n", "\n]\n") if is_list else ("", "\n", "\n")
    with replacing(target) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as output:
        output.write(begin)
        for item, place in _items(source, is_list):
            for region, where in _regions(item, place):
                _fill(region, where, item.get("is_cn"), generate, replace, report)
            output.write((between if report.records else "") + json.dumps(item, ensure_ascii=False))
            report.records += 1
        output.write(end)
    return report


def _fill(
    region: dict[str, Any], where: str, is_chinese: Any, generate: Generate, replace: bool, report: HardNegativeReport
) -> None:
    """Give one region its negatives."""
    report.regions += 1
    has_some = region.get("flag_short_neg") != 0 and bool(region.get("short_expr_negs"))
    if has_some and not replace:
        report.kept += 1
        return
    text = region["short_expr"]
    try:
        negatives = generate(text, language="zh" if is_chinese else None)
    except ValueError as error:
        raise ValueError(f"{where}.short_expr: {error}") from error
    if negatives:
        region["flag_short_neg"] = 1
        region["short_expr_negs"] = {str(number): negative.text for number, negative in enumerate(negatives)}
        region["neg_kinds"] = {str(number): negative.kind for number, negative in enumerate(negatives)}
        report.filled += 1
        report.by_kind.update(negative.kind for negative in negatives)
        return
    report.without.append((where, text))
    if has_some:
        report.kept += 1
    else:
        region["flag_short_neg"] = 0


def _regions(item: Any, place: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the regions of a record, and where they are."""
    if not isinstance(item, dict):
        raise InvalidRecordError(place, "the record", shown(item), "one JSON object")
    if item.get("is_cn") not in (None, True, False):
        raise InvalidRecordError(place, "is_cn", shown(item["is_cn"]), "true or false")
    regions = item.get("bbox_info") or []
    if not isinstance(regions, list):
        raise InvalidRecordError(place, "bbox_info", shown(regions), "a list")
    for number, region in enumerate(regions):
        name = f"bbox_info[{number}]"
        if not isinstance(region, dict):
            raise InvalidRecordError(place, name, shown(region), "one JSON object")
        check_text(region.get("short_expr"), f"{name}.short_expr", place)
        yield region, f"{place}: {name}"


def _items(source: Path, is_list: bool) -> Iterator[tuple[Any, str]]:
    """Yield the items of a file, each with the place to name in messages."""
    if is_list:
        try:
            items = decode_json(source.read_bytes())
        except ValueError as error:
            allowed = "one JSON list in UTF-8"
            raise InvalidRecordError(str(source), "the list", f"malformed ({error})", allowed) from error
        yield from ((item, f"{source}:{number}") for number, item in enumerate(items, start=1))
        return
    with source.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.removeprefix(UTF8_BOM).strip():
                continue
            place = f"{source}:{number}"
            try:
                item = decode_json(line)
            except ValueError as error:
                allowed = "well-formed JSON in UTF-8"
                raise InvalidRecordError(place, "the record", f"malformed ({error})", allowed) from error
            yield item, place
