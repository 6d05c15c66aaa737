"""What `fgclip2 index` and `fgclip2 search` say and do about caches, and about damage."""

import shutil
import sys
from pathlib import Path

from fgclip2.search import caches

CACHES = Path("照片/.fgclip2_index/caches")


def names() -> list[str]:
    return sorted(path.name[:4] for path in CACHES.glob("*-*"))


def test_a_cache_is_made_used_kept_up_to_date_and_deleted(run, monkeypatch):
    assert "must be exact, hnsw, ivf or none, got 'flat'" in run("index", "照片", "--cache", "flat", code=2).stderr
    assert "making the cache hnsw of 2 images" in run("index", "照片", "--cache", "hnsw").stderr
    assert run.json("index", "照片", "--cache", "ivf")["index"]["caches"] == ["hnsw", "ivf"]
    exact = run.json("search", "照片", "一只猫", "--no-update")
    asked = []
    nearest = caches.VectorCache.nearest
    monkeypatch.setattr(
        caches.VectorCache,
        "nearest",
        lambda self, *args, exactly: asked.append((self.kind, exactly)) or nearest(self, *args, exactly=exactly),
    )
    assert run.json("search", "照片", "一只猫", "--no-update", "--approximate") == exact
    assert asked == [("hnsw", False)]
    shutil.copy("photo.png", "照片/新.png")
    done = run("search", "照片", "一只猫", "--approximate")
    assert "no cache of its present images" in done.stderr
    assert asked == [("hnsw", False)]
    assert "新.png" in done.stdout
    assert "making the cache hnsw of 3 images\nmaking the cache ivf of 3 images" in run("index", "照片").stderr
    assert "making" not in run("index", "照片").stderr
    assert names() == ["hnsw", "ivf-"]
    assert "caches" not in run.json("index", "照片", "--cache", "none")["index"]
    assert names() == []


def test_without_faiss_an_old_cache_is_left_alone_and_a_new_one_is_refused(run, monkeypatch):
    run("index", "照片", "--cache", "exact")
    monkeypatch.setitem(sys.modules, "faiss", None)
    shutil.copy("photo.png", "照片/新.png")
    assert "making" not in run("index", "照片").stderr
    message = 'faiss is not installed; run: pip install "fgclip2[search]"'
    assert message in run("index", "照片", "--cache", "exact", code=1).stderr
    assert message in run("search", "照片", "一只猫", "--approximate", code=1).stderr


def test_damage_is_listed_with_what_to_do(run):
    run("index", "照片", "--dense", "int8", "--cache", "exact")
    whole = run("index", "照片", "--verify")
    assert (whole.stdout, whole.stderr) == ("", "nothing is damaged\n")
    files = [path for kind in ("block-*", "dense-*", "caches/*/files.npy") for path in CACHES.parent.glob(kind)]
    assert len(files) == 3
    for path in files:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    lines = run("index", "照片", "--verify", code=1).stdout.splitlines()
    assert [line.partition("-")[0] for line in lines] == ["block", "dense", "caches/exact"]
    assert lines[0].endswith("the next update (`fgclip2 index`, ImageIndex.build) embeds its images anew")
    assert "delete it; the next update" in lines[1]
    assert "the content of files.npy has changed: delete it; `fgclip2 index --cache KIND`" in lines[2]
    assert [path.exists() for path in files] == [True] * 3
    files[1].unlink()
    shutil.rmtree(files[2].parent)
    run("index", "照片")
    assert run.json("index", "照片", "--verify") == {"folder": "照片", "damaged": []}
    assert "leave it out with --verify" in run("index", "照片", "--verify", "--cache", "hnsw", code=2).stderr
    assert "has no index" in run("index", "照片", "--index", "nothing", "--verify", code=1).stderr
