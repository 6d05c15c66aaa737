"""The packages for a machine that reaches no registry: a folder of wheels, and an environment made of it there.

PyTorch is never among them: the environment has that of the machine.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..environments import ROOT, make_environment

if TYPE_CHECKING:
    from packaging.requirements import Requirement

EXTRAS = ("", "onnx", "serve")  # of this package; the first are its own requirements
LEFT_OUT = ("torch", "fgclip2-onnx", "onnxruntime")  # fgclip2-onnx is in this repository; onnxruntime is for the CPU
NEEDS_TORCH = ("accelerate", "siglip-kernel")  # come without what they need: torch, and what others bring
OPTIONAL = ("siglip-kernel", "onnxruntime-gpu")
REQUIREMENTS = "requirements.txt"


def requirements() -> list[Requirement]:
    """Return what the parts need, as this package's own metadata has it."""
    from packaging.requirements import Requirement  # which a machine with a GPU may lack: it makes no list

    found = [Requirement(line) for line in requires("fgclip2") or []]
    return [
        requirement
        for requirement in found
        if requirement.name not in LEFT_OUT
        and any(requirement.marker is None or requirement.marker.evaluate({"extra": extra}) for extra in EXTRAS)
    ]


def plain(requirement: Requirement) -> str:
    """Return name and versions of a requirement."""
    return f"{requirement.name}{requirement.specifier}"


def wheel_name(package: str) -> str:
    """Return what the names of a package's wheels begin with."""
    return package.replace("-", "_").lower()


def no_deps_of(package: str) -> list[str]:
    """Return pip's option for a package that needs torch: builds of torch bring the rest under several names."""
    return ["--no-deps"] if package in NEEDS_TORCH else []


def download(folder: Path, options: list[str], packages: list[str]) -> int:
    """Put wheels of packages into a folder, and return pip's exit status."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), "--only-binary=:all:"]
    return subprocess.run([*command, *options, *packages], check=False).returncode


def prepare(folder: Path, python: str, machine: str, glibc: int, left_out: list[str]) -> None:
    """Fill a folder with the wheels for a machine, and with the list of them that `environment` installs.

    Args:
        folder: May have wheels of an earlier call.
        python: Release of Python there, such as `"3.12"`.
        machine: Kind of processor there, such as `"x86_64"`.
        glibc: The second number of the version of glibc there.
        left_out: Names of packages that aren't wanted, or that the machine has in a version that will do.

    Raises:
        SystemExit: A wheel that is needed could not be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tags = [f"manylinux_2_{number}_{machine}" for number in range(glibc, 4, -1)]
    tags += [f"manylinux{name}_{machine}" for name in ("2014", "2010", "1")]
    options = ["--python-version", python, "--implementation", "cp"]
    options += [option for tag in tags for option in ("--platform", tag)]
    needed = requirements()
    alone = [plain(requirement) for requirement in needed if requirement.name in NEEDS_TORCH]
    others = [plain(requirement) for requirement in needed if requirement.name not in NEEDS_TORCH]
    if download(folder, options, [*others, "psutil"]) or download(folder, [*options, "--no-deps"], alone):
        raise SystemExit("not all wheels could be had, see above")
    (folder / REQUIREMENTS).write_text("\n".join([*others, *alone]) + "\n", encoding="utf-8")
    for name in OPTIONAL:
        if name not in left_out and download(folder, [*options, *no_deps_of(name)], [name]):
            print(f"{name} could not be had: its rows will say so")
    for name in left_out:
        for path in folder.glob(f"{wheel_name(name)}-*.whl"):
            path.unlink()  # others need it
    wheels = sorted(folder.glob("*.whl"))
    print(f"{len(wheels)} wheels, {sum(path.stat().st_size for path in wheels) / 2**20:,.0f} MiB in {folder}")


def environment(wheels: Path, folder: Path) -> Path:
    """Make an environment of a folder of wheels on top of this machine's PyTorch, and return its interpreter.

    What this machine has in a version that will do is not installed again.

    Raises:
        SystemExit: There is no PyTorch here, no pip or no venv, or the wheels can't be installed.
    """
    missing = [name for name in ("torch", "pip", "venv") if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"{sys.executable} has no {', '.join(missing)}: run this by a Python that has torch, pip, venv"
        )
    # NVIDIA's images hold pip to the releases that they have, where the wheels may be others.
    os.environ.pop("PIP_CONSTRAINT", None)
    local = ["--no-index", "--find-links", str(wheels)]
    torch = find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    try:
        requirements_here = [*local, "--requirement", str(wheels / REQUIREMENTS)]
        python = make_environment(folder, requirements_here, shared=Path(torch.origin).parents[1])
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"the environment could not be made, see above; {wheels} must be prepared with "
            f"--python {platform.python_version()} --machine {platform.machine()}"
        ) from error
    register_checkout(next(folder.glob("lib/python*/site-packages")))
    for name in OPTIONAL:
        if list(wheels.glob(f"{wheel_name(name)}-*.whl")):
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *local]
            pip += [*no_deps_of(name), name]
            subprocess.run(pip, check=False)  # its rows say that it is missing
    return python


def register_checkout(site_packages: Path) -> None:
    """Make an environment find this checkout, and its version, as an editable installation does with a build system."""
    projects = (ROOT, ROOT / "packages" / "fgclip2-onnx")
    for project in projects:
        settings = (project / "pyproject.toml").read_text(encoding="utf-8")
        name, version = (re.findall(rf'^{key} = "(.+)"$', settings, re.MULTILINE)[0] for key in ("name", "version"))
        metadata = site_packages / f"{wheel_name(name)}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir(exist_ok=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    sources = "".join(f"{project / 'src'}\n" for project in projects)
    (site_packages / "fgclip2.pth").write_text(sources, encoding="utf-8")
