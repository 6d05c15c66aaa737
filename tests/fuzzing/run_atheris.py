"""Fuzz all targets for some seconds, guided by the coverage of the package: libFuzzer by way of Atheris.

    python -m tests.fuzzing.run_atheris FOLDER [-max_total_time=SECONDS ...]

FOLDER gets the inputs; one that breaks a target is left in it as `crash-…`. The first byte of an input says which
target it is for.
"""

import logging
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fgclip2"]):
    from tests.fuzzing.targets import TARGETS, seeds

_NAMES = list(TARGETS)


def write_seeds(folder: Path) -> None:
    for number, name in enumerate(_NAMES):
        for position, content in enumerate(seeds(name)):
            (folder / f"{name}-{position}").write_bytes(bytes([number]) + content)


def main(folder: Path, options: list[str]) -> None:
    logging.disable()
    inputs = folder / "inputs"
    inputs.mkdir(exist_ok=True)
    write_seeds(inputs)
    with tempfile.TemporaryDirectory() as scratch:

        def run(content: bytes) -> None:
            if content:
                TARGETS[_NAMES[content[0] % len(_NAMES)]](content[1:], Path(scratch))

        atheris.Setup([sys.argv[0], f"-artifact_prefix={folder}/", *options, str(inputs)], run)
        atheris.Fuzz()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
