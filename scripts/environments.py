"""Make virtual environments that take packages from this one instead of installing them again.

    python -m scripts.environments FOLDER REQUIREMENT ...

Packages that this environment has are found through a `.pth` file of the new one, and pip installs there only what is
missing or has another version.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import sysconfig
import time
from importlib.metadata import distribution, distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
# As in the Makefile.
PARALLEL = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]


def python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def link_torch(folder: Path) -> Path:
    """Fill a folder with links to torch and what it needs, as installed here, and return it: to be shared alone."""
    from packaging.requirements import Requirement  # not needed to make an environment, and not always there

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    names, seen = ["torch"], set()
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        package = distribution(name)
        for top in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
            if not (folder / top).is_symlink():  # namespace packages have several owners
                (folder / top).symlink_to(package.locate_file(top))
        required = map(Requirement, package.requires or [])
        names += [each.name for each in required if each.marker is None or each.marker.evaluate({"extra": ""})]
    return folder


def make_environment(
    folder: Path, requirements: list[str], shared: Path | None = SITE_PACKAGES, python: str = sys.executable
) -> Path:
    """Return the interpreter of an environment with these requirements, made anew if its recipe has changed.

    Args:
        shared: Folder of packages that it sees besides its own; None for none.
        python: Interpreter that makes it, of the same release as this one if packages are shared.
    """
    metadata = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    here = sorted(f"{package.name}=={package.version}" for package in distributions()) if shared else []
    recipe = json.dumps([python, requirements, str(shared), here, metadata])
    marker = folder / "complete.json"
    if marker.is_file() and marker.read_text(encoding="utf-8") == recipe:
        return python_of(folder)
    start = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
    if shared is not None:
        (own,) = {*folder.glob("lib/python*/site-packages"), *folder.glob("Lib/site-packages")}
        (own / "shared.pth").write_text(f"{shared}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(python_of(folder)), "install", "--quiet", "--no-compile"]
    subprocess.run([*pip, *requirements], check=True, cwd=ROOT)
    marker.write_text(recipe, encoding="utf-8")
    print(f"made {folder} in {time.monotonic() - start:.0f} s", flush=True)
    return python_of(folder)


if __name__ == "__main__":
    make_environment(Path(sys.argv[1]).resolve(), sys.argv[2:])
