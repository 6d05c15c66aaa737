"""One tar shard: what its members mean, whole and broken in every way, and writing them."""

import io
import json
import tarfile

import pytest
from PIL import Image

from fgclip2.data.readers import read_finehard
from fgclip2.data.records import InvalidRecordError
from fgclip2.data.shard_files import BrokenShardError, ShardReader, count_shard, list_shards
from fgclip2.data.shard_writing import write_shards
from tests.data.samples import LONG, SHORT, item, items, region, write_json


def png(color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, members: dict) -> str:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            data = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return str(path)


def read_all(path, language=None):
    with ShardReader(str(path), language) as reader:
        return [reader.record(sample) for sample in reader.samples()]


@pytest.fixture
def dataset(tmp_path, images):
    return read_finehard(write_json(tmp_path / "a.json", items(4)), images)


def test_members_of_one_key_are_a_sample(tmp_path):
    members = {
        "a/000.png": png(),
        "a/000.json": item("zh", f_path=None),
        "b/000.JPG": png(),
        "b/000.txt": b"a cat ",
        "b/000.cls": b"5",
    }
    path = write_tar(tmp_path / "a.tar", members)
    first, second = read_all(path)
    assert (first.short_caption, first.long_caption, first.language) == (SHORT["zh"], LONG["zh"], "zh")
    assert len(first.regions[0].hard_negatives) == 10
    assert first.image == png()
    assert first.source == f"{path}:a/000"
    assert (second.short_caption, second.long_caption, second.language) == ("a cat", None, "en")
    assert count_shard(path).samples == 2
    assert [record.language for record in read_all(path, "en")] == ["en", "en"]


def test_shards_of_img2dataset(tmp_path):
    """It repeats the text as `caption`, which is not a long one; a longer one is."""
    members = {
        "0.jpg": png(),
        "0.txt": "黑猫".encode(),
        "0.json": {"caption": "黑猫", "url": "https://example.com", "width": 8},
        "1.jpg": png(),
        "1.txt": "黑猫".encode(),
        "1.json": {"caption": "一只黑猫坐在窗边", "short_caption": None},
        "2.jpg": png(),
        "2.txt": b"cat",
        "2.json": {"short_caption": "a cat"},
    }
    records = read_all(write_tar(tmp_path / "a.tar", members))
    assert [(record.short_caption, record.long_caption) for record in records] == [
        ("黑猫", None),
        ("黑猫", "一只黑猫坐在窗边"),
        ("a cat", None),
    ]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.txt": b"cat"}, r"a\.tar:0: the number of images is 0 in \['\.txt'\]; it must be 1, beside"),
        ({"0.png": png(), "0.jpg": png(), "0.txt": b"cat"}, "the number of images is 2"),
        ({"0.png": png()}, r"a\.tar:0: short_caption or caption is missing"),
        ({"0.png": png(), "0.txt": b" "}, r"a\.tar:0: short_caption is ''; it must be a text"),
        ({"0.png": png(), "0.txt": "黑猫".encode("gbk")}, r"a\.tar:0: 0\.txt is malformed \('utf-8' codec"),
        ({"0.png": png(), "0.json": b"{"}, r"a\.tar:0: 0\.json is malformed"),
        ({"0.png": png(), "0.json": [1]}, r"a\.tar:0\.json: the record is \[1\]; it must be one JSON object"),
        ({"0.png": png(), "0.json": item(bbox_info=[region(bbox=[0, 0, 0, 1])])}, r"a\.tar:0: bbox_info\[0\]\.bbox is"),
    ],
)
def test_wrong_samples(tmp_path, members, message):
    path = write_tar(tmp_path / "a.tar", {**members, "1.png": png(), "1.txt": "猫".encode()})
    with ShardReader(path) as reader:
        samples = reader.samples()
        with pytest.raises(InvalidRecordError, match=message):
            reader.record(next(samples))
        assert reader.record(next(samples)).short_caption == "猫"  # the next one is not touched


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, "/etc/passwd"
    return header


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_special_files_are_refused(tmp_path, kind):
    path = write_tar(tmp_path / "a.tar", {"0.png": special("0.png", kind), "0.txt": b"cat"})
    with pytest.raises(BrokenShardError, match=r"a\.tar: the shard is holding a link or special file, member '0\.png'"):
        count_shard(path)


def test_nothing_is_written_whatever_the_names(tmp_path, monkeypatch):
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    members = {"../../0.png": png(), "../../0.txt": b"cat", "/tmp/1.png": png(), "/tmp/1.txt": "狗".encode()}
    path = write_tar(tmp_path / "a.tar", {"folder": special("folder", tarfile.DIRTYPE), **members})
    assert [record.short_caption for record in read_all(path)] == ["cat", "狗"]
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["a.tar", "inside"]


def test_twice_the_same_member(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("0.png"))
    with pytest.raises(BrokenShardError, match=r"a\.tar: the shard is holding member '0\.png' twice"):
        count_shard(str(path))


def test_shards_cut_off_anywhere_are_errors_that_name_the_member(tmp_path, dataset):
    """Also between members, where `tarfile` sees the end of a whole archive."""
    (shard,) = write_shards(dataset, tmp_path / "shards")
    content = (tmp_path / "shards/000000.tar").read_bytes()
    with tarfile.open(shard.path) as tar:
        end = tar.getmembers()[-1]
        size = end.offset_data + -(-end.size // 512) * 512
        members = {member.offset_data + 1: member.name for member in tar.getmembers()}
    cut = tmp_path / "cut.tar"
    for length in range(0, size + 1, 256):
        cut.write_bytes(content[:length])
        with pytest.raises(BrokenShardError, match=r"cut\.tar: the shard is "):
            count_shard(str(cut))
    for length, name in members.items():
        cut.write_bytes(content[:length])
        with pytest.raises(BrokenShardError, match=f"cut off within member '{name}'"):
            count_shard(str(cut))
    cut.write_bytes(content[: size + 512])  # one of the two blocks that end an archive is enough
    assert count_shard(str(cut)).samples == 4


def test_shards_corrupt_anywhere_are_errors(tmp_path, dataset):
    (shard,) = write_shards(dataset, tmp_path / "shards")
    content = bytearray((tmp_path / "shards/000000.tar").read_bytes())
    with tarfile.open(shard.path) as tar:
        offsets = [member.offset for member in tar.getmembers()]
    broken = tmp_path / "broken.tar"
    for offset in offsets:
        damaged = content.copy()
        damaged[offset : offset + 8] = b"\xff" * 8
        broken.write_bytes(damaged)
        with pytest.raises(BrokenShardError, match=r"broken\.tar: the shard is (cut off or corrupt after|no tar file)"):
            count_shard(str(broken))


def test_no_tar_at_all(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 1000)
    (tmp_path / "leer.tar").write_bytes(b"")
    with tarfile.open(tmp_path / "b.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("0.png"))
    for name in ("a.tar", "leer.tar", "b.tar"):
        with pytest.raises(BrokenShardError, match=rf"{name}: the shard is no tar file.*uncompressed tar"):
            count_shard(str(tmp_path / name))
    with pytest.raises(ValueError, match=r"没有\.tar: no such shard"):
        list_shards(str(tmp_path / "没有.tar"))
    (tmp_path / "空").mkdir()
    with pytest.raises(ValueError, match=r"shards must be a folder with .*; there is no shard"):
        list_shards(tmp_path / "空")


@pytest.mark.parametrize(
    "index",
    [
        *("{", "[]", '{"shards": 5}', '{"shards": [5]}', '{"shards": [{"name": "a.tar"}]}'),
        *(
            json.dumps({"shards": [{"name": name, "samples": 1}]})
            for name in ("../a.tar", "/a.tar", "a", 5, "b\\a.tar")
        ),
        *(json.dumps({"shards": [{"name": "a.tar", "samples": samples}]}) for samples in (-1, 1.5, "1", True, None)),
    ],
)
def test_wrong_indexes(tmp_path, index):
    (tmp_path / "index.json").write_text(index)
    with pytest.raises(ValueError, match=r"index\.json"):
        list_shards(tmp_path)


def test_addresses_are_opened_through_fsspec(tmp_path, dataset):
    (shard,) = write_shards(dataset, tmp_path / "shards")
    address = (tmp_path / "shards").as_uri()
    (found,) = list_shards(f"{address}/index.json")
    assert found.path == f"{address}/000000.tar"
    assert [record.short_caption for record in read_all(found.path)] == [each.short_caption for each in dataset]
    assert list_shards([found.path])[0].samples == shard.samples


@pytest.mark.parametrize(
    "languages", [{"en": 1}, {"en": 1, "zh": 2}, {"en": -1, "zh": 3}, {"en": 1.0, "zh": 1}, [1, 1], "en"]
)
def test_wrong_numbers_of_languages_in_an_index(tmp_path, languages):
    rows = [{"name": "a.tar", "samples": 2, "languages": languages}]
    (tmp_path / "index.json").write_text(json.dumps({"shards": rows}))
    with pytest.raises(
        ValueError, match=r"languages of a\.tar must be numbers of en and zh that make up its samples, 2"
    ):
        list_shards(tmp_path)


def test_links_out_of_a_folder_of_shards_are_refused(tmp_path, dataset):
    (shard,) = write_shards(dataset, tmp_path / "elsewhere")
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "000000.tar").symlink_to(shard.path)
    for place in (folder, folder / "index.json"):
        with pytest.raises(ValueError, match=r"000000\.tar is a link that leads out of .*shards: set follow_links"):
            list_shards(place)
        assert list_shards(place, follow_links=True)[0].samples == 4
        (folder / "index.json").write_bytes((tmp_path / "elsewhere" / "index.json").read_bytes())
    assert list_shards(folder / "000000.tar")[0].samples == 4  # named by the user
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert list_shards(tmp_path / "link")[0].samples == 4  # the folder itself


def test_texts_of_a_sample_that_are_too_long_are_its_error(tmp_path, monkeypatch):
    monkeypatch.setattr("fgclip2.data.shard_files.MAX_RECORD_BYTES", 100)
    members = {
        "0.png": png(),
        "0.txt": b"x" * 101,
        "1.png": png(),
        "1.json": b" " * 101,
        "2.png": png(),
        "2.txt": b"cat",
    }
    with ShardReader(write_tar(tmp_path / "a.tar", members)) as reader:
        first, second, third = reader.samples()
        for sample in (first, second):
            with pytest.raises(InvalidRecordError, match=r"is 101 bytes long; it must be at most 100 bytes long"):
                reader.record(sample)
            assert reader.language(sample) == "en"
        assert reader.record(third).short_caption == "cat"
