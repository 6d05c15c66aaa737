"""Build wheels and sdist, check them, install each wheel in a bare environment and use it there.

    python -m scripts.package

The environment of fgclip2 gets this one's torch and what the wheel's own metadata asks for, that of fgclip2-onnx what
its metadata asks for and nothing else; neither has anything of this checkout. Then `dist/` has what a release consists
of: wheels, sdist, a list of the packages of the first environment (SBOM, CycloneDX JSON) and `SHA256SUMS`. The wheels
are the same bytes wherever and whenever the same commit is built.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from .environments import ROOT, link_torch, make_environment

LIMIT_MEGABYTES = 20
SBOM_TOOL = "cyclonedx-bom>=7.5,<8"
ONNX_PACKAGE = "packages/fgclip2-onnx"  # from the root, in a checkout and in the sdist
LIMIT_SECONDS = 1.5  # of CPU, from the start of the process to the first vector, of the embedded checkpoint
STARTS = 3  # of which the fastest counts

# What a user of fgclip2-onnx does; prints the seconds since the process started, and the vectors.
FIRST_VECTORS = """
import importlib.util, json, sys, time
from fgclip2_onnx import OnnxEmbedder
assert not any(importlib.util.find_spec(name) for name in ("torch", "transformers", "fgclip2"))
embedder = OnnxEmbedder.from_pretrained(sys.argv[1])
text = embedder.encode_texts("一只黑猫")
seconds = time.process_time()
image = embedder.encode_images(sys.argv[2])
print(json.dumps({"seconds": seconds, "vectors": [text.tolist(), image.tolist()]}))
"""


def run(*command: str | Path, **kwargs: object) -> None:
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, **kwargs)  # type: ignore[call-overload]


def build(output: Path) -> tuple[Path, Path]:
    """Build the sdist and the wheels of fgclip2 and of fgclip2-onnx, and return the wheels."""
    # Its time would otherwise be that of the files where a release is built from a checkout.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": source_date()}
    run(sys.executable, "-m", "build", "--outdir", output, ROOT, env=environment)
    # The source of the second is in the sdist of the first.
    run(sys.executable, "-m", "build", "--wheel", "--outdir", output, ROOT / ONNX_PACKAGE, env=environment)
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(output.iterdir()))
    (wheel,) = output.glob("fgclip2-*.whl")
    size = wheel.stat().st_size / 1e6
    print(f"{wheel.name}: {size:.1f} MB (limit {LIMIT_MEGABYTES})", flush=True)
    if size > LIMIT_MEGABYTES:
        raise SystemExit(f"{wheel.name} is larger than {LIMIT_MEGABYTES} MB")
    (onnx_wheel,) = output.glob("fgclip2_onnx-*.whl")
    return wheel, onnx_wheel


def source_date() -> str:
    """Return the time of the commit in seconds since 1970, or that which the caller has set."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return os.environ["SOURCE_DATE_EPOCH"]
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def build_again(wheel: Path, onnx_wheel: Path, folder: Path) -> None:
    """Build both wheels again from the sdist, elsewhere, with other times and permissions, and compare bytes."""
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "sources", filter="data")
    (sources,) = (folder / "sources").iterdir()
    for path in sources.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (1e9, 1e9))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": source_date()}
    for first, package in ((wheel, sources), (onnx_wheel, sources / ONNX_PACKAGE)):
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "again", package, env=environment)
        if (folder / "again" / first.name).read_bytes() != first.read_bytes():
            raise SystemExit(f"{first.name} differs between two builds of the same sources")
        print(f"{first.name}: the same bytes from two builds", flush=True)


def run_installed(wheel: Path, folder: Path) -> Path:
    """Install into an environment of its own, use it from outside the checkout, offline, and return its interpreter."""
    python = make_environment(folder / "venv", [str(wheel)], link_torch(folder / "torch"))
    binaries = python.parent
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
    return python


def write_sbom(wheel: Path, python: Path) -> Path:
    """Write what an environment that has the wheel consists of, as the releases of the day of the build were."""
    tool = make_environment(ROOT / ".cache" / "sbom", [SBOM_TOOL])
    sbom = wheel.with_name(f"{'-'.join(wheel.stem.split('-')[:2])}.cdx.json")
    options = ["--pyproject", ROOT / "pyproject.toml", "--mc-type", "library", "--output-reproducible", "--of", "JSON"]
    run(tool, "-m", "cyclonedx_py", "environment", *options, "--output-file", sbom, python)
    content = json.loads(sbom.read_text(encoding="utf-8"))
    named = {component["name"] for component in content["components"]}
    root = content["metadata"]["component"]["name"]
    missing = {"torch", "transformers", "tokenizers", "pillow", "numpy"} - named
    if root != "fgclip2" or missing:
        raise SystemExit(f"{sbom.name} is of {root}, and lacks {sorted(missing)}")
    print(f"{sbom.name}: {len(named)} packages", flush=True)
    return sbom


def write_hashes(folder: Path) -> None:
    """Write SHA256SUMS of all files of a folder, for `sha256sum --check`."""
    files = [path for path in sorted(folder.iterdir()) if path.name != "SHA256SUMS"]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def run_without_torch(wheel: Path, folder: Path) -> None:
    """Install fgclip2-onnx alone, and compare its vectors of the embedded checkpoint with those of torch here."""
    from fgclip2 import Embedder
    from fgclip2.assets import demo_images
    from fgclip2.hub import export_onnx

    embedder = Embedder.from_pretrained(device="cpu")
    exported = export_onnx(embedder.model, embedder.processor, folder / "exported", compared_items=0)
    picture = str(next(path for path in sorted(demo_images().rglob("*")) if path.suffix in (".jpg", ".png", ".webp")))
    expected = np.stack([embedder.encode_texts("一只黑猫"), embedder.encode_images(picture)])
    python = make_environment(folder / "onnx", [str(wheel)], shared=None)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    seconds = []
    for _ in range(STARTS):
        command = [python, "-c", FIRST_VECTORS, exported, picture]
        # Not in `folder`, whose `torch` would be a package to an interpreter that was started there.
        answer = subprocess.run(command, check=True, cwd=exported, env=environment, capture_output=True, text=True)
        result = json.loads(answer.stdout)
        seconds.append(result["seconds"])
    difference = float(np.abs(np.array(result["vectors"]) - expected).max())
    print(
        f"fgclip2-onnx: first vector after {min(seconds):.2f} s of CPU, largest difference from torch {difference:.1e}"
    )
    if difference > 1e-5 or min(seconds) > LIMIT_SECONDS:
        raise SystemExit(f"fgclip2-onnx is off: at most 1e-5 and {LIMIT_SECONDS} s are allowed")


def main() -> None:
    output = ROOT / "dist"
    shutil.rmtree(output, ignore_errors=True)
    wheel, onnx_wheel = build(output)
    with tempfile.TemporaryDirectory() as folder:
        build_again(wheel, onnx_wheel, Path(folder))
        write_sbom(wheel, run_installed(wheel, Path(folder)))
        run_without_torch(onnx_wheel, Path(folder))
    write_hashes(output)
    print("package: all good")


if __name__ == "__main__":
    main()
