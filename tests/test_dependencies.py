"""The bounds of what the package depends on, and the file of pinned releases that one run of CI uses."""

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from scripts.locked import BUILD_REQUIREMENTS, REQUIREMENTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    pytest.skip("Python 3.10 cannot read pyproject.toml by itself", allow_module_level=True)

# The first release without a published hole, of those that a lower bound could let in.
FIRST_SAFE = {
    "torch": "2.6.0",  # CVE-2025-32434, torch.load with weights_only; the package itself loads no pickle
    "pillow": "12.1.1",  # CVE-2023-50447, CVE-2024-28219, CVE-2025-48379, CVE-2026-25990
    "tqdm": "4.66.3",  # CVE-2024-34062
    "sentencepiece": "0.2.1",  # CVE-2026-1260
    "filelock": "3.20.3",  # CVE-2025-68146, CVE-2026-22701
    "pi-heif": "1.3.0",  # CVE-2026-28231
    "pyarrow": "23.0.1",  # CVE-2023-47248, CVE-2026-25087
    "scikit-learn": "1.5.0",  # CVE-2024-5206
    "pytest": "9.0.3",  # CVE-2025-71176
}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    """Each package of the file with its version; every one must have a hash."""
    text = REQUIREMENTS.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert all("--hash=sha256:" in line for line in lines)
    return dict(re.match(r"([\w.-]+)==(\S+)", line).groups() for line in lines)


def test_no_lower_bound_lets_a_release_with_a_known_hole_in(project):
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    bounds = {}
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        lower = [Version(part.version) for part in requirement.specifier if part.operator in (">=", "~=", "==")]
        if requirement.name in FIRST_SAFE:
            bounds[requirement.name] = max(lower)
    assert bounds.keys() == FIRST_SAFE.keys()
    assert {name: bound for name, bound in bounds.items() if bound < Version(FIRST_SAFE[name])} == {}


def test_the_pinned_releases_are_those_that_the_package_asks_for(project, pinned):
    """Else `python -m scripts.locked --update` has been forgotten."""
    extras = project["optional-dependencies"]
    groups = [project["dependencies"], BUILD_REQUIREMENTS, extras["dev"]]
    requirements = {Requirement(line) for group in groups for line in group}
    for itself in [line for line in requirements if line.name == project["name"]]:
        requirements |= {Requirement(line) for extra in itself.extras for line in extras[extra]}
    for requirement in requirements:
        if requirement.name in (project["name"], "torch"):
            continue
        version = pinned.get(requirement.name.replace("_", "-"))
        assert version is not None, requirement
        assert requirement.specifier.contains(version), requirement


def test_the_second_package_keeps_step(project):
    folder = Path(__file__).parents[1] / "packages" / "fgclip2-onnx"
    second = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert second["version"] == project["version"]
    assert f'__version__ = "{second["version"]}"' in (folder / "src/fgclip2_onnx/__init__.py").read_text(
        encoding="utf-8"
    )
    bounds = {Requirement(line).name: Requirement(line).specifier for line in project["dependencies"]}
    of_second = {Requirement(line).name: Requirement(line).specifier for line in second["dependencies"]}
    assert of_second.keys() == {"numpy", "pillow", "tokenizers", "onnxruntime"}
    assert {name: bound for name, bound in of_second.items() if bounds.get(name, bound) != bound} == {}
