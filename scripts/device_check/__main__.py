"""Check the package on a GPU, and write docs/gpu.md.

    python -m scripts.device_check --prepare device_wheels --python 3.12        # where there is a network
    python -m scripts.device_check --wheels device_wheels --output docs/gpu.md  # on the machine with the GPU
    python -m scripts.device_check --dry-run --device cpu                       # tiny shapes: does it run through?

Parts that have ended are not run again: `--again` starts them anew.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .parts import PARTS
from .wheels import environment, prepare


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="put the wheels there, and do nothing else")
    parser.add_argument("--python", default="3.12", help="release of Python there (default: %(default)s)")
    parser.add_argument("--machine", default="x86_64", help="kind of processor there (default: %(default)s)")
    parser.add_argument("--glibc", type=int, default=35, help="glibc 2.N there (default: %(default)s)")
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="PACKAGE", help="leave these out, as the machine has them"
    )
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="make an environment of what --prepare put there")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="run these only (default: all)")
    parser.add_argument("--device", help="such as cuda:1 (default: the accelerator)")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes, whose numbers mean nothing")
    parser.add_argument("--again", action="store_true", help="forget what has been measured of these parts")
    parser.add_argument("--limit", type=float, default=300, help="seconds that a part may take (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder where results are kept (default: device_check_output)")
    parser.add_argument("--output", type=Path, help="page to write, its Chinese twin and its numbers beside it")
    options = parser.parse_args(arguments)
    if options.dry_run and options.output:
        parser.error("--dry-run writes no page but that in --work: leave out --output")
    options.work = options.work or Path("device_check_dry_run" if options.dry_run else "device_check_output")
    return options


def without_wheels(arguments: list[str]) -> list[str]:
    """Return the arguments without the folder of wheels: they go to the environment that is made of it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--wheels")
    return parser.parse_known_args(arguments)[1]


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.prepare:
        prepare(options.prepare, options.python, options.machine, options.glibc, options.without)
        return 0
    os.environ["HF_HUB_OFFLINE"] = "1"  # in all processes from here on
    if options.wheels:
        python = environment(options.wheels.resolve(), options.work.resolve() / "environment")
        os.execv(python, [str(python), "-m", str(__package__), *without_wheels(arguments)])
    from .report import run  # needs the packages

    return run(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
