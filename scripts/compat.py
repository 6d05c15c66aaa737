"""Run the tests that depend on other packages' releases on the lowest and the newest supported transformers.

    python -m scripts.compat                                        # 5.18.0, the newest 5.x, 4.57.6
    python -m scripts.compat --torch 2.6.0 --python python3.10      # 5.18.0 beside the lowest torch and Python

What each 5.x release exports is loaded in all the others too, and on 4.57.6, which runs exported code only. The release
that this environment has is not tested again, for the default tests run on it. Other releases get an environment each
in a cache folder, made once, which shares what it can with this one: all but the lowest with `--torch` or `--python`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from .environments import PARALLEL, ROOT, link_torch, make_environment

LOWEST = "5.18.0"
REMOTE_CODE_ONLY = "4.57.6"  # the package needs more, a checkpoint that carries its code does not
TEST_PACKAGES = ["pytest>=9.0.3", "pytest-timeout>=2.3", "pytest-xdist>=3.7", "hypothesis>=6.100", "peft>=0.20"]
# What transformers has a part in: how models, processors and tokenizers are loaded, saved and exported; its Trainer,
# with several processes too. Data, drawings, metrics, benchmarks, search, commands use it through these only.
TESTS = ["parity", "load", "hub", "remote_code", "modeling", "tokenization", "training", "distributed"]
PYTEST = ["-m", "pytest", "-p", "no:cacheprovider", *PARALLEL]


@dataclass
class Environment:
    """An interpreter with one release of transformers."""

    transformers: str
    torch: str
    python: Path

    @property
    def has_package(self) -> bool:
        return not self.transformers.startswith("4.")

    @property
    def is_this_one(self) -> bool:
        return self.python == Path(sys.executable)


@dataclass
class Row:
    """A line of the table: one run of pytest."""

    environment: Environment
    what: str
    counts: dict[str, int]
    exit_code: int
    seconds: float

    @property
    def passed(self) -> bool:
        return self.exit_code == 0 and self.counts["passed"] > 0


def newest_transformers(python: str) -> str:
    """Return the newest 5.x release that pip would install for this interpreter."""
    command = [python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run([*command, "--report", str(report), f"transformers>={LOWEST},<6"], check=True)
        (entry,) = json.loads(report.read_text(encoding="utf-8"))["install"]
    return entry["metadata"]["version"]


def count_results(junit: Path) -> dict[str, int]:
    """Return the numbers of tests in a JUnit file of pytest; all 0 if pytest did not get as far as writing it."""
    suites = ElementTree.parse(junit).getroot().iter("testsuite") if junit.is_file() else []
    totals = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in suites:
        totals = {name: total + int(suite.get(name, "0")) for name, total in totals.items()}
    failed = totals["failures"] + totals["errors"]
    return {"passed": totals["tests"] - failed - totals["skipped"], "failed": failed, "skipped": totals["skipped"]}


def run_tests(environment: Environment, what: str, arguments: list[str], others: list[Environment]) -> Row:
    """Run pytest in an environment that has the package; `others` load what it exports."""
    pythons = os.pathsep.join(str(other.python) for other in others)
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "FGCLIP2_REMOTE_CODE_PYTHONS": pythons}
    print(f"transformers {environment.transformers}: {what}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        command = [environment.python, *PYTEST, f"--junitxml={junit}", *arguments]
        exit_code = subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode
        counts = count_results(junit)
    return Row(environment, what, counts, exit_code, time.monotonic() - start)


def run_matrix(environments: list[Environment], tests: list[str]) -> list[Row]:
    """Run the tests in each environment with the package, and load what each of these exports in all the others."""
    rows = []
    for environment in environments:
        if not environment.has_package:
            continue
        if environment.is_this_one:
            print(f"transformers {environment.transformers}: as in this environment, where `make test` runs all tests")
        else:
            rows.append(run_tests(environment, ", ".join(tests), [f"tests/{name}" for name in tests], []))
        others = [other for other in environments if other is not environment]
        if others:
            what = f"its exported code on {', '.join(other.transformers for other in others)}"
            rows.append(run_tests(environment, what, ["tests/remote_code", "-k", "other_environments"], others))
    return rows


def format_table(rows: list[Row]) -> str:
    header = ("transformers", "torch", "result", "passed", "failed", "skipped", "seconds", "what")
    lines = [header]
    for row in rows:
        counts = [str(row.counts[name]) for name in ("passed", "failed", "skipped")]
        result = "ok" if row.passed else "FAILED"
        seconds = f"{row.seconds:.0f}"
        lines.append((row.environment.transformers, row.environment.torch, result, *counts, seconds, row.what))
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def shared_environment(cache: Path, release: str) -> Environment:
    """Return this environment or, for another release, one that takes from it what it can."""
    torch = version("torch")
    if release == version("transformers"):
        return Environment(release, torch, Path(sys.executable))
    folder, pin = cache / f"transformers-{release}", f"transformers=={release}"
    if release.startswith("4."):  # beside the companions of its own time
        return Environment(release, torch, make_environment(folder, [pin, "pillow"], link_torch(cache / "torch")))
    return Environment(release, torch, make_environment(folder, [pin, "--editable", "."]))


def lowest_environment(cache: Path, torch: str, python: str) -> Environment:
    """Return an environment of the lowest transformers beside this torch and Python, which shares nothing with ours."""
    command = [python, "-c", "import platform; print(platform.python_version())"]
    python_version = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    folder = cache / f"transformers-{LOWEST}-torch-{torch}-python-{python_version}"
    requirements = [f"torch=={torch}", f"transformers=={LOWEST}", "--editable", ".", *TEST_PACKAGES]
    return Environment(LOWEST, torch, make_environment(folder, requirements, shared=None, python=python))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "compat", help="folder of the environments")
    parser.add_argument("--torch", help=f"release of torch beside transformers {LOWEST}; left out: as here")
    parser.add_argument("--python", help=f"interpreter beside transformers {LOWEST}; left out: this one")
    parser.add_argument(
        "--transformers", nargs="+", default=[LOWEST, "newest", REMOTE_CODE_ONLY], help="releases, or 'newest'"
    )
    parser.add_argument("--tests", nargs="+", default=TESTS, help="files and folders in tests/")
    arguments = parser.parse_args()
    if all(release.startswith("4.") for release in arguments.transformers):
        parser.error("--transformers: at least one 5.x release, which exports what 4.x loads")
    python = shutil.which(arguments.python or sys.executable)
    if python is None:
        parser.error(f"--python {arguments.python}: no such interpreter")
    cache = arguments.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    named = [newest_transformers(sys.executable) if name == "newest" else name for name in arguments.transformers]
    torch = arguments.torch or version("torch").split("+")[0]
    environments = []
    for release in dict.fromkeys(named):
        if release == LOWEST and (arguments.torch or arguments.python):
            environments.append(lowest_environment(cache, torch, python))
        else:
            environments.append(shared_environment(cache, release))
    rows = run_matrix(environments, arguments.tests)
    print(format_table(rows))
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
