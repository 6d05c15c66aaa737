"""Stored dense maps: how near they are to fresh ones, searched without pictures, kept up to date, never wrong."""

import errno
import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fgclip2 import FGClip2Embedder
from fgclip2.assets import demo_images
from fgclip2.embedding import DenseMap, PhraseMatch
from fgclip2.embedding.reranker import ImageMatch
from fgclip2.search import ImageIndex, IndexReport, build, store
from fgclip2.search.dense_maps import MapBlock, bytes_per_map, describe_size, pack
from fgclip2.search.scan import ImageFile
from tests.search.fakes import FakeEmbedder, is_map_of

CLOSE = {"fp16": 1e-3, "int8": 1e-2}  # how far cosines may be from those of fresh maps


@pytest.fixture(scope="module")
def embedder() -> FGClip2Embedder:
    return FGClip2Embedder.from_pretrained(device="cpu")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Return a folder of what a [`FakeEmbedder`] takes for images."""
    folder = tmp_path / "照片"
    folder.mkdir()
    for number in range(6):
        (folder / f"图{number}.png").write_bytes(b"x" * (number + 1))
    return folder


def map_blocks_of(photos: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (photos / ".fgclip2_index").glob("dense-*")}


def manifest_of(photos: Path) -> dict:
    return json.loads((photos / ".fgclip2_index" / "manifest.json").read_text(encoding="utf-8"))


def check(index: ImageIndex) -> None:
    """Check that every image has its own map."""
    assert index.maps.keys() == set(index.files)
    for file, (block, row) in index.maps.items():
        assert is_map_of(block.read(row).unpack(), file.path, file.size)


def random_map(seed: int, shape: tuple[int, int, int], factor: float = 1.0) -> DenseMap:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=shape) + generator.normal(size=shape[-1])  # patches of an image are alike
    return DenseMap((factor * values).astype(np.float32), (32, 48))


# Packing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_packed_maps_are_near_the_fresh_ones_up_to_a_factor(kind, factor):
    fresh = random_map(0, (3, 5, 64), factor)
    fresh.values[1, 2] = 0
    fresh.values[0, 0] *= 1e-3
    packed = pack(fresh, kind)
    assert packed.nbytes == bytes_per_map(kind, 15, 64)
    values, image_size = packed.unpack()
    assert image_size == (32, 48)
    assert values.dtype == np.float32
    expected = fresh.values / np.abs(fresh.values).max()
    # Each row is rounded to its own 127th, and float16 to 11 bits.
    bound = np.abs(expected).max(axis=-1, keepdims=True) * (2**-11 if kind == "fp16" else 0.51 / 127) + 1e-7
    assert (np.abs(values - expected) <= bound).all()


def test_sizes_are_those_that_are_promised(embedder):
    assert bytes_per_map("fp16", 256, 768) == 393_216
    assert bytes_per_map("int8", 256, 768) == 197_120
    width = embedder.embedding_size
    assert describe_size("fp16", embedder, 100) == f"about {200 * width / 1000:,.0f} kB an image (100 patches)"
    assert describe_size("int8", embedder, "auto").endswith("kB an image (128 to 1,024 patches)")
    squares = FakeEmbedder()
    squares.processor = SimpleNamespace(
        patch_budgets=None, prepare_image=lambda image: image, collate_images=lambda images: SquareInputs()
    )
    squares.model = SimpleNamespace(get_patch_grids=lambda: np.array([[20, 20]]))
    assert describe_size("int8", squares, None) == "about 2 kB an image (400 patches)"


class SquareInputs(dict):
    def to(self, device):
        return self


def test_values_that_are_not_finite_are_refused():
    fresh = random_map(0, (1, 2, 4))
    fresh.values[0, 1, 2] = np.nan
    with pytest.raises(RuntimeError, match="values that are not finite"):
        pack(fresh, "int8")


def test_one_map_is_read_whatever_the_others_are(tmp_path):
    files = [ImageFile("猫.png", 1, 2), ImageFile("dog.png", 3, 4)]
    maps = [pack(random_map(seed, (2, 2, 8)), "int8") for seed in range(2)]
    block = MapBlock.write(tmp_path, files, maps)
    path = tmp_path / block.name
    content = bytearray(path.read_bytes())
    content[content.index(maps[1].values.tobytes())] ^= 1
    path.write_bytes(content)
    block = MapBlock.open(path)
    np.testing.assert_array_equal(block.read(0).values, maps[0].values)
    with pytest.raises(ValueError, match=r"the dense map of dog\.png is not that of its hash"):
        block.read(1)
    content[content.index(b"2")] ^= 1  # in the header, which the name is the hash of
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its content is not that of its name"):
        MapBlock.open(path)


# Searching --------------------------------------------------------------------------------------------------------


def test_only_candidates_are_named(photos, embedder, monkeypatch):
    """The paths of all images would take longer than the search."""
    index = ImageIndex.build(photos, FakeEmbedder())
    index.vectors = np.eye(6, embedder.embedding_size, dtype=np.float32)
    index.model["embedding_size"] = embedder.embedding_size
    seen = []

    def match_pairs(embedder, texts, images, pairs, *others, **options):
        seen.append(len(images))
        return [(pair, ImageMatch([PhraseMatch("猫", (0, 0, 1, 1), 0.5)])) for pair in pairs]

    monkeypatch.setattr("fgclip2.search.reranking.match_pairs", match_pairs)
    monkeypatch.setattr("fgclip2.search.queries.made_by", lambda model, embedder: True)
    hits = index.search(["猫", "猫"], embedder, top_k=2, rerank="phrases", candidates=2)
    assert seen == [2]
    assert [hit.path.parent for hit in hits[0]] == [index.folder, index.folder]


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_candidates_are_ordered_without_their_pictures(tmp_path, embedder, monkeypatch, kind):
    folder = tmp_path / "图"
    shutil.copytree(demo_images() / "scenes" / "images", folder)
    ImageIndex.build(folder, embedder, dense=kind)
    index = ImageIndex.load(folder)
    assert (index.dense, len(index.maps)) == (kind, len(index))
    paths = [folder / file.path for file in index.files]
    np.testing.assert_allclose(index.vectors, embedder.encode_images(paths), atol=1e-5)
    queries = ["a taxi and a dolphin", "打开的书本和汽车"]
    fresh = [{paths[hit.index].name: hit for hit in embedder.rerank(query, paths)} for query in queries]
    for path in paths:
        path.unlink()
    monkeypatch.setattr(embedder, "stream_windows", None)  # which would open them
    agree = []
    for hits, expected in zip(index.search(queries, embedder, rerank="phrases"), fresh, strict=True):
        assert hits[0].path.name == max(expected, key=lambda name: expected[name].reranked)
        assert {hit.path.name for hit in hits} == expected.keys()
        for hit in hits:
            for match, its_fresh in zip(hit.phrases, expected[hit.path.name].phrases, strict=True):
                assert match.cosine == pytest.approx(its_fresh.cosine, abs=CLOSE[kind])
                agree.append(match.text == its_fresh.text and match.box == pytest.approx(its_fresh.box, abs=0.01))
    assert np.mean(agree) >= 0.9  # two windows may be nearly equal


def test_a_damaged_map_costs_the_reading_of_its_image(tmp_path, embedder):
    folder = tmp_path / "图"
    folder.mkdir()
    for path in sorted((demo_images() / "scenes" / "images").glob("*.webp"))[:2]:
        shutil.copy(path, folder)
    whole = ImageIndex.build(folder, embedder, dense="int8")
    expected = whole.search("出租车", embedder, rerank="phrases")
    ((name, content),) = map_blocks_of(folder).items()
    block = folder / ".fgclip2_index" / name
    block.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    index = ImageIndex.load(folder)
    message = rf"so their images were read, e.g. the dense map of .*: delete {name} in the folder of the index"
    with pytest.warns(UserWarning, match=message):
        hits = index.search("出租车", embedder, rerank="phrases")
    assert [hit.path for hit in hits] == [hit.path for hit in expected]
    block.unlink()
    with pytest.warns(UserWarning, match="damaged blocks of dense maps"):
        mended = ImageIndex.build(folder, embedder)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "dense maps are damaged")
        hits = mended.search("出租车 船", embedder, rerank="phrases", split=str.split)
    assert [match.text for match in hits[0].phrases] == ["出租车", "船"]
    with pytest.raises(ValueError, match="split must be a function that makes phrases of a text, got 'phrases'"):
        mended.search("出租车", embedder, rerank="phrases", split="phrases")


# Keeping ----------------------------------------------------------------------------------------------------------


def test_an_index_without_maps_says_nothing_of_them(photos):
    index = ImageIndex.build(photos, FakeEmbedder())
    assert (index.dense, index.maps, index.dense_bytes) == (None, {}, 0)
    assert "dense" not in manifest_of(photos)
    assert map_blocks_of(photos) == {}


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_maps_follow_the_images(photos, kind):
    index = ImageIndex.build(photos, FakeEmbedder(), dense=kind)
    check(index)
    assert manifest_of(photos)["dense"]["kind"] == kind
    assert index.dense_bytes == sum(map(len, map_blocks_of(photos).values()))
    (photos / "图0.png").unlink()
    (photos / "图1.png").write_bytes(b"x" * 50)
    (photos / "图9.png").write_bytes(b"new")
    embedder = FakeEmbedder()
    changed = ImageIndex.build(photos, embedder)
    assert sorted(embedder.mapped) == ["图1.png", "图9.png"]
    assert changed.report == IndexReport(added=1, updated=1, removed=1, unchanged=4, unusable=0)
    for each in (changed, ImageIndex.load(photos)):
        assert each.dense == kind
        check(each)
    check(index)  # its block is open


def test_maps_are_added_changed_and_removed_on_demand(photos):
    ImageIndex.build(photos, FakeEmbedder())
    blocks = sorted((photos / ".fgclip2_index").glob("block-*"))
    for kind in ("int8", "fp16"):
        embedder = FakeEmbedder()
        index = ImageIndex.build(photos, embedder, dense=kind)
        assert len(embedder.mapped) == 6
        assert index.report == IndexReport(added=0, updated=0, removed=0, unchanged=6, unusable=0)
        assert index.dense == manifest_of(photos)["dense"]["kind"] == kind
        check(index)
    for dense in ("fp16", None):
        embedder = FakeEmbedder()
        check(ImageIndex.build(photos, embedder, dense=dense))
        assert embedder.mapped == []
    embedder = FakeEmbedder()
    index = ImageIndex.build(photos, embedder, dense="none")
    assert (index.dense, index.maps, embedder.mapped) == (None, {}, [])
    assert "dense" not in manifest_of(photos)
    assert blocks == sorted((photos / ".fgclip2_index").glob("block-*"))  # the vectors are as they were
    with pytest.raises(ValueError, match="dense must be None, 'fp16', 'int8' or 'none', got 'int4'"):
        ImageIndex.build(photos, FakeEmbedder(), dense="int4")


def test_a_rebuilt_index_keeps_the_kind_of_its_maps(photos):
    ImageIndex.build(photos, FakeEmbedder(), dense="int8")
    embedder = FakeEmbedder()
    index = ImageIndex.build(photos, embedder, rebuild=True)
    assert index.dense == ImageIndex.load(photos).dense == "int8"
    assert len(embedder.mapped) == 6
    check(index)
    other = FakeEmbedder()
    other.fingerprint = "0" * 64  # another model, whose vectors and maps don't fit those of the index
    assert ImageIndex.build(photos, other, rebuild=True).dense == "int8"
    assert ImageIndex.build(photos, other, rebuild=True, dense="fp16").dense == "fp16"
    (photos / ".fgclip2_index" / "manifest.json").write_text(json.dumps({**manifest_of(photos), "digest": ""}))
    assert ImageIndex.build(photos, other, rebuild=True).dense == "fp16"  # of a damaged manifest, too
    assert ImageIndex.build(photos, other, rebuild=True, dense="none").dense is None
    assert ImageIndex.build(photos, other, rebuild=True).dense is None


def test_a_model_without_dense_features_rebuilds_no_index_with_maps(photos):
    def lack():
        raise ValueError("it has no dense features")

    ImageIndex.build(photos, FakeEmbedder(), dense="int8")
    embedder = FakeEmbedder()
    embedder.require_dense_features = lack
    with pytest.raises(ValueError, match=r"maps as int8, which this model can't make: it has .*`.*--dense none`"):
        ImageIndex.build(photos, embedder, rebuild=True)
    check(ImageIndex.load(photos))
    assert ImageIndex.build(photos, embedder, rebuild=True, dense="none").dense is None


def test_an_interrupted_run_keeps_its_maps(photos):
    embedder = FakeEmbedder(broken_after=4)
    with pytest.raises(KeyboardInterrupt, match="4 of 6 images are saved in the index"):
        ImageIndex.build(photos, embedder, dense="int8")
    assert len(ImageIndex.load(photos).maps) == 4
    embedder = FakeEmbedder()
    check(ImageIndex.build(photos, embedder))
    assert len(embedder.mapped) == 2
    with pytest.raises(KeyboardInterrupt, match=r"4 of 6 .* without rebuild \(`--rebuild`\) goes on from there"):
        ImageIndex.build(photos, FakeEmbedder(broken_after=4), rebuild=True)


def test_what_is_said_to_be_saved_is_saved(photos, monkeypatch):
    def interrupted_again(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "write_index", interrupted_again)
    with pytest.raises(KeyboardInterrupt, match="0 of 6 images are saved in the index; the next run goes on from"):
        ImageIndex.build(photos, FakeEmbedder(broken_after=4), dense="int8")


def test_touched_files_of_the_same_content_keep_their_maps(photos):
    ImageIndex.build(photos, FakeEmbedder(), compare_contents=True, dense="int8")
    (photos / "图3.png").touch()
    embedder = FakeEmbedder()
    check(ImageIndex.build(photos, embedder, compare_contents=True))
    assert embedder.mapped == []
    check(ImageIndex.load(photos))


def test_comparing_contents_finds_damaged_maps(photos):
    ImageIndex.build(photos, FakeEmbedder(), compare_contents=True, dense="int8")
    ((name, content),) = map_blocks_of(photos).items()
    (photos / ".fgclip2_index" / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    embedder = FakeEmbedder()
    ImageIndex.build(photos, embedder)
    assert embedder.mapped == []
    check(ImageIndex.build(photos, embedder, compare_contents=True))
    assert len(embedder.mapped) == 1


def test_full_blocks_stay_and_small_ones_are_gathered(photos, monkeypatch):
    size = 2 * bytes_per_map("int8", 6, 4)
    monkeypatch.setattr(store, "BYTES_PER_BLOCK", size)
    monkeypatch.setattr(store, "SECONDS_FOR_READERS", 0)
    first = ImageIndex.build(photos, FakeEmbedder(), dense="int8")
    before = map_blocks_of(photos)
    assert len(before) == 3
    (photos / "图9.png").write_bytes(b"new")
    ImageIndex.build(photos, FakeEmbedder())
    after = map_blocks_of(photos)
    assert before.items() < after.items()
    for number in (0, 1, 2, 3):
        (photos / f"图{number}.png").unlink()
    last = ImageIndex.build(photos, FakeEmbedder())
    check(last)
    assert sum(entry["rows"] - len(entry["dropped"]) for entry in manifest_of(photos)["dense"]["blocks"]) == 3
    assert {entry["name"] for entry in manifest_of(photos)["dense"]["blocks"]} == map_blocks_of(photos).keys()
    check(first)  # whose blocks are gone, but open


def test_a_last_block_that_has_not_changed_stays(photos, monkeypatch):
    monkeypatch.setattr(store, "ROWS_PER_BLOCK", 4)
    ImageIndex.build(photos, FakeEmbedder(), dense="int8")

    def written() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in (photos / ".fgclip2_index").glob("*.safetensors")}

    before = written()
    assert len(before) == 3  # vectors of 4 and 2 images, and all maps
    (photos / "外.png").symlink_to("/nowhere.png")
    (refused,) = ImageIndex.build(photos, FakeEmbedder()).unusable
    assert [refused] == ImageIndex.load(photos).unusable
    assert written() == before
    check(ImageIndex.load(photos))
    (photos / "图9.png").write_bytes(b"new")
    check(ImageIndex.build(photos, FakeEmbedder()))
    assert len(written().items() - before.items()) == 2  # the last block of vectors, and that of the maps
    check(ImageIndex.load(photos))


def test_a_full_disk_leaves_the_index_as_it_was(photos, monkeypatch):
    ImageIndex.build(photos, FakeEmbedder(), dense="int8")
    (photos / "图9.png").write_bytes(b"new")

    write_bytes = Path.write_bytes

    def full(path, content):
        if len(content) > 500:  # there is room for the name of the lock's owner
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*safetensors'"):
            ImageIndex.build(photos, FakeEmbedder())
    check(ImageIndex.load(photos))
    assert len(ImageIndex.load(photos)) == 6
    check(ImageIndex.build(photos, FakeEmbedder()))
    assert not list((photos / ".fgclip2_index").glob(".*"))


def test_a_truncated_block_is_left_out_and_made_anew(photos):
    ImageIndex.build(photos, FakeEmbedder(), dense="int8")
    ((name, content),) = map_blocks_of(photos).items()
    (photos / ".fgclip2_index" / name).write_bytes(content[:-1])
    with pytest.warns(UserWarning, match="damaged blocks of dense maps, dense-"):
        index = ImageIndex.load(photos)
    assert (len(index), index.maps) == (6, {})
    with pytest.warns(UserWarning, match="made anew by the next update"):
        check(ImageIndex.build(photos, FakeEmbedder()))
    check(ImageIndex.load(photos))
