"""Run the parts that are asked for, and write the page of all that have been run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fgclip2.embedding.devices import default_device

from .page import write_pages
from .parts import PARTS
from .records import COMPLETE, FAILED, read_results, write_results
from .runner import run_part


def run(options: argparse.Namespace) -> int:
    """Run the parts, and return the exit status: 1 if a part did not end well or a bound is not held."""
    names = options.parts or list(PARTS)
    device, work = options.device or str(default_device()), options.work
    work.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = work / f"{name}.json"
        if options.again:
            path.unlink(missing_ok=True)
        if read_results(path).get("ended") == COMPLETE:
            print(f"{name}: kept", flush=True)
            continue
        ended = run_part(name, device, work, options.dry_run, options.limit)
        print(f"{name}: {ended}", flush=True)
    results = collect(work)
    if options.output and any(content.get("machine", {}).get("dry_run") for content in results.values()):
        raise SystemExit(f"{work} is of a dry run, which makes no page: choose another folder by --work")
    output = options.output or work / "gpu.md"
    write_pages(results, output)
    write_results(output.with_suffix(".json"), results)
    print(f"wrote {output}")
    return int(not all(is_good(results.get(name, {})) for name in names))


def collect(work: Path) -> dict[str, dict[str, Any]]:
    """Return the results of all parts that a folder has.

    Raises:
        SystemExit: They are of several machines, or of a dry run and a real one.
    """
    results = {name: read_results(work / f"{name}.json") for name in PARTS if (work / f"{name}.json").is_file()}
    machines = [content["machine"] for content in results.values() if "machine" in content]
    if any(machine != machines[0] for machine in machines):
        raise SystemExit(f"{work} has results of several machines: choose another folder by --work, or add --again")
    return results


def is_good(content: dict[str, Any]) -> bool:
    """Tell if a part came to its end and held its bounds. What this machine has not, or has too little of, may fail."""
    records = content.get("records", [])
    return content.get("ended") == COMPLETE and all(
        record.get("held", True) and record.get("problem", {}).get("kind") != FAILED for record in records
    )
