"""The index of a folder: exact, up to date, never mixed, never outside its folder."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from fgclip2 import FGClip2Embedder, FGClip2Model, FGClip2Processor
from fgclip2.errors import IncompatibleIndexError
from fgclip2.search import ImageIndex, IndexReport, SearchHit, build, nearest
from tests.checkpoints import official_folder, saved_folder

__all__ = ["official_folder", "saved_folder"]


@pytest.fixture(scope="module")
def embedder(saved_folder) -> FGClip2Embedder:
    return FGClip2Embedder.from_pretrained(saved_folder, device="cpu")


def draw(path: Path, seed: int, size: tuple[int, int] = (96, 64)) -> Path:
    colors = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colors).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "照片"
    for seed, name in enumerate(["黑猫.png", "dog.jpg", "旅行/长城.PNG", "a/b/c.webp", ".hidden.png", "notes.txt"]):
        if name == "notes.txt":
            (folder / name).write_text("no image")
        else:
            draw(folder / name, seed)
    draw(folder / ".thumbnails" / "x.png", 9)
    return folder


IMAGES = ["a/b/c.webp", "dog.jpg", "旅行/长城.PNG", "黑猫.png"]


def paths(index: ImageIndex) -> list[str]:
    return [file.path for file in index.files]


def manifest_of(photos: Path) -> Path:
    return photos / ".fgclip2_index" / "manifest.json"


class Counting:
    """Counts the images that pass through an embedder."""

    def __init__(self, embedder: FGClip2Embedder, monkeypatch):
        self.seen = []
        stream = embedder.stream_images

        def counted(images, *args, **kwargs):
            self.seen += [Path(image).name for image in images]
            return stream(images, *args, **kwargs)

        monkeypatch.setattr(embedder, "stream_images", counted)


# Building ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_indexed_with_its_subfolders_without_hidden_files(photos, embedder):
    index = ImageIndex.build(photos, embedder)
    assert paths(index) == sorted(IMAGES)
    assert index.report == IndexReport(added=4, updated=0, removed=0, unchanged=0, unusable=0)
    expected = embedder.encode_images([photos / name for name in paths(index)])
    np.testing.assert_allclose(index.vectors, expected, atol=1e-5)


def test_the_manifest_records_model_settings_and_versions(photos, embedder):
    ImageIndex.build(photos, embedder, max_num_patches=64)
    manifest = json.loads(manifest_of(photos).read_text(encoding="utf-8"))
    assert manifest["format"] == 1
    assert manifest["model"] == {
        "name": embedder.name,
        "revision": None,
        "fingerprint": embedder.fingerprint,
        "embedding_size": embedder.embedding_size,
    }
    assert manifest["settings"] == {"max_num_patches": 64}
    assert set(manifest["versions"]) == {"fgclip2", "transformers", "torch", "pillow"}
    assert [name for name, _, _ in manifest["files"]] == sorted(IMAGES)
    assert "黑猫" in manifest_of(photos).read_text(encoding="utf-8")


def test_only_new_and_changed_files_are_embedded_again(photos, embedder, monkeypatch):
    ImageIndex.build(photos, embedder)
    counting = Counting(embedder, monkeypatch)
    again = ImageIndex.build(photos, embedder)
    assert counting.seen == []
    assert again.report == IndexReport(added=0, updated=0, removed=0, unchanged=4, unusable=0)

    draw(photos / "new" / "新图.png", 20)
    draw(photos / "dog.jpg", 21, size=(128, 32))
    (photos / "黑猫.png").unlink()
    changed = ImageIndex.build(photos, embedder)
    assert sorted(counting.seen) == ["dog.jpg", "新图.png"]
    assert changed.report == IndexReport(added=1, updated=1, removed=1, unchanged=2, unusable=0)
    expected = embedder.encode_images([photos / name for name in paths(changed)])
    np.testing.assert_allclose(changed.vectors, expected, atol=1e-5)
    loaded = ImageIndex.load(photos)
    assert paths(loaded) == paths(changed)
    np.testing.assert_array_equal(loaded.vectors, changed.vectors)


def test_a_touched_file_of_the_same_size_is_embedded_again(photos, embedder, monkeypatch):
    ImageIndex.build(photos, embedder)
    counting = Counting(embedder, monkeypatch)
    os.utime(photos / "dog.jpg", ns=(1, 1))
    assert ImageIndex.build(photos, embedder).report.updated == 1
    assert counting.seen == ["dog.jpg"]


def test_unreadable_files_are_reported_and_tried_again(photos, embedder):
    whole = (photos / "dog.jpg").read_bytes()
    (photos / "dog.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "空.png").write_bytes(b"")
    index = ImageIndex.build(photos, embedder)
    assert index.report.unusable == 2
    assert [each.path for each in index.unusable] == ["dog.jpg", "空.png"]
    assert "not a readable image" in index.unusable[0].reason
    assert "images[" not in index.unusable[0].reason
    assert "dog.jpg" not in paths(index)
    assert ImageIndex.load(photos).unusable == index.unusable
    (photos / "dog.jpg").write_bytes(whole)
    repaired = ImageIndex.build(photos, embedder)
    assert repaired.report == IndexReport(added=1, updated=0, removed=0, unchanged=3, unusable=1)


def test_links_do_not_lead_outside_the_folder(photos, embedder, tmp_path):
    draw(tmp_path / "outside" / "secret.png", 30)
    (photos / "file.png").symlink_to(tmp_path / "outside" / "secret.png")
    (photos / "folder").symlink_to(tmp_path / "outside")
    (photos / "loop").symlink_to(photos)
    (photos / "inside.png").symlink_to(photos / "黑猫.png")
    (photos / "broken.png").symlink_to(photos / "nothing.png")
    index = ImageIndex.build(photos, embedder)
    assert set(paths(index)) == {*IMAGES, "inside.png"}
    reasons = dict(index.unusable)
    assert reasons.keys() == {"file.png", "folder", "loop", "broken.png"}
    assert "outside the folder" in reasons["file.png"]


def test_an_interrupted_run_goes_on_where_it_was(photos, embedder, monkeypatch):
    stream = embedder.stream_images

    def interrupted(*args, **kwargs):
        for done, item in enumerate(stream(*args, **kwargs)):
            if done == 2:
                raise KeyboardInterrupt
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "stream_images", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ImageIndex.build(photos, embedder)
    assert len(ImageIndex.load(photos)) == 2
    counting = Counting(embedder, monkeypatch)
    assert ImageIndex.build(photos, embedder).report == IndexReport(2, 0, 0, 2, 0)
    assert len(counting.seen) == 2


@pytest.fixture
def saved_lengths(photos, monkeypatch) -> list[int]:
    """How many files a freshly read index has after each save."""
    lengths, save = [], build.IndexBuild._save

    def watched(self):
        save(self)
        lengths.append(len(ImageIndex.load(photos)))

    monkeypatch.setattr(build.IndexBuild, "_save", watched)
    return lengths


def test_work_is_saved_while_it_goes_on(photos, embedder, saved_lengths, monkeypatch):
    monkeypatch.setattr(build, "SECONDS_BETWEEN_SAVES", 0)
    monkeypatch.setattr(build.time, "monotonic", lambda: 1.0)  # saving takes no time
    ImageIndex.build(photos, embedder)
    assert saved_lengths == [1, 2, 3, 4, 4]
    assert len(list(manifest_of(photos).parent.iterdir())) == 2  # nothing of the saves before is left


def test_slow_saves_are_rare(photos, embedder, saved_lengths, monkeypatch):
    clock = iter(range(1000, 10**6, 100))  # each save takes 100 seconds, and so does each image
    monkeypatch.setattr(build.time, "monotonic", lambda: next(clock))
    ImageIndex.build(photos, embedder)
    assert saved_lengths == [1, 4]


def test_a_crash_before_the_manifest_is_replaced_leaves_the_old_index(photos, embedder, monkeypatch):
    before = ImageIndex.build(photos, embedder)
    draw(photos / "new.png", 31)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            ImageIndex.build(photos, embedder)
    assert paths(ImageIndex.load(photos)) == paths(before)
    assert ImageIndex.build(photos, embedder).report.added == 1
    assert len(list(manifest_of(photos).parent.iterdir())) == 2  # what the crash left is gone


def test_the_index_can_be_kept_elsewhere_and_the_folder_moved(photos, embedder, tmp_path):
    kept = tmp_path / "indexes" / "照片"
    ImageIndex.build(photos, embedder, index_folder=kept)
    assert not manifest_of(photos).exists()
    moved = photos.rename(tmp_path / "moved")
    index = ImageIndex.build(moved, embedder, index_folder=kept)
    assert index.report.unchanged == 4
    assert index.search(moved / "黑猫.png", embedder)[0].path == moved / "黑猫.png"


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff\xe9.png"), "12:30:11 截屏.png", "a\\..\\b.png", "😀\n.png"])
def test_any_file_name_comes_back(tmp_path, embedder, name):
    (tmp_path / "photos").mkdir()
    strange = tmp_path / "photos" / name
    try:
        shutil.copy(draw(tmp_path / "x.png", 1), strange)
    except OSError:
        pytest.skip("this file system does not take such names")
    ImageIndex.build(strange.parent, embedder)
    assert ImageIndex.load(strange.parent).search("猫", embedder)[0].path == strange


def test_empty_folders(tmp_path, embedder):
    empty = tmp_path / "empty"
    empty.mkdir()
    index = ImageIndex.build(empty, embedder)
    assert len(index) == 0
    assert index.search("猫", embedder) == []
    assert index.search(["猫", "dog"], embedder) == [[], []]


# Refusing ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(saved_folder) -> FGClip2Embedder:
    model = FGClip2Model.from_pretrained(saved_folder)
    model.logit_scale.data += 1e-3
    return FGClip2Embedder(model, FGClip2Processor.from_pretrained(saved_folder), name="other")


def test_an_index_of_another_model_is_refused_unless_rebuilt(photos, embedder, other):
    index = ImageIndex.build(photos, embedder)
    with pytest.raises(IncompatibleIndexError, match=r"made by the model.*saved.*not the model 'other'.*--rebuild"):
        ImageIndex.build(photos, other)
    with pytest.raises(IncompatibleIndexError, match="not the model 'other'"):
        index.search("猫", other)
    assert ImageIndex.build(photos, other, rebuild=True).report.added == 4
    assert ImageIndex.load(photos).model["name"] == "other"


def test_an_index_at_another_resolution_is_refused(photos, embedder):
    ImageIndex.build(photos, embedder, max_num_patches=64)
    with pytest.raises(IncompatibleIndexError, match=r"'max_num_patches': 64\}, not \{'max_num_patches': 'auto'}"):
        ImageIndex.build(photos, embedder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99.*update fgclip2"),
        ({"files": [["../../etc/passwd.png", 1, 1]] * 4}, r"damaged.*outside its folder"),
        ({"files": [["/etc/passwd.png", 1, 1]] * 4}, r"damaged.*outside its folder"),
        ({"files": []}, r"damaged.*0 files, but vectors of shape \(4,"),
        ({"files": None}, "damaged"),
        ({"vectors": "../elsewhere.safetensors"}, "outside its folder"),
        ({"vectors": "missing.safetensors"}, "damaged"),
        ({"model": {}}, "damaged"),
    ],
)
def test_damaged_indexes_are_named(photos, embedder, change, message):
    ImageIndex.build(photos, embedder)
    manifest = json.loads(manifest_of(photos).read_text(encoding="utf-8"))
    manifest_of(photos).write_text(json.dumps({**manifest, **change}))
    with pytest.raises(IncompatibleIndexError, match=message):
        ImageIndex.build(photos, embedder)
    assert ImageIndex.build(photos, embedder, rebuild=True).report.added == 4


@pytest.mark.parametrize("rebuild", [False, True])
def test_files_of_others_are_neither_deleted_nor_overwritten(photos, embedder, tmp_path, rebuild):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "an app"}')
    (folder / "vectors-mine.safetensors").write_bytes(b"mine")
    with pytest.raises(IncompatibleIndexError, match="not of an index of fgclip2: choose another folder"):
        ImageIndex.build(photos, embedder, index_folder=folder, rebuild=rebuild)
    (folder / "manifest.json").unlink()
    for _ in range(2):
        ImageIndex.build(photos, embedder, index_folder=folder, rebuild=rebuild)
    assert (folder / "vectors-mine.safetensors").read_bytes() == b"mine"
    assert len(list(folder.glob("vectors-*"))) == 2


def test_truncated_files_of_an_index_are_named(photos, embedder):
    ImageIndex.build(photos, embedder)
    (vectors,) = manifest_of(photos).parent.glob("*.safetensors")
    vectors.write_bytes(vectors.read_bytes()[:-5])
    with pytest.raises(IncompatibleIndexError, match=r"damaged.*rebuild"):
        ImageIndex.load(photos)
    manifest_of(photos).write_text("{")
    with pytest.raises(IncompatibleIndexError, match="damaged"):
        ImageIndex.load(photos)


def test_missing_folders_and_indexes_are_named(tmp_path, embedder):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        ImageIndex.build(tmp_path / "nowhere", embedder)
    with pytest.raises(ValueError, match="has no index"):
        ImageIndex.load(tmp_path)


# Searching --------------------------------------------------------------------------------------------------------


def test_queries_by_text_image_and_vector(photos, embedder):
    index = ImageIndex.build(photos, embedder)
    hits = index.search("一只黑猫", embedder, top_k=2)
    assert isinstance(hits[0], SearchHit)
    scores = embedder.similarity(embedder.encode_texts("一只黑猫"), index.vectors)
    order = np.argsort(-scores)[:2]
    assert [hit.path for hit in hits] == [photos / index.files[row].path for row in order]
    np.testing.assert_allclose([hit.score for hit in hits], scores[order], atol=1e-6)

    several = index.search(["一只黑猫", "a dog"], embedder)
    assert [len(each) for each in several] == [4, 4]
    assert [hit.path for hit in several[0][:2]] == [hit.path for hit in hits]
    for query in (photos / "dog.jpg", Image.open(photos / "dog.jpg")):
        best = index.search(query, embedder)[0]
        assert best.path == photos / "dog.jpg"
        assert best.score == pytest.approx(1, abs=1e-5)
    vector = embedder.encode_images(photos / "黑猫.png")
    assert index.search(3 * vector)[0].path == photos / "黑猫.png"
    assert [each[0].path.name for each in index.search(index.vectors)] == [Path(name).name for name in paths(index)]


@pytest.mark.parametrize(
    ("query", "arguments", "message"),
    [
        ("猫", {}, "need an embedder"),
        ("猫", {"top_k": 0}, "top_k must be a positive integer, got 0"),
        (np.ones(3), {}, r"must be 32 finite values, got shape \(3,\)"),
        (np.full(32, np.nan), {}, "32 finite values"),
    ],
)
def test_wrong_queries_are_named(photos, embedder, query, arguments, message):
    index = ImageIndex.build(photos, embedder)
    with pytest.raises(ValueError, match=message):
        index.search(query, **arguments)


def test_mixed_queries_are_refused(photos, embedder):
    index = ImageIndex.build(photos, embedder)
    with pytest.raises(ValueError, match=r"Path.*str; allowed: all str"):
        index.search(["猫", photos / "dog.jpg"], embedder)


@settings(max_examples=80, deadline=None)
@given(
    npst.arrays(np.float32, st.tuples(st.integers(0, 3), st.just(4)), elements=st.integers(-3, 3)),
    npst.arrays(np.float32, st.tuples(st.integers(0, 30), st.just(4)), elements=st.integers(-3, 3)),
    st.integers(1, 12),
    st.integers(1, 9),
)
def test_blocks_give_the_exact_nearest(queries, vectors, top_k, block):
    """Against sorting everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fgclip2.search.index.VECTORS_PER_BLOCK", block)
        scores, rows = nearest(queries, vectors, top_k)
    everything = queries @ vectors.T
    expected = -np.sort(-everything, axis=1)[:, :top_k]
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_array_equal(np.take_along_axis(everything, rows, 1), scores)
    assert all(len(set(each)) == len(each) for each in rows)


def test_the_repr_is_one_short_line(photos, embedder):
    index = ImageIndex.build(photos, embedder)
    assert repr(index) == f"ImageIndex({len(index)} images in {str(photos)!r}, model {embedder.name!r})"
