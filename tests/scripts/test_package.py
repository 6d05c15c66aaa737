"""What a release consists of: two packages of one version, whose wheels are built twice."""

import re
import tarfile
from pathlib import Path

import pytest

from scripts import package

WHEELS = ("fgclip2-1.0-py3-none-any.whl", "fgclip2_onnx-1.0-py3-none-any.whl")


@pytest.fixture
def built(tmp_path) -> list[Path]:
    """Both wheels, beside an sdist that has the sources of both."""
    sources = tmp_path / "fgclip2-1.0"
    (sources / package.ONNX_PACKAGE).mkdir(parents=True)
    (tmp_path / "dist").mkdir()
    with tarfile.open(tmp_path / "dist" / "fgclip2-1.0.tar.gz", "w:gz") as archive:
        archive.add(sources, sources.name)
    wheels = [tmp_path / "dist" / name for name in WHEELS]
    for wheel in wheels:
        wheel.write_bytes(wheel.name.encode())
    return wheels


@pytest.mark.parametrize("other", [None, *WHEELS])
def test_both_wheels_are_built_twice(other, built, tmp_path, monkeypatch):
    def build(*command, env):
        *_, output, folder = command
        name = WHEELS[Path(folder).name == "fgclip2-onnx"]
        output.mkdir(exist_ok=True)
        (output / name).write_bytes(b"another" if name == other else name.encode())

    monkeypatch.setattr(package, "run", build)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    if other is None:
        package.build_again(*built, tmp_path / "second")
    else:
        with pytest.raises(SystemExit, match=f"{other} differs between two builds"):
            package.build_again(*built, tmp_path / "second")


def test_both_packages_have_one_version_and_stand_in_the_documents():
    root, onnx = (
        re.search(r'^version = "(.+)"$', (folder / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
        for folder in (package.ROOT, package.ROOT / package.ONNX_PACKAGE)
    )
    assert root == onnx
    for name in ("releasing.md", "releasing_zh.md"):
        text = (package.ROOT / "docs" / name).read_text(encoding="utf-8")
        for part in ("fgclip2_onnx-VERSION-py3-none-any.whl", f"{package.ONNX_PACKAGE}/pyproject.toml", "dist/onnx"):
            assert part in text, (name, part)
