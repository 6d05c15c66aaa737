"""The package as a whole: frozen public names, imports that point down, what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fgclip2

SOURCE = Path(fgclip2.__file__).parent
PUBLIC_NAMES = [
    "Embedder",
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
# The house, from the ground up. A room imports from the floors below its own: not from its own floor, nor from above.
FLOORS = (
    {
        "_imports",
        "_moved",
        "assets",
        "checks",
        "distributed",
        "errors",
        "files",
        "languages",
        "streams",
        "visualization",
    },
    {"checkpoints", "modeling"},
    {"_registration", "data", "drawings", "embedding", "metrics", "tokenization"},
    {"benchmarks", "diagnostics", "hard_negatives", "hub", "search", "training"},
    {"demo"},
    {"cli"},
    {"__init__", "__main__"},  # the package itself, as in `import fgclip2` or `from fgclip2 import X`
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
EXPORTED_MAY_IMPORT = {"torch", "transformers", "tokenizers", "numpy", "PIL", *sys.stdlib_module_names}


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    """Full names of what a file imports, relative imports resolved; "fgclip2.X" also for `from fgclip2 import X`."""
    package = ["fgclip2", *path.relative_to(SOURCE).parts[:-1]]
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            modules |= {f"{module}.{alias.name}" for alias in node.names}
    return modules


def imported_rooms(path: Path) -> set[str]:
    """The rooms of this package that a file imports; what no room has is the package's own, "__init__"."""
    names = [module.split(".") for module in imported_modules(path)]
    inside = [name[1] if len(name) > 1 else "__init__" for name in names if name[0] == "fgclip2"]
    return {room if room in FLOOR_OF else "__init__" for room in inside}


def test_public_names_grow_only_on_purpose():
    assert sorted(fgclip2.__all__) == PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert getattr(fgclip2, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'FGClip3Model'"):
        _ = fgclip2.FGClip3Model


def test_every_room_has_its_floor():
    assert {room_of(path) for path in files()} <= FLOOR_OF.keys()


def test_imports_point_down():
    wrong = [
        f"{path.relative_to(SOURCE)} (floor {FLOOR_OF[room_of(path)]}) imports {room} (floor {FLOOR_OF[room]})"
        for path in files()
        for room in imported_rooms(path) - {room_of(path)}
        if FLOOR_OF[room] >= FLOOR_OF[room_of(path)]
    ]
    assert not wrong, "\n".join(wrong)


def test_one_file_has_the_collectives():
    naming = [path.name for path in files() if "torch.distributed" in path.read_text(encoding="utf-8")]
    assert naming == ["distributed.py"]


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
