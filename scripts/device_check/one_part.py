"""Run one part in this process, and keep each record as soon as it is there.

python -m scripts.device_check.one_part PART --device cuda --work FOLDER [--dry-run]
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import torch

from .machine import describe_machine
from .parts import PARTS, load_part
from .records import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    Case,
    Record,
    Settings,
    problem_of,
    read_results,
    run_case,
    write_results,
)


def run_part(name: str, settings: Settings, path: Path) -> None:
    """Run the cases of a part of which `path` has no record yet, then those anew that had met a problem before.

    Whatever ends this process, a case that does it each time keeps no other from being measured.
    """
    earlier = [record for record in read_results(path)["records"] if record.keys() != {"problem"}]
    machine = describe_machine(settings)
    records: list[Record] = []
    later: list[int] = []  # rows

    def keep(**state: Any) -> None:
        write_results(path, {"machine": machine, **state, "records": [*records, *earlier]})

    def measure(case: Case, row: int) -> None:
        records[row : row + 1] = [{**case.labels, "problem": {"kind": INTERRUPTED, "detail": ""}}]
        keep(running=row)
        print(f"{name}: {case.labels}", flush=True)
        records[row] = run_case(case)
        print(f"    {json.dumps(records[row], ensure_ascii=False)}", flush=True)
        keep()

    try:
        for row, case in enumerate(load_part(name).cases(settings)):
            if (found := find_known(earlier, case)) is None:
                measure(case, row)
                continue
            records.append(found)
            if "problem" in found:
                later.append(row)
        if later:
            for row, case in enumerate(load_part(name).cases(settings)):
                if row in later:
                    measure(case, row)
    except Exception as error:  # of the part, or of what cases share
        problem = problem_of(error)
        records.append({"problem": problem})
        print(f"    {records[-1]}", flush=True)
        keep(ended=FAILED if problem["kind"] == FAILED else COMPLETE)
    else:
        earlier.clear()  # the rest is of cases that this checkout does not have
        keep(ended=COMPLETE)


def find_known(known: list[Record], case: Case) -> Record | None:
    """Take the record of a case out of those of an earlier run."""
    for position, record in enumerate(known):
        if case.labels.items() <= record.items():
            return known.pop(position)
    return None


def end_with(parent: int) -> None:
    """End this process as soon as its parent, the process of this id, has ended, however it did."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--device", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--parent", type=int, metavar="ID", help="end with this process, which has started this one")
    options = parser.parse_args()
    if options.parent is not None:
        threading.Thread(target=end_with, args=(options.parent,), daemon=True).start()
    settings = Settings(torch.device(options.device), options.dry_run)
    run_part(options.part, settings, options.work / f"{options.part}.json")


if __name__ == "__main__":
    main()
