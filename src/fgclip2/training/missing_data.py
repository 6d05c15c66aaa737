"""Terms of the objective for which a data set has nothing."""

from __future__ import annotations

from collections.abc import Collection

from ..data.records import RecordDataset
from .tasks.interface import Objective

LOOKED_AT = 512  # records, spread over the data set


def terms_without_data(records: RecordDataset, objective: Objective, wanted: Collection[str]) -> list[str]:
    """Return the terms that have weight but no data in any of the records looked at.

    Args:
        records: Data set of the training.
        objective: Objective of the run.
        wanted: Names of settings that were chosen on purpose, whose terms are never returned.

    Returns:
        Names of its terms; none if that would leave no term that learns from data, or if no record can be read.
    """
    weighted = {term for term in objective.terms if getattr(objective.settings, f"{term}_weight")}
    # Of the terms whose data are a part of records that may be missing.
    missing = weighted & {"short", "long", "region", "tic", "hard_negative"}
    count = min(LOOKED_AT, len(records))
    for number in range(count):
        if not missing:
            break
        try:
            record = records[number * len(records) // count]
        except (ValueError, OSError):
            continue
        if record.short_caption is not None:
            missing.discard("short")
        if record.long_caption is not None:
            missing.discard("long")
        if record.regions:
            missing -= {"region", "tic"}
        if any(region.hard_negatives for region in record.regions):
            missing.discard("hard_negative")
    off = [term for term in objective.terms if term in missing and f"{term}_weight" not in wanted]
    return off if set(off) != weighted - {"distillation"} else []  # alone it would keep what the run has begun with
