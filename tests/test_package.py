"""The package as a whole: frozen public names, imports that point down, what an import costs."""

import ast
import graphlib
import re
import sys
from pathlib import Path

import pytest

import fgclip2

from .interpreters import run_python

SOURCE = Path(fgclip2.__file__).parent
PUBLIC_NAMES = [
    "Embedder",
    "FGClip2Config",
    "FGClip2CrossConfig",
    "FGClip2Embedder",
    "FGClip2ForImageTextMatching",
    "FGClip2ImageProcessor",
    "FGClip2MatchingConfig",
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
    "FGClipConfig",
    "FGClipImageProcessor",
    "FGClipModel",
    "FGClipProcessor",
    "FGClipTextConfig",
    "FGClipTextModel",
    "FGClipTokenizer",
    "FGClipVisionConfig",
    "FGClipVisionModel",
    "R2D2Config",
    "R2D2CrossConfig",
    "R2D2ImageProcessor",
    "R2D2Model",
    "R2D2Processor",
    "R2D2TextConfig",
    "R2D2TextModel",
    "R2D2Tokenizer",
    "R2D2VisionConfig",
    "R2D2VisionModel",
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
        "processes",
        "streams",
        "visualization",
    },
    {"calibration", "checkpoints", "lexicon", "modeling", "pages"},
    {"_registration", "data", "drawings", "embedding", "metrics", "tokenization"},
    {"benchmarks", "diagnostics", "hard_negatives", "hub", "search", "training"},
    {"app", "bulk", "demo", "serving"},
    {"cli"},
    {"__init__", "__main__"},  # the package itself, as in `import fgclip2` or `from fgclip2 import X`
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
NEVER_EXPORTED = ("__init__.py", "adapters.py", "auto.py", "interface.py")  # of modeling/
EXPORTED_MAY_IMPORT = {"torch", "transformers", "tokenizers", "numpy", "PIL", *sys.stdlib_module_names}


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_names(path: Path, source: str) -> set[str]:
    """Full names of what a file imports from this package, e.g. "fgclip2.data.records.Record"."""
    package = ["fgclip2", *path.relative_to(SOURCE).parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "fgclip2"}


def file_of(name: str) -> Path | None:
    """The file of the module that a full name is, or is in; `None` for a name of the package itself."""
    parts = name.split(".")[1:]
    for length in range(len(parts), 0, -1):
        module = SOURCE.joinpath(*parts[:length])
        for file in (module.with_suffix(".py"), module / "__init__.py"):
            if file.is_file():
                return file
    return None


def wrong_imports(names: dict[Path, set[str]]) -> list[str]:
    """Imports of another room on the same floor or above, and a circle of files if there is one."""
    wrong = []
    for path, imported in names.items():
        room = room_of(path)
        for name in sorted(imported):
            file = file_of(name)
            other = "__init__" if file is None else room_of(file)
            if other != room and FLOOR_OF[other] >= FLOOR_OF[room]:
                wrong.append(f"{path.relative_to(SOURCE)} (floor {FLOOR_OF[room]}) imports {name} ({FLOOR_OF[other]})")
    try:
        graphlib.TopologicalSorter({path: set(map(file_of, names[path])) - {None} for path in names}).prepare()
    except graphlib.CycleError as error:
        wrong.append("circle: " + " -> ".join(str(path.relative_to(SOURCE)) for path in error.args[1]))
    return wrong


@pytest.fixture(scope="module")
def names_by_file() -> dict[Path, set[str]]:
    return {path: imported_names(path, path.read_text(encoding="utf-8")) for path in files()}


def test_public_names_grow_only_on_purpose():
    assert sorted(fgclip2.__all__) == PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert getattr(fgclip2, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'FGClip3Model'"):
        _ = fgclip2.FGClip3Model


def test_every_room_has_its_floor():
    assert {room_of(path) for path in files()} <= FLOOR_OF.keys()


def test_imports_point_down(names_by_file):
    wrong = wrong_imports(names_by_file)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("file", "planted"),
    [
        ("embedding/inputs.py", "from .embedder import FGClip2Embedder"),
        ("embedding/inputs.py", "from ..search import SearchIndex"),
        ("data/records.py", "from ..embedding.embedder import FGClip2Embedder"),
        ("data/records.py", "def later():\n    from fgclip2.embedder import FGClip2Embedder"),
        ("demo/run.py", "from ..cli import common"),
        ("app/answers.py", "from ..demo.run import Bundle"),
        ("diagnostics.py", "from .training import FGClip2Trainer"),
        ("metrics/retrieval.py", "import fgclip2.training"),
        ("metrics/retrieval.py", "from fgclip2 import FGClip2Trainer"),
        ("training/trainer.py", "from .. import search"),
        ("files.py", "from . import errors"),
    ],
)
def test_an_import_that_points_up_is_seen(names_by_file, file, planted):
    path = SOURCE / file
    assert wrong_imports({**names_by_file, path: names_by_file[path] | imported_names(path, planted)})


def test_one_file_has_the_collectives():
    naming = [path.name for path in files() if "torch.distributed" in path.read_text(encoding="utf-8")]
    assert naming == ["distributed.py"]


@pytest.mark.parametrize(
    "path",
    [path for path in sorted((SOURCE / "modeling").glob("*.py")) if path.name not in NEVER_EXPORTED],
    ids=lambda path: path.name,
)
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


def relative_imports(file: Path) -> set[str]:
    return set(re.findall(r"^\s*from \.(\w+) import", file.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("family", ["fgclip2", "fgclip", "r2d2"])
def test_a_class_of_remote_code_names_every_file_that_it_needs(family):
    """Transformers 4 copies a file and those that it imports, but not those that these import."""
    for path in sorted((SOURCE / "modeling").glob(f"*_{family}.py")):
        needed, waiting = set(), relative_imports(path)
        while waiting:
            name = waiting.pop()
            needed.add(name)
            waiting |= relative_imports(path.with_name(f"{name}.py")) - needed
        assert needed == relative_imports(path), path.name


def test_an_import_brings_no_optional_package():
    code = "import sys, fgclip2; print([n for n in ('datasets', 'peft', 'gradio', 'faiss') if n in sys.modules])"
    done = run_python("-c", code)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_extra_has_code_that_asks_for_it():
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    (section,) = re.findall(r"^\[project.optional-dependencies\]\n(.*?)^\[", project, re.DOTALL | re.MULTILINE)
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE)) - {"all", "dev"}
    code = "\n".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    asked = re.findall(r'require\("[\w.]+", "(\w+)"\)', code)
    asked += re.findall(r'pip install "fgclip2\[(\w+)\]"', code)  # of files that travel with checkpoints
    assert extras == set(asked)
    (everything,) = re.findall(r"^all = \[.fgclip2\[(.*)\].\]", section, re.MULTILINE)
    assert set(everything.split(",")) == extras - {
        "app",
        "video",
    }  # one holds Pillow back, the other has codecs under the GPL
