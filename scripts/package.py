"""Build wheel and sdist, check them, install the wheel in a bare environment and run its doctor and demo there.

    python -m scripts.package

The bare environment gets this one's torch and what the wheel's own metadata asks for, and none of this checkout.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .environments import ROOT, link_torch, make_environment

LIMIT_MEGABYTES = 20


def run(*command: str | Path, **kwargs: object) -> None:
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, **kwargs)  # type: ignore[call-overload]


def build(output: Path) -> Path:
    run(sys.executable, "-m", "build", "--outdir", output, ROOT)
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(output.iterdir()))
    (wheel,) = output.glob("*.whl")
    size = wheel.stat().st_size / 1e6
    print(f"{wheel.name}: {size:.1f} MB (limit {LIMIT_MEGABYTES})", flush=True)
    if size > LIMIT_MEGABYTES:
        raise SystemExit(f"{wheel.name} is larger than {LIMIT_MEGABYTES} MB")
    return wheel


def run_installed(wheel: Path, folder: Path) -> None:
    """Install into an environment of its own and use it from outside the checkout, offline."""
    binaries = make_environment(folder / "venv", [str(wheel)], link_torch(folder / "torch")).parent
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    environment.pop("PYTHONPATH", None)
    # The console script is a module beside the package; the other two ways to start must stay the same command.
    for command in (
        (binaries / "fgclip2",),
        (binaries / "python", "-m", "fgclip2"),
        (binaries / "python", "-m", "fgclip2.cli"),
    ):
        run(*command, "--version", cwd=folder, env=environment)
    run(binaries / "fgclip2", "doctor", cwd=folder, env=environment)
    run(binaries / "fgclip2", "demo", "--output", folder / "demo", cwd=folder, env=environment)
    if not (folder / "demo" / "index.html").is_file():
        raise SystemExit("the demo of the installed wheel wrote no index.html")


def main() -> None:
    output = ROOT / "dist"
    shutil.rmtree(output, ignore_errors=True)
    wheel = build(output)
    with tempfile.TemporaryDirectory() as folder:
        run_installed(wheel, Path(folder))
    print("package: all good")


if __name__ == "__main__":
    main()
