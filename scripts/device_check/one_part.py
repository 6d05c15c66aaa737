"""Run one part in this process, and keep each record as soon as it is there.

python -m scripts.device_check.one_part PART --device cuda --work FOLDER [--dry-run]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from .machine import describe_machine
from .parts import PARTS, load_part
from .records import COMPLETE, FAILED, Case, Record, Settings, problem_of, read_results, run_case, write_results


def run_part(name: str, settings: Settings, path: Path) -> None:
    """Run the cases of a part of which `path` has no result yet. Those that met a problem are tried again."""
    content, machine = read_results(path), describe_machine(settings)
    known = [record for record in content["records"] if "problem" not in record]
    records: list[Record] = []

    def keep(**state: Any) -> None:
        write_results(path, {"machine": machine, **state, "records": [*records, *known]})

    try:
        for case in load_part(name).cases(settings):
            found = find_known(known, case)
            if found is None:
                keep(running=case.labels)  # in case that this process does not outlive it
                print(f"{name}: {case.labels}", flush=True)
                found = run_case(case)
                print(f"    {json.dumps(found, ensure_ascii=False)}", flush=True)
            records.append(found)
            keep()
    except Exception as error:  # of the part, or of what cases share
        problem = problem_of(error)
        records.append({"problem": problem})
        print(f"    {records[-1]}", flush=True)
        keep(ended=FAILED if problem["kind"] == FAILED else COMPLETE)
    else:
        known.clear()  # the rest is of cases that this checkout does not have
        keep(ended=COMPLETE)


def find_known(known: list[Record], case: Case) -> Record | None:
    """Take the record of a case out of those of an earlier run."""
    for position, record in enumerate(known):
        if case.labels.items() <= record.items():
            return known.pop(position)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--device", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    settings = Settings(torch.device(options.device), options.dry_run)
    run_part(options.part, settings, options.work / f"{options.part}.json")


if __name__ == "__main__":
    main()
