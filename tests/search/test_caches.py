"""Caches of an index: what they find, when they are passed over, and that none is ever half made."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fgclip2.embedding.labels import normalised
from fgclip2.errors import IncompatibleIndexError, LockedIndexError
from fgclip2.files import sha256_of_file
from fgclip2.search import ImageIndex, caches, nearest, store
from fgclip2.search.caches import APPROXIMATE, KINDS, VectorCache, build_cache
from fgclip2.search.scan import ImageFile
from tests.search.fakes import FakeEmbedder

WIDTH, COUNT = 32, 3000
PROCESSES = multiprocessing.get_context("fork")


def clustered(count: int, seed: int) -> np.ndarray:
    centres = np.random.default_rng(0).normal(size=(60, WIDTH))
    generator = np.random.default_rng(seed)
    return normalised(centres[generator.integers(0, 60, count)] + 0.5 * generator.normal(size=(count, WIDTH)))


def write(folder: Path, rows: dict[ImageFile, np.ndarray]) -> Path:
    """Write the next generation of the index of a folder, as an update would; its pictures need not be there."""
    where = folder / ".fgclip2_index"
    where.mkdir(parents=True, exist_ok=True)
    old = store.read_index(where)
    model = {"name": "made up", "revision": None, "fingerprint": "0" * 64, "embedding_size": WIDTH}
    index = store.StoredIndex(model, {"max_num_patches": None}, rows=rows)
    if old is not None:
        index.blocks, index.retired = old.blocks, old.retired
    store.write_index(where, index)
    return where


def rows_of(vectors: np.ndarray) -> dict[ImageFile, np.ndarray]:
    return {ImageFile(f"图/{row:05}.png", 1, 1): vector for row, vector in enumerate(vectors)}


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clustered(COUNT, 1)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return clustered(40, 2)


@pytest.fixture(scope="module")
def with_all_caches(tmp_path_factory, vectors) -> Path:
    """The index of a folder with all caches; don't change it."""
    folder = tmp_path_factory.mktemp("indexed") / "photos"
    write(folder, rows_of(vectors))
    for kind in KINDS:
        ImageIndex.load(folder).build_cache(kind)
    return folder


@pytest.fixture
def photos(with_all_caches, tmp_path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(with_all_caches, tmp_path / "photos"))


def cache_folder(photos: Path, kind: str) -> Path:
    (folder,) = (photos / ".fgclip2_index" / "caches").glob(f"{kind}-*")
    return folder


def only(photos: Path, *kinds: str) -> Path:
    """Delete the caches of other kinds."""
    for kind in set(KINDS) - set(kinds):
        shutil.rmtree(cache_folder(photos, kind))
    return photos


def recall(found: np.ndarray, expected: np.ndarray) -> float:
    return np.mean([len(set(one) & set(other)) / len(other) for one, other in zip(found, expected, strict=True)])


@pytest.mark.parametrize("share", [None, 0.5, 0.01, 0.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_finds_the_nearest_of_those_allowed(with_all_caches, vectors, queries, kind, share, monkeypatch):
    monkeypatch.setattr(caches, "COMPARED_EXACTLY", 100)
    allowed = None if share is None else np.random.default_rng(3).random(COUNT) < share
    where = with_all_caches / ".fgclip2_index"
    cache = VectorCache.open(where, kind, store.newest_rows_digest(where))
    expected_scores, expected = nearest(queries, vectors, 10, allowed)
    scores, rows = cache.nearest(queries, 10, allowed)
    assert rows.shape == expected.shape == (40, 0 if share == 0 else 10)
    if share == 0:
        return
    assert allowed is None or allowed[rows].all()
    assert (np.diff(scores) <= 0).all()
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, rows, 1), atol=1e-3)
    assert recall(rows, expected) >= (0.98 if kind == "exact" else 0.95)
    exact_scores, exact_rows = cache.nearest(queries, 10, allowed, exactly=True)
    assert recall(exact_rows, expected) >= 0.99
    np.testing.assert_allclose(exact_scores, expected_scores, atol=1e-3)


def test_all_are_found_where_fewer_are_there_than_asked_for(with_all_caches, queries):
    where = with_all_caches / ".fgclip2_index"
    allowed = np.zeros(COUNT, bool)
    allowed[[3, 2999]] = True
    for kind in KINDS:
        cache = VectorCache.open(where, kind, store.newest_rows_digest(where))
        assert sorted(cache.nearest(queries[:1], 10, allowed)[1][0]) == [3, 2999]
        assert cache.nearest(queries[:0], 10)[1].shape == (0, 10)
        assert sorted(cache.nearest(queries[:1], COUNT + 5)[1][0]) == [*range(COUNT)]


def test_an_approximate_search_compares_few_vectors_and_an_exact_one_all(with_all_caches, queries, monkeypatch):
    """With one candidate or list, an approximate search must miss something that an exact one finds."""
    monkeypatch.setattr(caches, "SEARCH_CANDIDATES", 1)
    monkeypatch.setattr(caches, "LISTS_SEARCHED", 1)
    index = ImageIndex.load(with_all_caches)
    for kind in APPROXIMATE:
        index._caches = {kind: VectorCache.open(index.index_folder, kind, index.rows_digest)}
        found = index._caches[kind].nearest(queries, 2)[1]
        assert recall(found, nearest(queries, index.vectors, 2)[1]) < 1


def test_an_index_is_opened_by_its_cache_without_reading_a_block(with_all_caches, vectors, queries, monkeypatch):
    plain = ImageIndex.load(with_all_caches)
    expected = nearest(queries, plain.vectors, 5)
    expected_files = plain.files
    assert isinstance(expected_files, list)  # they have been read with the vectors
    monkeypatch.setattr("fgclip2.search.index.read_index", None)
    index = ImageIndex.load(with_all_caches)
    assert len(index) == COUNT
    assert list(index.files) == expected_files
    assert index.files[-1] == expected_files[-1]
    assert index.files[10:12] == expected_files[10:12]
    with pytest.raises(IndexError):
        index.files[COUNT]
    assert index.caches == [*KINDS]
    for approximate in (False, True):
        hits = index.search(queries, top_k=5, approximate=approximate)
        paths = [[with_all_caches.resolve() / expected_files[row].path for row in its] for its in expected[1]]
        assert recall([[hit.path for hit in its] for its in hits], paths) >= 0.98


def test_the_vectors_of_an_opened_index_are_those_of_its_generation(photos, vectors, monkeypatch):
    monkeypatch.setattr(store, "SECONDS_FOR_READERS", 0)
    index = ImageIndex.load(photos)
    (block,) = (photos / ".fgclip2_index").glob("block-*")
    write(photos, rows_of(clustered(10, 5)))
    assert not block.exists()
    assert len(index) == COUNT
    assert index.search(vectors[:1], top_k=1)[0][0].path.name == "00000.png"
    np.testing.assert_array_equal(index.vectors, vectors)
    assert len(ImageIndex.load(photos)) == 10
    with pytest.raises(IncompatibleIndexError, match=r"is not as it was when it was loaded.*bring it up to date"):
        index.build_cache("ivf")


def test_damaged_blocks_of_an_opened_index_are_left_out_when_they_are_read(photos, vectors):
    (block,) = (photos / ".fgclip2_index").glob("block-*")
    content = bytearray(block.read_bytes())
    content[-1] ^= 1
    block.write_bytes(content)
    index = ImageIndex.load(photos)
    assert index.search(vectors[7], top_k=1)[0].path.name == "00007.png"
    with pytest.warns(UserWarning, match="damaged blocks"):
        assert index.vectors.shape == (0, WIDTH)
    assert len(index) == len(index.files) == 0
    assert index.caches == []
    assert index.search(vectors[7]) == []


def test_a_cache_of_other_rows_is_passed_over_until_it_is_made_anew(photos, vectors, queries):
    only(photos, "hnsw")
    changed = rows_of(vectors)
    changed.pop(ImageFile("图/00000.png", 1, 1))
    write(photos, changed)
    index = ImageIndex.load(photos)
    assert index.caches == []
    plain = index.search(queries, top_k=3)
    with pytest.warns(UserWarning, match=r"no cache of its present images.*--cache hnsw"):
        assert index.search(queries, top_k=3, approximate=True) == plain
    before = cache_folder(photos, "hnsw")
    index.build_cache("hnsw")
    assert index.caches == ["hnsw"]
    assert cache_folder(photos, "hnsw") != before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.search(queries, top_k=3, approximate=True)


def test_a_cache_that_is_there_is_not_made_again(photos, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in (photos / ".fgclip2_index" / "caches").rglob("*.faiss")}
    monkeypatch.setattr(caches, "_empty_index", None)
    ImageIndex.load(photos).build_cache("hnsw")
    after = {path: path.stat().st_mtime_ns for path in (photos / ".fgclip2_index" / "caches").rglob("*.faiss")}
    assert before
    assert after == before


DAMAGES = {
    "cut off": lambda folder: os.truncate(folder / "vectors.faiss", 1000),
    "empty": lambda folder: os.truncate(folder / "ends.npy", 0),
    "gone": lambda folder: (folder / "files.npy").unlink(),
    "of another kind": lambda folder: (folder / "vectors.faiss").write_bytes(
        b"x" * (folder / "vectors.faiss").stat().st_size
    ),
    "not described": lambda folder: (folder / "cache.json").write_text("[]"),
    "pickled": lambda folder: np.save(folder / "ends.npy", np.array([{}]), allow_pickle=True),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_passed_over_and_made_anew(photos, queries, damage):
    only(photos, "ivf")
    expected = ImageIndex.load(photos).search(queries, top_k=3, approximate=True)
    damage(cache_folder(photos, "ivf"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index = ImageIndex.load(photos)
        index.search(queries, top_k=3)
    assert isinstance(index.files, list)
    assert index.caches == []
    assert caches.check_caches(photos / ".fgclip2_index").keys() == {f"caches/{cache_folder(photos, 'ivf').name}"}
    index.build_cache("ivf")
    assert ImageIndex.load(photos).search(queries, top_k=3, approximate=True) == expected
    assert caches.check_caches(photos / ".fgclip2_index") == {}


def test_a_changed_byte_is_found_by_the_check(photos):
    path = cache_folder(photos, "hnsw") / "vectors.faiss"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    ((name, reason),) = caches.check_caches(photos / ".fgclip2_index").items()
    assert name.startswith("caches/hnsw-")
    assert reason == "the content of vectors.faiss has changed"


def test_without_faiss_an_index_is_read_and_searched_as_ever(photos, vectors, queries, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    index = ImageIndex.load(photos)
    assert isinstance(index.files, list)
    rows = nearest(queries, vectors, 3)[1]
    expected = [[index.folder / index.files[row].path for row in its] for its in rows]
    assert [[hit.path for hit in its] for its in index.search(queries, top_k=3)] == expected
    message = r'faiss is not installed; run: pip install "fgclip2\[search\]"'
    with pytest.raises(ImportError, match=message):
        index.search(queries, approximate=True)
    with pytest.raises(ImportError, match=message):
        index.build_cache()


def test_bad_arguments_are_named(photos, queries):
    index = ImageIndex.load(photos)
    with pytest.raises(ValueError, match=r"kind must be 'exact', 'hnsw' or 'ivf', got 'flat'"):
        index.build_cache("flat")
    with pytest.raises(ValueError, match=r"allowed must be an array of 3000 booleans.*shape \(3,\) of bool"):
        index.search(queries, allowed=np.ones(3, bool))
    with pytest.raises(ValueError, match=r"got shape \(3000,\) of float64"):
        index.search(queries, allowed=np.ones(COUNT))
    write(photos / "empty", {})
    with pytest.raises(ValueError, match=r"has no images in its index, so there is nothing to make a cache of"):
        ImageIndex.load(photos / "empty").build_cache()


def test_a_search_finds_only_what_is_allowed(photos, vectors):
    allowed = np.arange(COUNT) % 2 == 1
    index = ImageIndex.load(photos)
    for approximate in (False, True):
        (hits,) = index.search(vectors[:1], top_k=5, approximate=approximate, allowed=allowed)
        assert [int(hit.path.stem) % 2 for hit in hits] == [1] * 5


def test_a_link_that_leads_outside_is_not_used(photos, tmp_path):
    only(photos, "exact")
    inside = photos / ".fgclip2_index" / "caches"
    outside = Path(shutil.move(inside, tmp_path / "outside"))
    inside.symlink_to(outside)
    index = ImageIndex.load(photos)
    assert index.caches == []
    with pytest.raises(ValueError, match="a link that leads outside"):
        index.build_cache("ivf")
    assert len(list(outside.iterdir())) == 2  # the lock, and the cache


def with_entry(place: Path, row: int, entry: list) -> None:
    """Put another entry into a cache, with the sizes and hashes that belong to it."""
    files = [*caches.StoredFiles(place, {"kind": "folder"})]
    files[row] = ImageFile(*entry)
    entries = [json.dumps(file).encode() for file in files]
    np.save(place / caches.ENTRIES, np.frombuffer(b"".join(entries), np.uint8))
    np.save(place / caches.ENDS, np.cumsum([len(entry) for entry in entries], dtype=np.int64))
    said = json.loads((place / caches.DESCRIPTION).read_text())
    said["files"] = {name: [(place / name).stat().st_size, sha256_of_file(place / name)] for name in said["files"]}
    (place / caches.DESCRIPTION).write_text(json.dumps(said))


@pytest.mark.parametrize("entry", [["../secret.png", 1, 1], ["/etc/secret.png", 1, 1], ["a.png", "1", 1], [7, 1, 1]])
def test_an_entry_that_leads_outside_or_is_none_is_refused_when_it_is_read(photos, vectors, entry):
    only(photos, "exact")
    place = cache_folder(photos, "exact")
    with_entry(place, 7, entry)
    index = ImageIndex.load(photos)
    assert index.search(vectors[8], top_k=1)[0].path.name == "00008.png"
    message = r"row 7 of .*files.npy can't be used .*: delete the caches \(`fgclip2 index --cache none`"
    for read in (lambda: index.search(vectors[7], top_k=1), lambda: list(index.files)):
        with pytest.raises(IncompatibleIndexError, match=message):
            read()
    ((damaged, reason, _),) = ImageIndex.verify(photos)
    assert damaged == f"caches/{place.name}"
    assert "row 7 of" in reason
    index.delete_caches()
    assert ImageIndex.load(photos).search(vectors[7], top_k=1)[0].path.name == "00007.png"


def test_ids_of_ones_own_need_not_be_paths_in_the_folder(tmp_path):
    index = ImageIndex.create(tmp_path, FakeEmbedder())
    index.add(["/7", "../8", "https://example.com/9"], vectors=np.array([[1, 0], [0, 1], [1, 1]]))
    index.build_cache("exact")
    opened = ImageIndex.load(tmp_path)
    assert opened.search(np.array([1, 1]), top_k=1)[0].id == "https://example.com/9"
    assert isinstance(opened.files, caches.StoredFiles)
    assert {file.path for file in opened.files} == {"../8", "/7", "https://example.com/9"}
    assert ImageIndex.verify(tmp_path) == []


def test_threads_that_want_the_vectors_at_once_all_get_them(photos, vectors, monkeypatch):
    reads = []

    def read(*arguments, **options):
        reads.append(arguments)
        time.sleep(0.05)
        return store.read_index(*arguments, **options)

    monkeypatch.setattr("fgclip2.search.index.read_index", read)
    index = ImageIndex.load(photos)
    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(lambda _: index.vectors, range(8)):
            np.testing.assert_array_equal(found, vectors)
    assert len(reads) == 1


def build_slowly(photos: Path, begun: Path) -> None:
    """Build a cache that would take minutes; tell when it has begun to write."""
    steps = caches.batches_of_a_kind

    def slow(*args):
        for step in steps(*args):
            yield step
            begun.touch()
            time.sleep(100)

    caches.batches_of_a_kind = slow
    ImageIndex.load(photos).build_cache("exact")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows can't fork")
def test_a_build_that_is_killed_leaves_nothing_that_is_used_and_keeps_nobody_out(photos, tmp_path, monkeypatch):
    only(photos, "hnsw")
    monkeypatch.setattr(caches, "SECONDS_TO_WAIT_FOR_LOCK", 0.05)
    index = ImageIndex.load(photos)
    _ = index.vectors
    run = PROCESSES.Process(target=build_slowly, args=(photos, tmp_path / "begun"))
    run.start()
    try:
        while not (tmp_path / "begun").exists():
            assert run.is_alive()
            time.sleep(0.01)
        with pytest.raises(LockedIndexError, match=r"another run makes a cache in .*caches"):
            index.build_cache("exact")
        write(photos / "other", {})  # what is not a cache is not locked
        assert ImageIndex.load(photos).caches == ["hnsw"]
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.join()
    folder = photos / ".fgclip2_index" / "caches"
    assert [path.name[:7] for path in folder.glob(".*.partial")] == [".exact-"]
    assert ImageIndex.load(photos).caches == ["hnsw"]
    index.build_cache("exact")
    assert list(folder.glob(".*.partial")) == []
    assert ImageIndex.load(photos).caches == ["exact", "hnsw"]


def build_and_report(photos: Path, outcomes) -> None:
    made = []
    empty = caches._empty_index
    caches._empty_index = lambda *args: made.append(1) or empty(*args)
    ImageIndex.load(photos).build_cache("exact")
    outcomes.put(len(made))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows can't fork")
def test_of_two_runs_that_build_at_once_one_does_and_the_other_finds_it(photos):
    only(photos, "hnsw")
    outcomes = PROCESSES.Queue()
    runs = [PROCESSES.Process(target=build_and_report, args=(photos, outcomes)) for _ in range(2)]
    for run in runs:
        run.start()
    assert sorted(outcomes.get(timeout=60) for _ in runs) == [0, 1]
    for run in runs:
        run.join()
        assert run.exitcode == 0
    assert ImageIndex.load(photos).caches == ["exact", "hnsw"]


def test_all_caches_are_deleted_together(photos):
    (photos / ".fgclip2_index" / "caches" / "notes.txt").write_text("mine")
    caches.delete_caches(photos / ".fgclip2_index")
    assert ImageIndex.load(photos).caches == []
    assert {path.name for path in (photos / ".fgclip2_index" / "caches").iterdir()} <= {"notes.txt", "lock"}
    caches.delete_caches(photos / "no such index")


def test_no_index_of_another_width_is_used(photos, vectors):
    """A cache that says something else than what it holds is damaged."""
    where = photos / ".fgclip2_index"
    place = cache_folder(photos, "exact")
    shutil.rmtree(place)
    build_cache(where, "exact", place.name.removeprefix("exact-"), list(rows_of(vectors[:5])), vectors[:5])
    said = (place / "cache.json").read_text()
    (place / "cache.json").write_text(said.replace('"rows": 5', '"rows": 6'))
    assert VectorCache.open(where, "exact", place.name.removeprefix("exact-")) is None
