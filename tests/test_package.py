"""The package as a whole: frozen public names, imports that point down, what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fgclip2

SOURCE = Path(fgclip2.__file__).parent
PUBLIC_NAMES = [
    "FGClip2Config",
    "FGClip2Embedder",
    "FGClip2ImageProcessor",
    "FGClip2Model",
    "FGClip2Processor",
    "FGClip2TextConfig",
    "FGClip2TextModel",
    "FGClip2Tokenizer",
    "FGClip2Trainer",
    "FGClip2TrainingArguments",
    "FGClip2VisionConfig",
    "FGClip2VisionModel",
    "FGClip2ZeroShotImageClassificationPipeline",
    "__version__",
    "embedded_checkpoint",
]
FLOORS = {
    "errors": 0,
    "_imports": 0,
    "assets": 0,
    "_batching": 0,
    "_records": 2,
    "visualization": 0,
    "distributed": 0,
    "metrics": 0,
    "modeling": 1,
    "tokenization": 1,
    "embedder": 2,
    "data": 2,
    "training": 3,
    "benchmarks": 3,
    "search": 3,
    "hub": 3,
    "diagnostics": 3,
    "cli": 4,
    "demo": 4,
}
SIBLINGS = {"training", "benchmarks", "search", "hub"}
EXPORTED_MAY_IMPORT = {"torch", "transformers", "tokenizers", "numpy", "PIL", *sys.stdlib_module_names}


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """Which parts of this package a file imports."""
    parts = set()
    package = path.relative_to(SOURCE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            target = (*base, *(node.module or "").split("."))
            target = tuple(name for name in target if name)
            parts |= {target[0]} if target else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fgclip2."):
            parts.add((node.module or "").split(".")[1])
    return parts & FLOORS.keys()


def test_public_names_grow_only_on_purpose():
    assert sorted(fgclip2.__all__) == PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert getattr(fgclip2, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'FGClip3Model'"):
        _ = fgclip2.FGClip3Model


def test_every_part_has_its_floor():
    assert {part_of(path) for path in files()} == {*FLOORS, "__init__"}


def test_one_file_has_the_collectives():
    naming = [path.name for path in files() if "torch.distributed" in path.read_text(encoding="utf-8")]
    assert naming == ["distributed.py"]


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_point_down(path):
    part = part_of(path)
    if part == "__init__":
        return
    for other in imported_parts(path) - {part}:
        assert FLOORS[other] <= FLOORS[part], f"{path} imports {other}"
        assert not {part, other} <= SIBLINGS, f"{path} imports its sibling {other}"


@pytest.mark.parametrize("path", sorted((SOURCE / "modeling").glob("*_fgclip2.py")), ids=lambda path: path.name)
def test_exported_files_stand_alone(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                assert node.level == 1, f"{path.name} imports from above its folder"
                assert (path.parent / f"{node.module}.py").is_file(), f"{path.name}: from .{node.module}"
                continue
            roots = {(node.module or "").split(".")[0]}
        else:
            continue
        assert roots <= EXPORTED_MAY_IMPORT, f"{path.name} imports {roots}"


def test_an_import_brings_no_optional_package():
    code = "import sys, fgclip2; print([n for n in ('datasets', 'peft', 'gradio', 'faiss') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
