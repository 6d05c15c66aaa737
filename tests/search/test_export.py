"""An index in the formats of other libraries, as these read it."""

import json
import sys

import numpy as np
import pytest

from fgclip2.search import ImageIndex
from fgclip2.search.scan import ImageFile
from tests.interpreters import run_python
from tests.search.test_caches import clustered, write

ODD = "a/\udcff.png"  # a name that is not Unicode


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> ImageIndex:
    folder = tmp_path_factory.mktemp("exported") / "图"
    names = [ODD, *(f"图/{row:04}.png" for row in range(99))]
    write(folder, {ImageFile(name, 1, 1): row for name, row in zip(names, clustered(100, 1), strict=True)})
    return ImageIndex.load(folder)


def test_usearch_finds_what_the_index_finds(index, tmp_path):
    from usearch.index import Index

    index.export("usearch", tmp_path / "out")
    found = Index.restore(tmp_path / "out" / "images.usearch", view=True).search(index.vectors[42], 3)
    lines = [json.loads(line) for line in (tmp_path / "out" / "images.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [*range(100)]
    assert [line["id"] for line in lines] == [file.path for file in index.files]
    hits = index.search(index.vectors[42], top_k=3)
    assert [lines[key]["path"] for key in found.keys] == [str(hit.path) for hit in hits]
    np.testing.assert_allclose(1 - found.distances, [hit.score for hit in hits], atol=2e-3)


# In a process of its own: LanceDB starts a thread in every fork of one that has it, which hears the signals of loaders.
BY_LANCEDB = """
import json, sys
import lancedb
from fgclip2.search import ImageIndex
folder, output = sys.argv[1:]
index = ImageIndex.load(folder)
index.export("lancedb", output)
table = lancedb.connect(output).open_table("images")
found = [table.search(index.vectors[row]).distance_type("dot").limit(3).to_list() for row in (42, 0)]
for row in (row for rows in found for row in rows):
    del row["vector"]
print(json.dumps([table.count_rows(), *found]))
"""


def test_lancedb_finds_what_the_index_finds(index, tmp_path):
    done = run_python("-c", BY_LANCEDB, index.folder, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    count, rows, (odd, *_) = json.loads(done.stdout)
    assert count == 100
    hits = index.search(index.vectors[42], top_k=3)
    assert [row["path"] for row in rows] == [str(hit.path) for hit in hits]
    assert index.folder / rows[0]["id"] == hits[0].path
    np.testing.assert_allclose([1 - row["_distance"] for row in rows], [hit.score for hit in hits], atol=1e-5)
    assert odd["id"] == "a/?.png"


def test_nothing_is_written_over_and_what_is_missing_is_named(index, tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ValueError, match="choose a new name"):
        index.export("usearch", tmp_path)
    with pytest.raises(ValueError, match=r"kind must be 'usearch' or 'lancedb', got 'annoy'"):
        index.export("annoy", tmp_path / "out")
    for kind in ("usearch", "lancedb"):
        monkeypatch.setitem(sys.modules, {"usearch": "usearch.index"}.get(kind, kind), None)
        with pytest.raises(ImportError, match=rf'is not installed; run: pip install "fgclip2\[{kind}\]"'):
            index.export(kind, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
