"""Indexes of archives, tables and own ids: the same guarantees as those of folders, and nothing outside is touched."""

import io
import json
import shutil
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from fgclip2 import FGClip2Embedder
from fgclip2.errors import IncompatibleIndexError
from fgclip2.search import ImageIndex, IndexReport, archives, store, tables
from tests.checkpoints import official_folder, saved_folder

__all__ = ["official_folder", "saved_folder"]


@pytest.fixture(scope="module")
def embedder(saved_folder) -> FGClip2Embedder:
    return FGClip2Embedder.from_pretrained(saved_folder, device="cpu")


def picture(seed: int, size: tuple[int, int] = (96, 64)) -> bytes:
    colors = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(colors).resize(size, Image.Resampling.BICUBIC).save(content, "PNG")
    return content.getvalue()


PICTURES = {"黑猫.png": picture(0), "a/dog.png": picture(1), "旅行/长城.PNG": picture(2)}


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_parquet(path: Path, rows: list[dict]) -> Path:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
    return path


ROWS = [
    {"id": f"货号-{number}", "image": {"bytes": content, "path": None}, "year": 2019 + number, "tags": ["x"]}
    for number, content in enumerate(PICTURES.values())
]
WRITERS = {
    "zip": lambda folder: write_zip(folder / "照片.zip", PICTURES),
    "tar": lambda folder: write_tar(folder / "照片.tar", PICTURES),
    "parquet": lambda folder: write_parquet(folder / "照片.parquet", ROWS),
}


def paths(index: ImageIndex) -> list[str]:
    return [file.path for file in index.files]


def unusable(index: ImageIndex) -> dict[str, str]:
    return dict(index.unusable)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_source_gives_the_vectors_and_answers_of_its_images(tmp_path, embedder, kind):
    place = WRITERS[kind](tmp_path)
    index = ImageIndex.build(place, embedder)
    ids = [row["id"] for row in ROWS] if kind == "parquet" else list(PICTURES)
    assert paths(index) == sorted(ids)
    contents = dict(zip(ids, PICTURES.values(), strict=True))
    expected = embedder.encode_images([contents[entry] for entry in paths(index)])
    np.testing.assert_allclose(index.vectors, expected, atol=1e-5)
    assert index.report == IndexReport(added=3, updated=0, removed=0, unchanged=0, unusable=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [place.name, f"{place.name}.fgclip2_index"]
    assert ImageIndex.build(place, embedder).report == IndexReport(0, 0, 0, 3, 0)

    index = ImageIndex.load(place)
    (first, *_) = index.search(expected[1])
    assert (first.path, first.id) == (place / paths(index)[1], paths(index)[1])
    found = index.search(contents[ids[0]], embedder)  # an image is not among its own answers
    assert sorted(hit.id for hit in found) == sorted(ids[1:])
    reranked = index.search("一只猫 on a wall", embedder, top_k=3, rerank="phrases")
    assert sorted(hit.id for hit in reranked) == sorted(ids)
    assert all(hit.phrases for hit in reranked)


@pytest.mark.parametrize("kind", WRITERS)
def test_only_what_has_changed_is_embedded_again(tmp_path, embedder, kind):
    place = WRITERS[kind](tmp_path)
    before = ImageIndex.build(place, embedder)
    if kind == "parquet":
        write_parquet(place, [ROWS[1], {**ROWS[0], "image": {"bytes": picture(7), "path": None}}])
    else:
        members = dict(list(PICTURES.items())[:1])
        ({"zip": write_zip, "tar": write_tar}[kind])(place, {**members, "a/dog.png": picture(7, (80, 80))})
    index = ImageIndex.build(place, embedder)
    assert index.report == IndexReport(added=0, updated=1, removed=1, unchanged=1, unusable=0)
    assert not np.allclose(before.vectors[: len(index)], index.vectors)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_lead_outside_are_left_out(tmp_path, embedder, kind, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 50_000)
    bad = {"../x.png": picture(1), "/etc/x.png": picture(1), "a/../../y.png": picture(1), "large.png": bytes(50_001)}
    hidden = {".x.png": b"", "__MACOSX/a.png": b"", "notes.txt": b"", "broken.png": b"no picture"}
    place = {"zip": write_zip, "tar": write_tar}[kind](tmp_path / f"a.{kind}", {**PICTURES, **bad, **hidden})
    if kind == "tar":
        with tarfile.open(place, "a") as archive:
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    index = ImageIndex.build(place, embedder)
    assert paths(index) == sorted(PICTURES)
    reasons = unusable(index)
    assert reasons.pop("large.png") == "it unpacks to 50,001 bytes, more than 50,000"
    assert reasons.pop("broken.png") == "10 bytes of no known image format"
    if kind == "tar":
        assert reasons.pop("link.png").startswith("not a regular file")
    assert reasons == dict.fromkeys(["../x.png", "/etc/x.png", "a/../../y.png"], "its name leads out of the archive")
    assert index.left_out == {".txt": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == [place.name, f"{place.name}.fgclip2_index"]


def test_a_member_of_a_tar_archive_may_have_any_time(tmp_path, embedder):
    place = tmp_path / "a.tar"
    with tarfile.open(place, "w", format=tarfile.PAX_FORMAT) as archive:
        for number, mtime in enumerate(("1e300", "inf", "nan", "-1e300", "1.5")):
            info = tarfile.TarInfo(f"{number}.png")
            info.size, info.pax_headers = len(PICTURES["黑猫.png"]), {"mtime": mtime}
            archive.addfile(info, io.BytesIO(PICTURES["黑猫.png"]))
    index = ImageIndex.build(place, embedder)
    assert [file.mtime_ns for file in index.files] == [0, 0, 0, 0, 1_500_000_000]
    assert ImageIndex.build(place, embedder).report.unchanged == 5


def test_a_member_that_lies_about_its_size_or_content_is_unusable(tmp_path, embedder):
    place = write_zip(tmp_path / "a.zip", PICTURES)
    content = bytearray(place.read_bytes())
    start = content.index(b"PK\x01\x02")  # of the directory, whose first entry is 黑猫.png
    (size,) = struct.unpack_from("<I", content, start + 24)
    struct.pack_into("<I", content, start + 24, size // 2)
    place.write_bytes(content)
    assert "黑猫.png" in unusable(ImageIndex.build(place, embedder))


def test_names_of_windows_in_china_are_read(tmp_path, embedder):
    place = write_zip(tmp_path / "a.zip", {"XXXX.png": picture(0)})
    place.write_bytes(place.read_bytes().replace(b"XXXX", "黑猫".encode("gb18030")))
    assert paths(ImageIndex.build(place, embedder)) == ["黑猫.png"]


def test_sources_that_can_not_be_used_are_named(tmp_path, embedder):
    for name, content, message in [
        ("a.zip", b"no archive", "is not a zip archive, or is damaged"),
        ("a.tar", b"no archive", "is not a tar archive, or is damaged"),
        ("a.parquet", b"no table", "is not a Parquet file, or is damaged"),
        ("a.tar.gz", b"", "is compressed as a whole"),
        ("a.rar", b"", "none that an index is made of: give a folder of images, a .zip"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            ImageIndex.build(tmp_path / name, embedder)
    with pytest.raises(ValueError, match="no such folder or file"):
        ImageIndex.build(tmp_path / "no.zip", embedder)
    with pytest.raises(ValueError, match=r"is no table: leave out `id_column`"):
        ImageIndex.build(write_zip(tmp_path / "b.zip", {}), embedder, id_column="a")


def test_an_index_is_of_one_source(tmp_path, embedder):
    place = WRITERS["zip"](tmp_path)
    ImageIndex.build(place, embedder, tmp_path / "index")
    folder = tmp_path / "photos"
    folder.mkdir()
    for use in (
        lambda: ImageIndex.build(folder, embedder, tmp_path / "index"),
        lambda: ImageIndex.load(folder, tmp_path / "index"),
    ):
        with pytest.raises(IncompatibleIndexError, match="is of a source of kind 'zip', not of kind 'folder'"):
            use()
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert manifest["format"] == 3  # which earlier releases refuse, for to them it would be a folder
    manifest["format"] = 2
    manifest["digest"] = store.digest_of(manifest)
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IncompatibleIndexError, match="its format is not as this release writes it"):
        ImageIndex.load(place, tmp_path / "index")


# Tables -----------------------------------------------------------------------------------------------------------


def test_columns_of_a_table_are_ids_and_metadata(tmp_path, embedder):
    rows = [
        {"sku": 7, "photo": PICTURES["黑猫.png"], "year": 2020, "seen": None},
        {"sku": 8, "photo": None, "year": 2021, "seen": 1.5},
    ]
    place = write_parquet(tmp_path / "a.parquet", rows)
    index = ImageIndex.build(place, embedder, id_column="sku")
    assert paths(index) == ["7"]
    assert unusable(index) == {"8": "it has no image"}
    assert index.get("7").metadata == {"year": 2020, "seen": None}
    assert index.columns == {"id": str, "path": str, "year": int, "seen": str}
    assert ImageIndex.build(place, embedder).report.unchanged == 1  # by the columns that the index was made with
    with pytest.raises(IncompatibleIndexError, match=r"id_column 'sku'.*not of.*id_column 'year'"):
        ImageIndex.build(place, embedder, id_column="year")
    with pytest.raises(ValueError, match="has no column 'no' for ids; it has sku, photo, year, seen"):
        ImageIndex.build(place, embedder, tmp_path / "other", id_column="no")
    with pytest.raises(ValueError, match=r"the column 'year' of encoded images.*give one of photo as `image_column`"):
        ImageIndex.build(place, embedder, tmp_path / "other", image_column="year")
    write_parquet(tmp_path / "twice.parquet", [ROWS[0], ROWS[0]])
    with pytest.raises(ValueError, match="row 1: id is '货号-0', which an earlier row has too"):
        ImageIndex.build(tmp_path / "twice.parquet", embedder)


def test_a_column_id_is_left_out_where_another_has_the_ids(tmp_path, embedder):
    rows = [{"id": number, "name": f"n{number}", "image": row["image"]} for number, row in enumerate(ROWS)]
    index = ImageIndex.build(write_parquet(tmp_path / "a.parquet", rows), embedder, id_column="name")
    assert paths(index) == ["n0", "n1", "n2"]
    assert index.columns == {"id": str, "path": str}
    assert index.matches("id = 'n1'").tolist() == [False, True, False]


@pytest.mark.parametrize("kind", ["parquet", "dataset"])
def test_rows_without_ids_are_counted_without_reading_their_images(tmp_path, kind, monkeypatch):
    rows = [{"image": row["image"]} for row in ROWS]
    if kind == "parquet":
        source = tables.ParquetSource(write_parquet(tmp_path / "a.parquet", rows))
    else:
        datasets = pytest.importorskip("datasets")
        features = datasets.Features({"image": datasets.Image()})
        source = tables.DatasetSource(datasets.Dataset.from_list(rows, features=features), tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(source, "_batches", None)
        assert source._rows == {"0": 0, "1": 1, "2": 2}
    assert source.image("2")() == PICTURES["旅行/长城.PNG"]
    with pytest.raises(ValueError, match="has no row '3' any more"):
        source.image("3")()


def test_a_dataset_is_indexed_like_its_table(tmp_path, embedder):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"id": datasets.Value("string"), "image": datasets.Image(), "year": datasets.Value("int64")}
    )
    rows = [{"id": row["id"], "image": row["image"], "year": row["year"]} for row in ROWS]
    dataset = datasets.Dataset.from_list(rows, features=features)
    with pytest.raises(ValueError, match="the index of a dataset needs a place"):
        ImageIndex.build(dataset, embedder)
    ImageIndex.build(dataset, embedder, tmp_path / "索引")
    index = ImageIndex.load(dataset, tmp_path / "索引")
    table = ImageIndex.build(WRITERS["parquet"](tmp_path), embedder)
    assert paths(index) == paths(table)
    np.testing.assert_allclose(index.vectors, table.vectors, atol=1e-5)
    hits = index.search("a cat", embedder, top_k=2, rerank="phrases", where="year >= 2020")
    assert sorted(hit.id for hit in hits) == ["货号-1", "货号-2"]
    assert ImageIndex.build(dataset.select([0, 2]), embedder, tmp_path / "索引").report.removed == 1


def test_without_pyarrow_the_extra_is_named(tmp_path, embedder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(ImportError, match=r'pip install "fgclip2\[search\]"'):
        ImageIndex.build(tmp_path / "a.parquet", embedder)


# Metadata and filters ---------------------------------------------------------------------------------------------


def test_metadata_of_a_file_follow_the_images(tmp_path, embedder, monkeypatch):
    folder = tmp_path / "照片"
    for name, content in PICTURES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    ImageIndex.build(folder, embedder)
    table = tmp_path / "元数据.csv"
    table.write_text("path,camera,year\na/dog.png,X,2021\n黑猫.png,Y,2019\ngone.png,Z,1\n", encoding="utf-8")
    monkeypatch.setattr(embedder, "stream_images", None)  # for metadata nothing is embedded
    with pytest.warns(UserWarning, match=r"1 of 3 records of metadata are of images that are not there.*'gone.png'"):
        index = ImageIndex.build(folder, embedder, metadata=table)
    monkeypatch.undo()
    assert index.get("a/dog.png").metadata == {"camera": "X", "year": 2021}
    blocks = sorted((folder / ".fgclip2_index").glob("block-*"))
    (folder / "新.png").write_bytes(picture(9))
    index = ImageIndex.build(folder, embedder)  # they stay without the file
    assert index.get("a/dog.png").metadata == {"camera": "X", "year": 2021}
    assert index.get("新.png").metadata == {}
    assert blocks[0].exists()
    (folder / "a/dog.png").write_bytes(picture(10, (120, 60)))
    index = ImageIndex.build(folder, embedder)
    assert index.get("a/dog.png").metadata == {"camera": "X", "year": 2021}  # by the path
    assert json.loads((folder / ".fgclip2_index/manifest.json").read_text())["format"] == 2

    query = index.vectors[0]
    assert [hit.id for hit in index.search(query, where="camera = 'Y'")] == ["黑猫.png"]
    assert {hit.id for hit in index.search(query, where="year is null")} == {"新.png", "旅行/长城.PNG"}
    assert index.search(query, where="path like '%长城%'")[0].metadata == {}
    assert index.search(query, where="year > 3000") == []
    assert [hit.metadata["year"] for hit in index.search(query, where="year > 2020")] == [2021]
    with pytest.raises(ValueError, match=r"names the column 'width'; there are id, path, camera, year"):
        index.search(query, where="width > 3")
    table.write_text("path,year\nx/y.png,1\n")
    with pytest.raises(ValueError, match=r"1 of 1 records.*'x/y.png': give paths below"):
        ImageIndex.build(folder, embedder, metadata=table)
    with pytest.raises(ValueError, match="has metadata itself, in its columns: leave out `metadata`"):
        ImageIndex.build(WRITERS["parquet"](tmp_path), embedder, metadata=table)


def test_damaged_metadata_cost_their_block_only(tmp_path, embedder, monkeypatch):
    monkeypatch.setattr(store, "ROWS_PER_BLOCK", 2)
    place = WRITERS["parquet"](tmp_path)
    index_folder = Path(f"{place}.fgclip2_index")
    ImageIndex.build(place, embedder)
    block = next(path for path in index_folder.glob("block-*") if len(load_file(path)["vectors"]) == 1)
    content = block.read_bytes()
    assert b'"year"' in content
    block.write_bytes(content.replace(b'"year"', b'"yeer"'))
    with pytest.warns(UserWarning, match="has damaged blocks.*their 1 images"):
        index = ImageIndex.load(place)
    assert len(index) == 2
    with pytest.warns(UserWarning, match="has damaged blocks"):
        assert ImageIndex.build(place, embedder).report.added == 1


# Own ids ----------------------------------------------------------------------------------------------------------


def test_own_ids_are_added_replaced_removed_and_got(tmp_path, embedder):
    index = ImageIndex.create(tmp_path / "商店", embedder, dense="int8")
    assert len(index) == 0
    contents = list(PICTURES.values())
    report = index.add(["甲", "../乙"], contents[:2], metadata=[{"price": 3}, {"price": 4.5}], embedder=embedder)
    assert report == IndexReport(added=2, updated=0, removed=0, unchanged=0, unusable=0)
    vector = embedder.encode_images([contents[2]])[0]
    report = index.add(["丙"], vectors=3 * vector[None])
    assert report == IndexReport(added=1, updated=0, removed=0, unchanged=2, unusable=0)
    np.testing.assert_allclose(index.get("丙").vector, vector, atol=1e-5)
    assert index.get("甲").metadata == {"price": 3}

    index = ImageIndex.load(tmp_path / "商店")
    assert paths(index) == sorted(["甲", "../乙", "丙"])
    assert [hit.id for hit in index.search(vector, where="price > 3.5")] == ["../乙"]
    reranked = index.search("一只猫", embedder, rerank="phrases", where="price > 0")  # by the dense maps
    assert sorted(hit.id for hit in reranked) == ["../乙", "甲"]
    with pytest.warns(UserWarning, match="the image of '丙' is not kept"):
        index.search("一只猫", embedder, rerank="phrases")
    assert index.add(["甲"], [contents[1]], embedder=embedder).updated == 1
    assert index.get("甲").metadata == {}
    assert index.remove(["../乙"]).removed == 1
    assert paths(index) == paths(ImageIndex.load(tmp_path / "商店")) == ["丙", "甲"]
    with pytest.raises(KeyError, match=r"'../乙' is not in the index"):
        index.remove(["../乙"])


def test_two_that_add_lose_nothing(tmp_path, embedder):
    first = ImageIndex.create(tmp_path / "a", embedder)
    second = ImageIndex.load(tmp_path / "a")
    vectors = embedder.encode_images(list(PICTURES.values()))
    first.add(["1"], vectors=vectors[:1])
    second.add(["2", "3"], vectors=vectors[1:])
    assert paths(second) == ["1", "2", "3"]
    first.remove(["1"])
    assert paths(first) == ["2", "3"]


def test_wrong_additions_are_named(tmp_path, embedder):
    index = ImageIndex.create(tmp_path / "a", embedder)
    vectors = embedder.encode_images([picture(1)])
    for arguments, message in [
        ({"ids": ["a"]}, "add takes one of `images` and `vectors`"),
        ({"ids": ["a"], "images": [picture(1)]}, "images need an embedder"),
        ({"ids": "a", "vectors": vectors}, "ids must be a list of texts, got the text 'a'"),
        ({"ids": ["a", "a"], "vectors": vectors}, r"ids\[1\] is 'a', which stands among them before"),
        ({"ids": [3], "vectors": vectors}, r"ids\[0\] must be a text that is not empty, got 3"),
        ({"ids": ["a", "b"], "vectors": vectors}, "vectors has 1 entries for 2 ids"),
        ({"ids": ["a"], "vectors": vectors[:, :3]}, "the vector of 'a' must be 32 finite values"),
        ({"ids": ["a"], "vectors": np.nan * vectors}, "the vector of 'a' must be 32 finite values"),
        ({"ids": ["a"], "vectors": vectors, "metadata": [{"x": [1]}]}, r"metadata of 'a': x is \[1\]; allowed are"),
        (
            {"ids": ["a"], "vectors": vectors, "boxes": [[]]},
            "boxes are of images in an index whose regions are 'given'",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            index.add(**arguments)
    index.add(["a"], vectors=vectors, metadata=[{"x": 1}])
    with pytest.raises(ValueError, match="'b': x is 'y', where 'a' has whole numbers"):
        index.add(["b"], vectors=vectors, metadata=[{"x": "y"}])
    assert paths(ImageIndex.load(tmp_path / "a")) == ["a"]
    broken = index.add(["b"], [b"no picture"], embedder=embedder)
    assert (broken.unusable, unusable(index)["b"]) == (1, "10 bytes of no known image format")
    with pytest.raises(ValueError, match="is an index of own ids, which is not brought up to date"):
        ImageIndex.build(tmp_path / "a", embedder)
    with pytest.raises(ValueError, match=r"has an index: read it by ImageIndex.load"):
        ImageIndex.create(tmp_path / "a", embedder)
    folder = ImageIndex.build(write_zip(tmp_path / "b.zip", PICTURES), embedder)
    with pytest.raises(ValueError, match=r"this index follows .*b.zip: change that"):
        folder.add(["a"], vectors=vectors)


# Regions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dense", [None, "int8"])
def test_regions_of_a_grid_are_found_with_their_boxes(tmp_path, embedder, dense):
    place = WRITERS["zip"](tmp_path)
    index = ImageIndex.build(place, embedder, regions="grid", dense=dense)
    assert index.regions == "grid"
    assert index.region_count == 3 * 25
    entry = index.get("a/dog.png")
    assert entry.regions.image_size == (96, 64)
    assert entry.regions.boxes[[0, 8]].tolist() == [[0, 0, 48, 32], [48, 32, 96, 64]]
    expected = embedder.encode_regions(PICTURES["a/dog.png"], entry.regions.boxes.tolist())
    np.testing.assert_allclose(entry.regions.vectors, expected, atol=1e-5)
    np.testing.assert_allclose(entry.vector, embedder.encode_images(PICTURES["a/dog.png"]), atol=1e-5)

    index = ImageIndex.load(place)
    query = embedder.encode_texts("红色的门", role="region_phrase")
    cosines = {
        (file.path, tuple(box)): float(vector @ query)
        for file in index.files
        for box, vector in zip(
            index.extras[file].regions.boxes.tolist(), index.extras[file].regions.vectors, strict=True
        )
    }
    best = sorted(cosines, key=cosines.get, reverse=True)
    hits = index.search("红色的门", embedder, top_k=40, regions="all")
    assert [hit.score for hit in hits] == pytest.approx([cosines[key] for key in best[:40]], abs=1e-5)
    assert (hits[0].id, hits[0].box) == best[0]
    hits = index.search("红色的门", embedder, regions="best")
    assert [hit.id for hit in hits] == list(dict.fromkeys(entry for entry, _ in best))
    assert [hit.id for hit in index.search("红色的门", embedder, regions="best", where="id like '%dog%'")] == [
        "a/dog.png"
    ]
    assert index.search(expected[3], regions="all", top_k=1)[0].box == tuple(entry.regions.boxes[3].tolist())
    assert len(index.search("红色的门", embedder, top_k=1, where="width = 96 and height < 65")) == 1
    assert ImageIndex.build(place, embedder).report.unchanged == 3
    assert ImageIndex.build(place, embedder, regions="none").region_count == 0


def test_given_regions_follow_their_boxes(tmp_path, embedder):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(picture(3))
    records = tmp_path / "records.jsonl"
    records.write_text('{"path": "a.png", "boxes": [[0, 0, 32, 32], [10, 10, 50, 40]]}\n')
    index = ImageIndex.build(folder, embedder, regions="given", metadata=records)
    assert [len(index.get(name).regions.boxes) for name in ("a.png", "b.png")] == [2, 0]
    assert [hit.id for hit in index.search("a dog", embedder, regions="all")] == ["a.png", "a.png"]
    records.write_text('{"path": "b.png", "boxes": [[0, 0, 32, 32], [500, 500, 600, 600]]}\n')
    index = ImageIndex.build(folder, embedder, metadata=records)
    assert index.get("a.png").regions.boxes.shape == (0, 4)
    assert index.get("b.png").regions is None  # its second box is outside
    records.write_text('{"path": "b.png", "boxes": [[0, 0, 32, 32]]}\n')
    index = ImageIndex.build(folder, embedder, metadata=records)
    assert index.get("b.png").regions.boxes.tolist() == [[0, 0, 32, 32]]
    assert ImageIndex.build(folder, embedder).report.unchanged == 2

    own = ImageIndex.create(tmp_path / "own", embedder, regions="given")
    own.add(["x"], [picture(3)], boxes=[[[0, 0, 32, 32]]], embedder=embedder)
    np.testing.assert_allclose(own.get("x").regions.vectors, index.get("b.png").regions.vectors, atol=1e-5)


def test_regions_that_can_not_be_searched_are_named(tmp_path, embedder, monkeypatch):
    place = WRITERS["zip"](tmp_path)
    index = ImageIndex.build(place, embedder)
    with pytest.raises(ValueError, match=r"has no regions: make them by `fgclip2 index --regions grid`"):
        index.search("a", embedder, regions="best")
    with pytest.raises(ValueError, match=r"regions='given'.*needs boxes: the field `boxes`"):
        ImageIndex.build(place, embedder, regions="given")
    index = ImageIndex.build(place, embedder, regions="grid")
    for arguments, message in [
        ({"query": "a", "regions": "each"}, "regions must be None, 'best' or 'all', got 'each'"),
        ({"query": "a", "regions": "best", "rerank": "phrases"}, "rerank puts whole images in a new order"),
        ({"image": picture(1), "regions": "best"}, "regions are searched by texts or by vectors of regions"),
    ]:
        with pytest.raises(ValueError, match=message):
            index.search(embedder=embedder, **arguments)
    monkeypatch.setitem(embedder.lacks, "regions", "no regions, it embeds whole images")
    shutil.rmtree(f"{place}.fgclip2_index")
    with pytest.raises(ValueError, match="has no regions, it embeds whole images"):
        ImageIndex.build(place, embedder, regions="grid")
