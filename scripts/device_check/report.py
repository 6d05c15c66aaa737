"""Run the parts that are asked for, and write the page of all that have been run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from fgclip2.embedding.devices import default_device

from .machine import describe_machine
from .page import write_pages
from .parts import PARTS
from .records import COMPLETE, FAILED, Settings, read_results, write_results
from .runner import run_part


def run(options: argparse.Namespace) -> int:
    """Run the parts, and return the exit status: 1 if a part did not end well or a bound is not held.

    Raises:
        SystemExit: Another run uses the folder, or it has results of another machine, or of a dry run and a real one.
    """
    options.work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(options.work / ".lock", timeout=0):
            return run_parts(options)
    except Timeout as error:
        raise SystemExit(f"another run uses {options.work}: wait for its end, or choose another by --work") from error


def run_parts(options: argparse.Namespace) -> int:
    """Do what `run` says, in a folder that no other run uses."""
    names = options.parts or list(PARTS)
    device, work = options.device or str(default_device()), options.work
    if options.again:
        for name in names:
            (work / f"{name}.json").unlink(missing_ok=True)
    check_machine(work, describe_machine(Settings(torch.device(device), options.dry_run)))
    for name in names:
        if read_results(work / f"{name}.json").get("ended") == COMPLETE:
            print(f"{name}: kept", flush=True)
            continue
        ended = run_part(name, device, work, options.dry_run, options.limit)
        print(f"{name}: {ended}", flush=True)
    results = collect(work)
    output = options.output or work / "gpu.md"
    write_pages(results, output)
    write_results(output.with_suffix(".json"), results)
    print(f"wrote {output}")
    return int(not all(is_good(results.get(name, {})) for name in names))


def collect(work: Path) -> dict[str, dict[str, Any]]:
    """Return the results of all parts that a folder has."""
    return {name: read_results(work / f"{name}.json") for name in PARTS if (work / f"{name}.json").is_file()}


def check_machine(work: Path, machine: dict[str, Any]) -> None:
    """Refuse a folder with results of another machine.

    Raises:
        SystemExit: There are some.
    """
    for name, content in collect(work).items():
        if content.get("machine", machine) != machine:
            raise SystemExit(
                f"{work / name}.json is of {content['machine']}, this is {machine}: choose another folder by --work, "
                "or add --again"
            )


def is_good(content: dict[str, Any]) -> bool:
    """Tell if a part came to its end and held its bounds. What this machine has not, or has too little of, may fail."""
    records = content.get("records", [])
    return content.get("ended") == COMPLETE and all(
        record.get("held", True) and record.get("problem", {}).get("kind") != FAILED for record in records
    )
