"""Run the load and parity tests at the lowest and the newest supported transformers, and exported code on 4.57 too.

    python scripts/compat.py                                        # 5.18.0, the newest 5.x, 4.57.6
    python scripts/compat.py --transformers 5.18.0 --torch 2.6.0 --python python3.10     # the lower bounds

Each release gets a virtual environment of its own in a cache folder, made once. In those of 5.x this package is
installed by its own metadata; the one of 4.57.6 has only what loads an exported folder. Needs the standard library.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
LOWEST = "5.18.0"
REMOTE_CODE_ONLY = "4.57.6"  # the package needs more, a checkpoint that carries its code does not
TEST_PACKAGES = ["pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100", "peft>=0.20"]
TEST_FOLDERS = ["parity", "load", "hub", "remote_code", "modeling", "tokenization", "training", "distributed"]


@dataclass
class Environment:
    """A virtual environment with one release of transformers."""

    folder: Path
    transformers: str
    torch: str
    base_python: str

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin") / "python"

    @property
    def has_package(self) -> bool:
        return not self.transformers.startswith("4.")

    def requirements(self) -> list[str]:
        pins = [f"torch=={self.torch}", f"transformers=={self.transformers}"]
        return [*pins, "--editable", str(ROOT), *TEST_PACKAGES] if self.has_package else [*pins, "pillow"]

    def recipe(self) -> str:
        """What the environment is made from; an environment with another recipe is made anew."""
        metadata = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest() if self.has_package else None
        return json.dumps([self.base_python, self.requirements(), metadata])

    def is_complete(self) -> bool:
        marker = self.folder / "complete.json"
        return marker.is_file() and marker.read_text(encoding="utf-8") == self.recipe()

    def build(self) -> None:
        if self.is_complete():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        print(f"building {self.folder}", flush=True)
        start = time.monotonic()
        subprocess.run([self.base_python, "-m", "venv", str(self.folder)], check=True)
        subprocess.run([self.python, "-m", "pip", "install", "--quiet", *self.requirements()], check=True, cwd=ROOT)
        (self.folder / "complete.json").write_text(self.recipe(), encoding="utf-8")
        print(f"built in {time.monotonic() - start:.0f} s", flush=True)


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
    """Newest 5.x release that pip would install for this interpreter."""
    command = [python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run([*command, "--report", str(report), f"transformers>={LOWEST},<6"], check=True)
        (entry,) = json.loads(report.read_text(encoding="utf-8"))["install"]
    return entry["metadata"]["version"]


def count_results(junit: Path) -> dict[str, int]:
    """Numbers of tests in a JUnit file of pytest; all 0 if pytest did not get as far as writing it."""
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
        command = [environment.python, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={junit}", *arguments]
        exit_code = subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode
        counts = count_results(junit)
    return Row(environment, what, counts, exit_code, time.monotonic() - start)


def run_matrix(environments: list[Environment]) -> list[Row]:
    """The tests in each environment with the package, and what each of these exports in all the other environments."""
    folders = [f"tests/{name}" for name in TEST_FOLDERS]
    rows = []
    for environment in environments:
        if not environment.has_package:
            continue
        rows.append(run_tests(environment, ", ".join(TEST_FOLDERS), folders, []))
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


def make_environments(cache: Path, releases: list[str], torch: str, python: str) -> list[Environment]:
    releases = [newest_transformers(python) if release == "newest" else release for release in releases]
    version = subprocess.run(
        [python, "-c", "import platform; print(platform.python_version())"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return [
        Environment(cache / f"transformers-{release}-torch-{torch}-python-{version}", release, torch, python)
        for release in dict.fromkeys(releases)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "compat", help="folder of the environments")
    parser.add_argument("--torch", default="2.13.0", help="release of torch, the same in all environments")
    parser.add_argument("--python", default=sys.executable, help="interpreter that makes the environments")
    parser.add_argument(
        "--transformers", nargs="+", default=[LOWEST, "newest", REMOTE_CODE_ONLY], help="releases, or 'newest'"
    )
    arguments = parser.parse_args()
    python = shutil.which(arguments.python)
    if python is None:
        parser.error(f"--python {arguments.python}: no such interpreter")
    if all(release.startswith("4.") for release in arguments.transformers):
        parser.error("--transformers: at least one 5.x release, which exports what 4.x loads")
    environments = make_environments(arguments.cache.resolve(), arguments.transformers, arguments.torch, python)
    for environment in environments:
        environment.build()
    rows = run_matrix(environments)
    print(format_table(rows))
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
