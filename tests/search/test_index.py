"""The index of a folder: exact, up to date, never mixed, never outside its folder."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image
from safetensors.numpy import load_file, save_file

from fgclip2 import FGClip2Embedder, FGClip2Model, FGClip2Processor
from fgclip2.assets import demo_images
from fgclip2.embedding import split_phrases
from fgclip2.errors import IncompatibleIndexError, LockedIndexError
from fgclip2.search import ImageIndex, IndexReport, SearchHit, build, nearest, store
from fgclip2.search.scan import scan_folder
from tests import golden_of_r2d2
from tests.checkpoints import official_folder, saved_folder
from tests.search.fakes import FakeEmbedder

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


def test_vectors_are_gathered_when_they_are_first_used(tmp_path):
    (tmp_path / "1.png").write_bytes(b"x")
    for index in (ImageIndex.build(tmp_path, FakeEmbedder()), ImageIndex.load(tmp_path)):
        assert "vectors" not in vars(index)
        assert [hit.path.name for hit in index.search(np.float32([1, 0]))] == ["1.png"]
        assert vars(index)["vectors"].tolist() == [[1, 1]]


def test_what_has_not_changed_is_listed_as_the_very_entry_that_is_known(photos):
    known = {file.path: file._replace(digest="d") for file in scan_folder(photos).images}
    draw(photos / "dog.jpg", 7, (10, 10))
    again = {file.path: file for file in scan_folder(photos, known=known).images}
    assert {path for path, file in again.items() if file is not known[path]} == {"dog.jpg"}


def blocks_of(photos: Path) -> list[Path]:
    return sorted(manifest_of(photos).parent.glob("block-*"))


def change_manifest(photos: Path, **changes) -> None:
    """Change an index as its own writer would, with the right digest."""
    manifest = {**json.loads(manifest_of(photos).read_text(encoding="utf-8")), **changes}
    manifest["digest"] = store.digest_of(manifest)
    manifest_of(photos).write_text(json.dumps(manifest))


def write_format_1(photos: Path, embedder: FGClip2Embedder, **changes) -> None:
    """Turn the index of a folder into one that release 0.2 has written."""
    index = ImageIndex.load(photos)
    shutil.rmtree(manifest_of(photos).parent)
    manifest_of(photos).parent.mkdir()
    save_file({"vectors": index.vectors}, manifest_of(photos).with_name("vectors-0123456789abcdef.safetensors"))
    manifest = {
        "format": 1,
        "vectors": "vectors-0123456789abcdef.safetensors",
        "model": {**index.model, "fingerprint": embedder.weights_fingerprint},
        "settings": index.settings,
        "versions": {"fgclip2": "0.2.0"},
        "files": [list(file[:3]) for file in index.files],
        "unusable": [list(file) for file in index.unusable],
    }
    manifest_of(photos).write_text(json.dumps({**manifest, **changes}))


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
    assert manifest["format"] == 2
    assert manifest["model"] == {
        "name": embedder.name,
        "revision": None,
        "fingerprint": embedder.fingerprint,
        "embedding_size": embedder.embedding_size,
    }
    kind = {"backend": "torch", "precision": "float32", "images": "naflex"}
    assert manifest["settings"] == {"max_num_patches": 64, **kind}
    assert set(manifest["versions"]) >= {"fgclip2", "transformers", "torch", "pillow"}
    assert manifest["left_out"] == {".txt": 1}
    (block,) = manifest["blocks"]
    content = (manifest_of(photos).parent / block["name"]).read_bytes()
    assert block == {"name": f"block-{hashlib.sha256(content).hexdigest()[:32]}.safetensors", "rows": 4, "dropped": []}
    names, sizes, times, _ = json.loads(load_file(blocks_of(photos)[0])["files"].tobytes())
    expected = [(photos / name).stat() for name in sorted(IMAGES)]
    assert sorted(zip(names, sizes, times, strict=True)) == [
        (name, status.st_size, status.st_mtime_ns) for name, status in zip(sorted(IMAGES), expected, strict=True)
    ]
    assert "黑猫" in content.decode("utf-8", "replace")


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


def test_unreadable_files_are_reported_and_tried_again_when_they_change(photos, embedder, monkeypatch):
    whole = (photos / "dog.jpg").read_bytes()
    (photos / "dog.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "空.png").write_bytes(b"")
    index = ImageIndex.build(photos, embedder)
    assert index.report.unusable == 2
    assert [each.path for each in index.unusable] == ["dog.jpg", "空.png"]
    assert "not a readable image" in index.unusable[0].reason
    assert "images[" not in index.unusable[0].reason
    assert str(photos) not in index.unusable[0].reason
    assert "dog.jpg" not in paths(index)
    assert ImageIndex.load(photos).unusable == index.unusable
    counting = Counting(embedder, monkeypatch)
    assert ImageIndex.build(photos, embedder).unusable == index.unusable
    assert counting.seen == []  # neither is decoded again
    (photos / "dog.jpg").write_bytes(whole)
    repaired = ImageIndex.build(photos, embedder)
    assert repaired.report == IndexReport(added=1, updated=0, removed=0, unchanged=3, unusable=1)
    assert counting.seen == ["dog.jpg"]


def test_another_decoder_tries_unreadable_files_again(photos, embedder, monkeypatch):
    (photos / "空.png").write_bytes(b"")
    ImageIndex.build(photos, embedder)
    change_manifest(photos, versions={**json.loads(manifest_of(photos).read_text())["versions"], "pillow": "1.0"})
    counting = Counting(embedder, monkeypatch)
    ImageIndex.build(photos, embedder)
    ImageIndex.build(photos, embedder)
    assert counting.seen == ["空.png"]
    monkeypatch.setattr(embedder, "max_pixels", 10**6)
    ImageIndex.build(photos, embedder)
    assert counting.seen == ["空.png", "空.png"]


def test_files_that_can_not_be_opened_are_not_remembered(photos, embedder, monkeypatch):
    (photos / "空.png").write_bytes(b"")
    counting, open_file = Counting(embedder, monkeypatch), Path.open

    def refused(path, *args, **kwargs):
        if path.name == "空.png":
            raise PermissionError(13, "Permission denied")
        return open_file(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refused)
    assert ImageIndex.build(photos, embedder).unusable == [("空.png", "Permission denied")]
    counting.seen.clear()
    ImageIndex.build(photos, embedder)
    assert counting.seen == ["空.png"]


def test_what_is_left_out_is_counted_by_its_type(photos, embedder):
    for name in ("片.MOV", "b.mov", "README", ".hidden.mov"):
        (photos / name).write_bytes(b"")
    assert ImageIndex.build(photos, embedder).left_out == {"": 1, ".mov": 2, ".txt": 1}
    assert ImageIndex.load(photos).left_out == {"": 1, ".mov": 2, ".txt": 1}


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


def test_links_that_lead_outside_are_followed_on_demand(photos, embedder, tmp_path):
    draw(tmp_path / "outside" / "别处.png", 30)
    (photos / "file.png").symlink_to(tmp_path / "outside" / "别处.png")
    (photos / "文件夹").symlink_to(tmp_path / "outside")
    (photos / "a" / "loop").symlink_to(photos)
    (tmp_path / "outside" / "back").symlink_to(photos / "a")
    index = ImageIndex.build(photos, embedder, follow_links=True)
    assert set(paths(index)) == {*IMAGES, "file.png", "文件夹/别处.png"}
    assert index.unusable == []
    again = ImageIndex.build(photos, embedder)
    assert set(paths(again)) == set(IMAGES)
    assert {path for path, _ in again.unusable} == {"file.png", "文件夹", "a/loop"}


def test_one_bad_entry_does_not_end_the_folder(photos, embedder):
    (photos / "self.png").symlink_to("self.png")
    (photos / "自己").symlink_to("自己")
    deep, handle = "深" * 80, os.open(photos, os.O_RDONLY)
    for _ in range(20):  # 20 * 241 bytes, more than a path may have
        os.mkdir(deep, dir_fd=handle)
        inside = os.open(deep, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inside
    os.close(os.open("x.png", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
    os.close(handle)
    try:
        index = ImageIndex.build(photos, embedder)
    finally:
        shutil.rmtree(photos / deep)
    assert paths(index) == sorted(IMAGES)
    reasons = dict(index.unusable)
    assert reasons.pop("self.png") == reasons.pop("自己") == os.strerror(errno.ELOOP)
    assert list(reasons.values()) == [os.strerror(errno.ENAMETOOLONG)]


def test_contents_are_compared_on_demand(photos, embedder, monkeypatch):
    def exchange(name: str, seed: int) -> None:
        """Give a file other content of the same size and time."""
        status = (photos / name).stat()
        draw(photos / "other.bmp", seed)
        (photos / "other.bmp").rename(photos / name)
        os.utime(photos / name, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert (photos / name).stat().st_size == status.st_size

    draw(photos / "图.bmp", 40)
    ImageIndex.build(photos, embedder, compare_contents=True)
    counting = Counting(embedder, monkeypatch)
    exchange("图.bmp", 41)
    assert ImageIndex.build(photos, embedder).report.unchanged == 5  # which size and time don't tell
    changed = ImageIndex.build(photos, embedder, compare_contents=True)
    assert counting.seen == ["图.bmp"]
    assert changed.report == IndexReport(added=0, updated=1, removed=0, unchanged=4, unusable=0)
    row = paths(changed).index("图.bmp")
    np.testing.assert_allclose(changed.vectors[row], embedder.encode_images(photos / "图.bmp"), atol=1e-5)

    os.utime(photos / "图.bmp", ns=(1, 1))  # of the same content, so it keeps its vector
    assert ImageIndex.build(photos, embedder, compare_contents=True).report.unchanged == 5
    assert counting.seen == ["图.bmp"]
    assert ImageIndex.build(photos, embedder).report.unchanged == 5


def test_files_without_a_known_hash_are_embedded_again_to_compare_contents(photos, embedder):
    ImageIndex.build(photos, embedder)
    assert ImageIndex.build(photos, embedder, compare_contents=True).report.updated == 4
    assert ImageIndex.build(photos, embedder, compare_contents=True).report.unchanged == 4


def test_an_interrupted_run_goes_on_where_it_was(photos, embedder, monkeypatch):
    stream = embedder.stream_images

    def interrupted(*args, **kwargs):
        for done, item in enumerate(stream(*args, **kwargs)):
            if done == 2:
                raise KeyboardInterrupt
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "stream_images", interrupted)
        with pytest.raises(KeyboardInterrupt, match="2 of 4 images are saved in the index; the next run goes on"):
            ImageIndex.build(photos, embedder)
    assert len(ImageIndex.load(photos)) == 2
    counting = Counting(embedder, monkeypatch)
    assert ImageIndex.build(photos, embedder).report == IndexReport(2, 0, 0, 2, 0)
    assert len(counting.seen) == 2


@pytest.fixture
def saved_lengths(photos, monkeypatch) -> list[int]:
    """How many files a freshly read index has after each save."""
    lengths, write_index = [], build.write_index

    def watched(*args):
        write_index(*args)
        lengths.append(len(ImageIndex.load(photos)))

    monkeypatch.setattr(build, "write_index", watched)
    return lengths


def test_work_is_saved_at_least_every_10_seconds(photos, embedder, saved_lengths, monkeypatch):
    assert build.SECONDS_BETWEEN_SAVES == 10
    monkeypatch.setattr(build, "SECONDS_BETWEEN_SAVES", 0)
    monkeypatch.setattr(build.time, "monotonic", lambda: 1.0)  # saving takes no time
    ImageIndex.build(photos, embedder)
    assert saved_lengths == [1, 2, 3, 4, 4]


def test_blocks_of_former_generations_stay_for_their_readers_for_a_minute(photos, embedder, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(store.time, "time", lambda: now)
    monkeypatch.setattr(build, "SECONDS_BETWEEN_SAVES", 0)
    monkeypatch.setattr(build.time, "monotonic", lambda: 1.0)
    ImageIndex.build(photos, embedder)
    assert len(blocks_of(photos)) == 4  # of 1, 2, 3 and 4 rows
    now += 61
    (photos / "dog.jpg").unlink()
    ImageIndex.build(photos, embedder)
    assert len(blocks_of(photos)) == 2  # the new one, and the one that it replaces
    left = {path.name for path in manifest_of(photos).parent.iterdir()} - {path.name for path in blocks_of(photos)}
    assert left - {"lock"} == {"manifest.json", "lock_owner.json"}


def test_a_reader_of_a_former_generation_gets_the_next_one_when_its_blocks_have_gone(photos, embedder, monkeypatch):
    monkeypatch.setattr(store, "SECONDS_FOR_READERS", 0)
    ImageIndex.build(photos, embedder)
    read, updates = store._read, iter(["新.png", "more.png"])

    def overtaken(folder, name, follow_links):
        for picture in updates if name.startswith("block-") else ():
            draw(photos / picture, 50)
            ImageIndex.build(photos, embedder)
        return read(folder, name, follow_links)

    monkeypatch.setattr(store, "_read", overtaken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ImageIndex.load(photos)) == 6


def test_full_blocks_are_not_written_again(photos, embedder, monkeypatch):
    monkeypatch.setattr(store, "ROWS_PER_BLOCK", 2)
    monkeypatch.setattr(store, "SECONDS_FOR_READERS", 0)
    for number in range(5):
        draw(photos / f"图{number}.png", number)
    ImageIndex.build(photos, embedder)
    before = {path.name: path.stat().st_ino for path in blocks_of(photos)}
    assert len(before) == 5

    def check(kept: int, written: int, expected: set[str]) -> None:
        nonlocal before
        index = ImageIndex.build(photos, embedder)
        after = {path.name: path.stat().st_ino for path in blocks_of(photos)}
        assert (len(before.items() & after.items()), len(after.keys() - before.keys())) == (kept, written)
        assert set(paths(index)) == expected
        loaded = ImageIndex.load(photos)
        np.testing.assert_array_equal(loaded.vectors, index.vectors)
        expected_vectors = embedder.encode_images([photos / name for name in paths(index)])
        np.testing.assert_allclose(loaded.vectors, expected_vectors, atol=1e-5)
        before = after

    everything = {*IMAGES, *(f"图{number}.png" for number in range(5))}
    draw(photos / "新.png", 9)
    check(4, 1, {*everything, "新.png"})  # the block of one row is replaced by one of two
    (photos / "dog.jpg").unlink()
    check(5, 0, {*everything, "新.png"} - {"dog.jpg"})  # the block that has it keeps its other row
    for name in ("图0.png", "图1.png", "图2.png", "图3.png"):
        (photos / name).unlink()
    left = {"a/b/c.webp", "旅行/长城.PNG", "黑猫.png", "图4.png", "新.png"}
    assert len(ImageIndex.build(photos, embedder)) == len(left)
    assert 3 <= len(blocks_of(photos)) <= 5  # blocks without rows have gone
    (photos / "dog.jpg").write_bytes((photos / "新.png").read_bytes())
    assert set(paths(ImageIndex.build(photos, embedder))) == {*left, "dog.jpg"}
    assert set(paths(ImageIndex.load(photos))) == {*left, "dog.jpg"}


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
    assert not list(manifest_of(photos).parent.glob("*.partial"))  # what the crash left is gone
    assert len(blocks_of(photos)) == 2  # the new one, and the one that it replaces


def test_the_index_can_be_kept_elsewhere_and_the_folder_moved(photos, embedder, tmp_path):
    kept = tmp_path / "indexes" / "照片"
    ImageIndex.build(photos, embedder, index_folder=kept)
    assert not manifest_of(photos).exists()
    moved = photos.rename(tmp_path / "moved")
    index = ImageIndex.build(moved, embedder, index_folder=kept)
    assert index.report.unchanged == 4
    vector = embedder.encode_images(moved / "黑猫.png")
    assert index.search(vector)[0].path == moved / "黑猫.png"


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


@pytest.mark.parametrize("files", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_unchanged_files_cost_20_microseconds_each(tmp_path, files):
    """Of CPU time beyond loading the index, so 2 seconds for 100,000; measured: 5 to 13."""
    for number in range(files):
        folder = tmp_path / f"相册{number // 500}"
        if number % 500 == 0:
            folder.mkdir()
        (folder / f"IMG_{number}.jpg").touch()
    fake = FakeEmbedder()
    assert ImageIndex.build(tmp_path, fake).report.added == files
    taken = []
    for _ in range(7):
        began = time.process_time()
        ImageIndex.load(tmp_path)
        loaded = time.process_time()
        assert ImageIndex.build(tmp_path, fake).report.unchanged == files
        taken.append(time.process_time() - loaded - (loaded - began))
    assert min(taken) < files * 20e-6


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
    with pytest.raises(IncompatibleIndexError, match=r"'max_num_patches': 64, .*, not \{'max_num_patches': 'auto',"):
        ImageIndex.build(photos, embedder)


def test_an_index_of_format_1_is_checked_once_and_kept(photos, embedder, other, monkeypatch):
    (photos / "空.png").write_bytes(b"")
    before = ImageIndex.build(photos, embedder)
    write_format_1(photos, embedder)
    loaded = ImageIndex.load(photos)
    np.testing.assert_array_equal(loaded.vectors, before.vectors)
    assert loaded.unusable == before.unusable
    assert loaded.search("一只黑猫", embedder) == before.search("一只黑猫", embedder)
    with pytest.raises(IncompatibleIndexError, match="not the model 'other'"):
        ImageIndex.build(photos, other)

    counting = Counting(embedder, monkeypatch)
    assert ImageIndex.build(photos, embedder).report == before.report.__class__(0, 0, 0, 4, 1)
    assert sorted(counting.seen) == sorted(["空.png", *map(os.path.basename, IMAGES)])  # the rest to be compared
    counting.seen.clear()
    manifest = json.loads(manifest_of(photos).read_text())
    assert (manifest["format"], manifest["model"]["fingerprint"]) == (2, embedder.fingerprint)
    np.testing.assert_array_equal(ImageIndex.load(photos).vectors, before.vectors)
    assert ImageIndex.build(photos, embedder).report.unchanged == 4
    assert counting.seen == []


def test_an_index_of_format_1_with_other_preprocessing_is_refused(photos, embedder, monkeypatch):
    ImageIndex.build(photos, embedder)
    write_format_1(photos, embedder)
    before = manifest_of(photos).read_bytes()
    stream = embedder.stream_images

    def inverted(*args, **kwargs):
        return ((number, -vector) for number, vector in stream(*args, **kwargs))

    monkeypatch.setattr(embedder, "stream_images", inverted)
    with pytest.raises(IncompatibleIndexError, match=r"another vector of .* made with other preprocessing.*--rebuild"):
        ImageIndex.build(photos, embedder)
    assert manifest_of(photos).read_bytes() == before


def test_another_vocabulary_or_preprocessing_is_another_model(photos, embedder, saved_folder):
    index = ImageIndex.build(photos, embedder)
    processor = FGClip2Processor.from_pretrained(saved_folder)
    processor.image_processor.image_mean = [0.4, 0.5, 0.6]
    changed = FGClip2Embedder(embedder.model, processor, name="of another mean")
    with pytest.raises(IncompatibleIndexError, match="not the model 'of another mean'"):
        ImageIndex.build(photos, changed)
    with pytest.raises(IncompatibleIndexError, match="not the model 'of another mean'"):
        index.search("猫", changed)


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
def test_damaged_indexes_of_format_1_are_named(photos, embedder, change, message):
    ImageIndex.build(photos, embedder)
    write_format_1(photos, embedder, **change)
    with pytest.raises(IncompatibleIndexError, match=message):
        ImageIndex.build(photos, embedder)
    assert ImageIndex.build(photos, embedder, rebuild=True).report.added == 4


NOT_A_BLOCK = {"name": "../elsewhere.safetensors", "rows": 4, "dropped": []}
BLOCK = {"name": f"block-{32 * '0'}.safetensors", "rows": 4, "dropped": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99.*update fgclip2"),
        ({"format": "2"}, "format 2.*this release reads 1, 2 or 3"),
        ({"blocks": [NOT_A_BLOCK]}, "damaged"),
        ({"blocks": [{**BLOCK, "rows": "many"}]}, "damaged"),
        ({"blocks": [{**BLOCK, "dropped": [4]}]}, "damaged"),
        ({"blocks": [{}]}, "damaged.*KeyError: 'rows'"),
        ({"blocks": None}, "damaged"),
        ({"model": {}}, "damaged"),
        ({"model": None}, "damaged"),
        ({"model": {"name": "a", "revision": None, "fingerprint": "b", "embedding_size": 10**30}}, "damaged"),
        ({"unreadable": [["../a.png", 1, 1, "", "no"]]}, "damaged.*outside its folder"),
        ({"unreadable": [[1]]}, "damaged"),
        ({"refused": [["a.png", 3]]}, "damaged"),
        ({"refused": 3}, "damaged"),
        ({"left_out": {".txt": "many"}}, "damaged"),
        ({"retired": {"x": []}}, "damaged"),
        ({"settings": 1}, "damaged"),
    ],
)
def test_damaged_manifests_are_named(photos, embedder, change, message):
    ImageIndex.build(photos, embedder)
    change_manifest(photos, **change)
    for read in (ImageIndex.load, lambda folder: ImageIndex.build(folder, embedder)):
        with pytest.raises(IncompatibleIndexError, match=message):
            read(photos)
    assert ImageIndex.build(photos, embedder, rebuild=True).report.added == 4


@pytest.mark.parametrize(
    "key",
    ["digest", "model", "settings", "versions", "max_pixels", "blocks", "retired", "unreadable", "refused", "left_out"],
)
def test_a_manifest_that_lacks_something_is_damaged(photos, embedder, key):
    ImageIndex.build(photos, embedder)
    manifest = json.loads(manifest_of(photos).read_text())
    del manifest[key]
    if key != "digest":
        manifest["digest"] = store.digest_of(manifest)
    manifest_of(photos).write_text(json.dumps(manifest))
    with pytest.raises(IncompatibleIndexError, match=r"damaged.*rebuild"):
        ImageIndex.load(photos)


def test_a_block_that_is_named_twice_counts_once(photos, embedder, monkeypatch):
    monkeypatch.setattr(store, "ROWS_PER_BLOCK", 4)
    ImageIndex.build(photos, embedder)
    change_manifest(photos, blocks=2 * json.loads(manifest_of(photos).read_text())["blocks"])
    assert len(ImageIndex.load(photos)) == 4
    draw(photos / "新.png", 20)
    assert ImageIndex.build(photos, embedder).report == IndexReport(1, 0, 0, 4, 0)
    assert len(ImageIndex.load(photos)) == 5


@pytest.mark.parametrize("content", [b"{", b"", b"[" * 10**5, b'{"format": 2, "blocks": ' + b"[" * 10**5, b"\xff\x00"])
def test_a_manifest_that_is_no_json_is_damaged(photos, embedder, content):
    ImageIndex.build(photos, embedder)
    manifest_of(photos).write_bytes(content)
    with pytest.raises(IncompatibleIndexError, match=r"damaged.*rebuild"):
        ImageIndex.build(photos, embedder)
    assert ImageIndex.build(photos, embedder, rebuild=True).report.added == 4


def test_every_flipped_bit_of_an_index_is_noticed(photos, embedder):
    """In the manifest it is an error, in a block it costs the block's rows."""
    (photos / "空.png").write_bytes(b"")
    before = ImageIndex.build(photos, embedder)
    for path in (manifest_of(photos), *blocks_of(photos)):
        whole = path.read_bytes()
        for bit in np.random.default_rng(0).integers(0, 8 * len(whole), 60):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            if path == manifest_of(photos):
                with pytest.raises(IncompatibleIndexError, match=r"damaged|format|not of an index"):
                    ImageIndex.load(photos)
            else:
                with pytest.warns(UserWarning, match="damaged blocks.*4 images"):
                    assert len(ImageIndex.load(photos)) == 0
        path.write_bytes(whole)
    np.testing.assert_array_equal(ImageIndex.load(photos).vectors, before.vectors)


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_a_damaged_block_costs_its_rows_which_the_next_update_embeds_anew(photos, embedder, monkeypatch, damage):
    monkeypatch.setattr(store, "ROWS_PER_BLOCK", 3)
    before = ImageIndex.build(photos, embedder)
    manifest = json.loads(manifest_of(photos).read_text())
    block = manifest_of(photos).with_name(manifest["blocks"][0]["name"])
    content = block.read_bytes()
    if damage == "missing":
        block.unlink()
    else:
        block.write_bytes(content[:-5] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.warns(UserWarning, match=f"{block.name}.*their 3 images are left out"):
        assert len(ImageIndex.load(photos)) == 1
    counting = Counting(embedder, monkeypatch)
    with pytest.warns(UserWarning, match="embedded anew"):
        assert ImageIndex.build(photos, embedder).report == IndexReport(3, 0, 0, 1, 0)
    assert len(counting.seen) == 3
    np.testing.assert_allclose(ImageIndex.load(photos).vectors, before.vectors, atol=1e-5)


@pytest.mark.parametrize("rebuild", [False, True])
def test_files_of_others_are_neither_deleted_nor_overwritten(photos, embedder, tmp_path, rebuild):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "an app"}')
    (folder / "block-mine.safetensors").write_bytes(b"mine")
    with pytest.raises(IncompatibleIndexError, match="not of an index of fgclip2: choose another folder"):
        ImageIndex.build(photos, embedder, index_folder=folder, rebuild=rebuild)
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "block-mine.safetensors"}
    (folder / "manifest.json").unlink()
    for _ in range(2):
        ImageIndex.build(photos, embedder, index_folder=folder, rebuild=rebuild)
    assert (folder / "block-mine.safetensors").read_bytes() == b"mine"
    assert len(list(folder.glob("block-*"))) == 2


def test_links_in_an_index_do_not_lead_outside(photos, embedder, tmp_path):
    before = ImageIndex.build(photos, embedder)
    folder = manifest_of(photos).parent
    (block,) = blocks_of(photos)
    block.rename(tmp_path / "elsewhere")
    block.symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="is a link that leads outside"):
        assert len(ImageIndex.load(photos)) == 0
    assert len(ImageIndex.load(photos, follow_links=True)) == 4
    manifest_of(photos).rename(tmp_path / "manifest")
    manifest_of(photos).symlink_to(tmp_path / "manifest")
    with pytest.raises(IncompatibleIndexError, match="is a link that leads outside"):
        ImageIndex.load(photos)

    folder.rename(tmp_path / "index")
    folder.symlink_to(tmp_path / "index")
    for read in (ImageIndex.load, lambda folder: ImageIndex.build(folder, embedder)):
        with pytest.raises(ValueError, match=r"is a link to .*if you trust it, name that folder.*--follow-links"):
            read(photos)
    np.testing.assert_array_equal(ImageIndex.load(photos, follow_links=True).vectors, before.vectors)


# Locking ----------------------------------------------------------------------------------------------------------


def test_a_second_run_waits_and_then_names_the_first(photos, embedder, monkeypatch):
    monkeypatch.setattr(store, "SECONDS_TO_WAIT_FOR_LOCK", 0.1)
    ImageIndex.build(photos, embedder)
    draw(photos / "新.png", 20)
    with store.locked(manifest_of(photos).parent):
        with pytest.raises(LockedIndexError, match=rf"locked by process {os.getpid()} on .*--no-update"):
            ImageIndex.build(photos, embedder)
        assert len(ImageIndex.load(photos)) == 4  # readers don't wait
    assert ImageIndex.build(photos, embedder).report.added == 1
    with store.locked(manifest_of(photos).parent):
        assert ImageIndex.build(photos, embedder).report.unchanged == 5  # nor does who has nothing to write


def test_the_lock_of_a_run_that_died_is_taken_over(photos, embedder, monkeypatch):
    monkeypatch.setattr(store, "SECONDS_TO_WAIT_FOR_LOCK", 0)
    folder = manifest_of(photos).parent
    process = os.fork()
    if process == 0:
        with store.locked(folder):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    assert json.loads((folder / "lock_owner.json").read_text())["process"] == process
    assert ImageIndex.build(photos, embedder).report.added == 4


def test_what_another_run_has_written_meanwhile_is_not_done_again(photos, embedder, monkeypatch):
    locked, counting = build.locked, Counting(embedder, monkeypatch)

    @contextlib.contextmanager
    def late(folder):
        monkeypatch.setattr(build, "locked", locked)
        draw(photos / "新.png", 60)
        ImageIndex.build(photos, embedder)  # is quicker, and sees more
        with locked(folder):
            yield

    monkeypatch.setattr(build, "locked", late)
    assert ImageIndex.build(photos, embedder).report == IndexReport(0, 0, 0, 5, 0)
    assert len(counting.seen) == 5
    assert len(ImageIndex.load(photos)) == 5


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
def test_a_folder_that_can_not_be_written_is_named_before_the_work(photos, embedder, monkeypatch, error):
    def refused(path, *args, **kwargs):
        raise OSError(error, os.strerror(error))

    counting = Counting(embedder, monkeypatch)
    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(OSError, match=rf"can't be written.*{os.strerror(error)}.*keep it elsewhere \(`--index FOLDER`"):
        ImageIndex.build(photos, embedder)
    assert counting.seen == []


def test_an_index_that_is_up_to_date_is_not_written(photos, embedder, monkeypatch):
    ImageIndex.build(photos, embedder)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as on a medium that can only be read
    assert ImageIndex.build(photos, embedder).report.unchanged == 4
    draw(photos / "新.png", 20)
    with pytest.raises(OSError, match=r"can't be written"):
        ImageIndex.build(photos, embedder)


def test_missing_folders_and_indexes_are_named(tmp_path, embedder):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        ImageIndex.build(tmp_path / "nowhere", embedder)
    (tmp_path / "狗.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"狗\.png is a file, and none that an index is made of: give a folder"):
        ImageIndex.build(tmp_path / "狗.png", embedder)
    with pytest.raises(ValueError, match=r"狗\.png is a file: the index needs a folder of its own"):
        ImageIndex.build(tmp_path, embedder, index_folder=tmp_path / "狗.png")
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
    vector = embedder.encode_images(photos / "黑猫.png")
    assert index.search(3 * vector)[0].path == photos / "黑猫.png"
    assert [each[0].path.name for each in index.search(index.vectors)] == [Path(name).name for name in paths(index)]


@pytest.fixture
def copies(photos) -> Path:
    """A folder in which `dog.jpg` has a link of both kinds and two copies."""
    (photos / "link.jpg").symlink_to("dog.jpg")
    os.link(photos / "dog.jpg", photos / "a" / "hard.jpg")
    shutil.copy(photos / "dog.jpg", photos / "a" / "copy 1.jpg")
    shutil.copy(photos / "dog.jpg", photos / "旅行" / "副本.jpg")
    return photos


OF_THE_DOG = {"dog.jpg", "link.jpg", "hard.jpg", "copy 1.jpg", "副本.jpg"}


@pytest.mark.parametrize("top_k", [1, 2, 10])
def test_an_image_is_not_among_its_own_answers(copies, embedder, top_k):
    index = ImageIndex.build(copies, embedder)
    assert len(index) == 8
    path = copies / "dog.jpg"
    everything = index.search(embedder.encode_images(path), top_k=8)
    assert {hit.path.name for hit in everything[:5]} == OF_THE_DOG  # a vector has no image
    expected = everything[5 : 5 + top_k]
    queries = [path, copies / "旅行" / "副本.jpg", path.read_bytes(), Image.open(path)]
    answers = [
        *index.search(queries, embedder, top_k),
        *index.search(image=[*map(str, queries[:2])], embedder=embedder),
    ]
    for hits in answers[:4]:
        assert [hit.path for hit in hits] == [hit.path for hit in expected]
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in expected], atol=1e-5)
    assert [[hit.path for hit in hits][:top_k] for hits in answers[4:]] == 2 * [[hit.path for hit in expected]]
    assert index.search(image=str(path), embedder=embedder, top_k=top_k) == index.search(path, embedder, top_k)
    decoded = np.asarray(Image.open(path))
    assert index.search(Image.fromarray(decoded), embedder)[0].score == pytest.approx(1, abs=1e-5)  # has no file


def test_an_image_that_has_changed_since_is_not_its_own_answer(photos, embedder):
    index = ImageIndex.build(photos, embedder)
    draw(photos / "dog.jpg", 77, size=(32, 32))
    assert photos / "dog.jpg" not in [hit.path for hit in index.search(photos / "dog.jpg", embedder)]


@pytest.mark.parametrize("text", ["dog.jpg", "旅行/长城.PNG", "{photos}/notes.txt"])
def test_a_path_as_text_is_warned_of(photos, embedder, text):
    index = ImageIndex.build(photos, embedder)
    text = text.format(photos=photos)
    with pytest.warns(UserWarning, match="looks like the path of a file, but is searched as a text.*image="):
        hits = index.search(text, embedder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.search(["a dog", "一只狗 / 猫", "x" * 5000, "a\0b"], embedder)
    assert len(hits) == 4


@pytest.mark.parametrize(
    ("query", "arguments", "message"),
    [
        ("", {"embedder": True}, "the query '' is empty: give a text"),
        (["狗", " \u3000\n"], {"embedder": True}, r"the query ' \\u3000\\n' is empty"),
        (None, {}, "one of `query` and `image`"),
        ("狗", {"image": "dog.jpg"}, "one of `query` and `image`"),
        (Path(), {"embedder": True}, "is a folder: search by one image file"),
        (Path("没有.png"), {"embedder": True}, r"没有\.png: no such image file"),
        ("猫", {}, "need an embedder"),
        ("猫", {"top_k": 0}, "top_k must be a positive integer, got 0"),
        (np.ones(3), {}, r"must be 32 finite values, got shape \(3,\)"),
        (np.full(32, np.nan), {}, "32 finite values"),
    ],
)
def test_wrong_queries_are_named(photos, embedder, query, arguments, message):
    index = ImageIndex.build(photos, embedder)
    if "embedder" in arguments:
        arguments = {**arguments, "embedder": embedder}
    with pytest.raises(ValueError, match=message):
        index.search(query, **arguments)


def test_mixed_queries_are_refused(photos, embedder):
    index = ImageIndex.build(photos, embedder)
    with pytest.raises(ValueError, match=r"Path.*str; allowed: all str"):
        index.search(["猫", photos / "dog.jpg"], embedder)


@settings(max_examples=80)
@given(
    npst.arrays(np.float32, st.tuples(st.integers(0, 3), st.just(4)), elements=st.integers(-3, 3)),
    npst.arrays(np.float32, st.tuples(st.integers(0, 30), st.just(4)), elements=st.integers(-3, 3)),
    st.integers(1, 12),
    st.integers(1, 9),
)
def test_blocks_give_the_exact_nearest(queries, vectors, top_k, block):
    """Against sorting everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fgclip2.search.exact.VECTORS_PER_BLOCK", block)
        scores, rows = nearest(queries, vectors, top_k)
    everything = queries @ vectors.T
    expected = -np.sort(-everything, axis=1)[:, :top_k]
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_array_equal(np.take_along_axis(everything, rows, 1), scores)
    assert all(len(set(each)) == len(each) for each in rows)


def test_the_repr_is_one_short_line(photos, embedder):
    index = ImageIndex.build(photos, embedder)
    assert repr(index) == f"ImageIndex({len(index)} images in {str(photos)!r}, model {embedder.name!r})"


# Re-ranking ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded():
    return FGClip2Embedder.from_pretrained(device="cpu")


def test_the_model_reorders_the_nearest_images(tmp_path, monkeypatch):
    embedder, folder = golden_of_r2d2.embedder(), tmp_path / "图"
    folder.mkdir()
    for number in range(12):
        golden_of_r2d2.image(number).save(folder / f"{number:02}.png")
    index = ImageIndex.build(folder, embedder)
    captions, outputs = golden_of_r2d2.results()["captions"], golden_of_r2d2.tensors("outputs")
    encoded = []
    encode = embedder.model.get_image_features_and_tokens
    monkeypatch.setattr(
        embedder.model,
        "get_image_features_and_tokens",
        lambda pixel_values: encoded.append(len(pixel_values)) or encode(pixel_values),
    )
    results = index.search(captions, embedder, top_k=5, rerank="model", candidates=5)
    # Each candidate once, though several texts have it.
    assert sum(encoded) == len(outputs["dual_order_t2i"].unique())
    for text, hits in enumerate(results):
        order = [int(hit.path.stem) for hit in hits]
        assert order == outputs["order_t2i"][text].tolist()
        expected = outputs["score_t2i"][text][order].tolist()
        assert [hit.reranked for hit in hits] == pytest.approx(expected, abs=4e-6)
        assert [hit.score for hit in hits] == pytest.approx(outputs["cosine"][order, text].tolist(), abs=2e-6)
    (first, *_) = index.search(captions[0], embedder, top_k=1, rerank="model", candidates=5)
    assert first.path == results[0][0].path
    first.path.unlink()
    with pytest.warns(UserWarning, match="1 images of the index can't be read any more and are left out"):
        assert len(index.search(captions[0], embedder, rerank="model", candidates=5)) == 9
    with pytest.raises(ValueError, match="split is of phrases, which rerank='model' has none of"):
        index.search(captions[0], embedder, rerank="model", split=str.split)


def test_phrases_reorder_the_nearest_images(tmp_path, embedded, monkeypatch):
    shutil.copytree(demo_images() / "scenes" / "images", tmp_path / "图")
    index = ImageIndex.build(tmp_path / "图", embedded)
    queries = ["a taxi and a dolphin", "茄子"]
    results = index.search(queries, embedded, top_k=3, rerank="phrases", candidates=8)
    for query, hits in zip(queries, results, strict=True):
        near = index.search(query, embedded, top_k=8)
        alone = embedded.rerank(query, [hit.path for hit in near], max_num_patches=index.settings["max_num_patches"])
        assert [hit.path for hit in hits] == [near[hit.index].path for hit in alone[:3]]
        assert [hit.reranked for hit in hits] == pytest.approx([hit.reranked for hit in alone[:3]], abs=1e-5)
        assert [hit.score for hit in hits] == pytest.approx([near[hit.index].score for hit in alone[:3]], abs=1e-6)
        assert [match.text for match in hits[0].phrases] == split_phrases(query)
    alone = index.search(queries[0], embedded, top_k=3, rerank="phrases", candidates=8)
    assert [hit.path for hit in alone] == [hit.path for hit in results[0]]
    sizes = []
    stream = embedded.stream_windows
    with monkeypatch.context() as patch:
        patch.setattr(
            embedded, "stream_windows", lambda *args, **kw: sizes.append(kw["batch_size"]) or stream(*args, **kw)
        )
        index.search(queries[0], embedded, rerank="phrases", batch_size=3)
    assert sizes == [3]
    gone = results[0][0].path
    gone.unlink()
    with pytest.warns(UserWarning, match="1 images of the index can't be read any more and are left out, e.g. .*webp"):
        left = index.search(queries[0], embedded, top_k=8, rerank="phrases", candidates=8)
    assert len(left) == len(index) - 1
    assert gone not in [hit.path for hit in left]
    with pytest.raises(ValueError, match="FG-CLIP 2 has no pair scores, it compares vectors only"):
        index.search("猫", embedded, rerank="model")
    with pytest.raises(ValueError, match="needs queries that are texts"):
        index.search(near[0].path, embedded, rerank="phrases")
    with pytest.raises(ValueError, match="rerank must be None, 'phrases' or 'model', got 'words'"):
        index.search("猫", embedded, rerank="words")


def test_several_devices_share_the_embedding_of_an_index(photos, embedder, saved_folder, tmp_path):
    pair = FGClip2Embedder.from_pretrained(saved_folder, device=["cpu", "cpu"])
    used = []
    for number, replica in enumerate(pair.replicas):
        replica.vision_model.register_forward_hook(lambda *_, number=number: used.append(number))
    shared = ImageIndex.build(photos, pair, tmp_path / "shared", batch_size=1)
    assert {*used} == {0, 1}
    np.testing.assert_allclose(shared.vectors, ImageIndex.build(photos, embedder).vectors, atol=1e-6)
