"""Run tests in an environment whose packages are pinned by the hashes of their files.

    python -m scripts.locked              # make the environment from .ci/requirements.txt and run tests there
    python -m scripts.locked --update     # choose the newest releases and write their hashes

The other tests run with what pip chooses on the day, so that a new release which breaks the package is noticed. This
run stays green through such a release, and a file that was exchanged in a registry fails it. torch comes from the
environment that runs this: which of its many builds fits depends on the machine. Where all pinned releases are those
of this environment too, `make test` has run with them, and a few tests show that the environment works.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from .environments import PARALLEL, ROOT, link_torch, make_environment

REQUIREMENTS = ROOT / ".ci" / "requirements.txt"
# What a build of the package needs; `pip install` would otherwise take the newest of these, unpinned.
BUILD_REQUIREMENTS = ["hatchling>=1.27", "hatch-fancy-pypi-readme>=24.1", "editables>=0.5"]
TESTS = ["tests/parity", "tests/load", "tests/tokenization", "tests/embedding"]
TESTS_OF_KNOWN_RELEASES = ["tests/parity"]
UPDATE_COMMAND = "python -m scripts.locked --update"


def update(cache: Path) -> None:
    """Write the newest releases that fit the package's metadata, for this Python and system, with their hashes."""
    uv = make_environment(cache / "uv", ["uv"], shared=None).with_name("uv")
    with tempfile.TemporaryDirectory() as folder:
        build, excluded = Path(folder) / "build.in", Path(folder) / "excluded.txt"
        build.write_text("\n".join(BUILD_REQUIREMENTS), encoding="utf-8")
        excluded.write_text("torch", encoding="utf-8")
        command = [uv, "pip", "compile", "pyproject.toml", build, "--extra", "dev", "--excludes", excluded, "--upgrade"]
        command += ["--python", sys.executable, "--generate-hashes", "--no-annotate", "--output-file", REQUIREMENTS]
        variables = {**os.environ, "UV_CUSTOM_COMPILE_COMMAND": UPDATE_COMMAND}
        subprocess.run(command, check=True, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL)


def other_releases(requirements: str) -> list[str]:
    """Return the pinned packages, with their releases, of which this environment has another release."""
    here = {canonicalize_name(package.name): package.version for package in distributions()}
    pins = re.findall(r"^([\w.-]+)==([^\s;\\]+)", requirements, re.MULTILINE)
    return [f"{name}=={pin}" for name, pin in pins if here.get(canonicalize_name(name), pin) != pin]


def run_tests(cache: Path) -> int:
    pinned = ["--require-hashes", "--no-deps", "--requirement", str(REQUIREMENTS)]
    python = make_environment(cache / "venv", pinned, link_torch(cache / "torch"))
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
    # Without isolation, so that the pinned build requirements are used; `--check` then finds what the file forgets.
    subprocess.run([*install, "--no-deps", "--no-build-isolation", "--editable", "."], check=True, cwd=ROOT)
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "check"], check=True)
    others = other_releases(REQUIREMENTS.read_text(encoding="utf-8"))
    print(f"other releases than here: {', '.join(others) or 'none'}", flush=True)
    tests = TESTS if others else TESTS_OF_KNOWN_RELEASES
    return subprocess.run([python, "-m", "pytest", *PARALLEL, *tests], cwd=ROOT).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write .ci/requirements.txt anew instead")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "locked", help="folder of the environments")
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    if arguments.update:
        update(cache)
        return 0
    return run_tests(cache)


if __name__ == "__main__":
    sys.exit(main())
