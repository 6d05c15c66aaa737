"""Images in folders and archives, found by the names that published files give them."""

import stat
import zipfile

import pytest
from PIL import Image

from fgclip2.benchmarks import image_files
from fgclip2.benchmarks.image_files import ImageFile, ImageStore
from fgclip2.errors import UnreadableImageError


def write_zip(path, members: dict[str, bytes]):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_the_longest_end_of_a_name_counts(tmp_path):
    (tmp_path / "测试").mkdir()
    (tmp_path / "测试" / "1.jpg").write_bytes(b"deep")
    (tmp_path / "1.jpg").write_bytes(b"flat")
    store = ImageStore(tmp_path)
    assert store.find("data/LIT-CN/测试/1.jpg").read() == b"deep"
    assert store.find("/home/someone/data/1.jpg").read() == b"flat"
    assert store.find(r"C:\data\测试\1.jpg").read() == b"deep"
    assert store.find("2.jpg") is None


@pytest.mark.parametrize("place", ["images.zip", "images/images_1.zip"])
@pytest.mark.parametrize("prefix", ["", "images/", "a/b/"])
def test_members_of_archives_are_found_and_read(tmp_path, place, prefix):
    write_zip(tmp_path / place, {f"{prefix}000010.jpg": b"ten", f"{prefix}猫.jpg": "猫".encode()})
    write_zip(tmp_path / "images_2.zip", {"000011.jpg": b"eleven"})
    store = ImageStore(tmp_path)
    image = store.find("images/000010.jpg")
    assert image.read() == b"ten"
    assert str(image) == f"{tmp_path / place}:{prefix}000010.jpg"
    assert store.find("猫.jpg").read() == "猫".encode()
    assert store.find("images/000011.jpg").read() == b"eleven"
    assert ImageStore(tmp_path / place).find("000010.jpg") == image


def test_a_name_that_fits_two_members_is_an_error(tmp_path):
    write_zip(tmp_path / "a.zip", {"train/1.jpg": b"a", "val/1.jpg": b"b"})
    store = ImageStore(tmp_path)
    assert store.find("val/1.jpg").read() == b"b"
    with pytest.raises(ValueError, match=r"'1\.jpg' may be .*train/1\.jpg or .*val/1\.jpg"):
        store.find("1.jpg")


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "a/../../secret.jpg", r"a\..\..\secret.jpg", "", "/", "https://a/1.jpg"]
)
def test_no_name_leaves_the_folder(tmp_path, name):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"must be a path without '\.\.'"):
        ImageStore(tmp_path / "images").find(name)


def test_members_that_would_leave_the_folder_are_not_found(tmp_path):
    write_zip(tmp_path / "images.zip", {"../../1.jpg": b"outside", "/2.jpg": b"rooted"})
    store = ImageStore(tmp_path)
    assert store.find("1.jpg") is None
    assert store.find("2.jpg").read() == b"rooted"  # a name within the archive; nothing is ever unpacked


class PlainNames(zipfile.ZipInfo):
    """A member whose name is in bytes of any encoding, without the flag that says UTF-8, as older tools write it."""

    def __init__(self, name: bytes):
        super().__init__(repr(name))
        self.name = name

    def _encodeFilenameFlags(self):  # noqa: N802
        return self.name, 0


def write_plain_zip(path, members: dict[bytes, bytes]):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(PlainNames(name), content)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
@pytest.mark.parametrize("separator", ["/", "\\"])
def test_archives_of_windows_and_macos(tmp_path, encoding, separator):
    """Names without a word of their encoding, parts by a backslash; the second byte of 誠 and 乗 in GBK is one."""
    names = ["images/0.jpg", "images/猫/黑猫.jpg", "images/誠乗.jpg", "ascii.jpg"]
    path = write_plain_zip(
        tmp_path / "图.zip", {each.replace("/", separator).encode(encoding): each.encode() for each in names}
    )
    store = ImageStore(tmp_path)
    for name in names:
        image = store.find(f"data/{name}")
        assert image.read() == name.encode()
        assert str(image) == f"{path}:{name}"
    assert store.find("黑猫.jpg") == store.find("猫/黑猫.jpg")
    assert set(image_files.archive_members(path)) == set(names)


def test_european_names_of_older_archives_stay_european(tmp_path):
    """Each of these is well-formed GBK too: m攂el.jpg."""
    names = ["möbel.jpg", "Größe.jpg", "garçon.jpg", "Übung.jpg", "señorita/cañón.jpg"]
    path = write_plain_zip(tmp_path / "a.zip", {each.encode("cp437"): each.encode() for each in names})
    assert all(each.encode("cp437").decode("gbk") for each in names[:4])
    assert set(image_files.archive_members(path)) == set(names)


def test_names_in_no_encoding_that_is_known_stay(tmp_path):
    write_plain_zip(tmp_path / "a.zip", {b"\xff.jpg": b"1"})
    assert ImageStore(tmp_path).find("\xa0.jpg").read() == b"1"  # as CP437, which the format names


@pytest.mark.parametrize("name", ["..\\..\\猫.jpg", "a\\..\\猫.jpg", "../猫.jpg", "猫/..\\猫.jpg"])
@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
def test_no_form_of_a_member_leaves_the_folder(tmp_path, name, encoding):
    path = write_plain_zip(tmp_path / "images.zip", {name.encode(encoding): b"outside"})
    assert ImageStore(tmp_path).find("猫.jpg") is None
    assert image_files.archive_members(path) == {}


def test_names_in_other_capitals_are_not_found_but_named(tmp_path):
    (tmp_path / "images/Val").mkdir(parents=True)
    (tmp_path / "images/Val/猫A.JPG").write_bytes(b"")
    path = write_zip(tmp_path / "more.zip", {"Deep/0.JPG": b""})
    store = ImageStore(tmp_path)
    assert store.find("val/猫a.jpg") is store.find("0.jpg") is None
    assert store.find_other_case("/data/val/猫a.jpg") == "images/Val/猫A.JPG"
    assert store.find_other_case("deep/0.jpg") == store.find_other_case("other/0.jpg") == f"{path}:Deep/0.JPG"
    assert store.find_other_case("猫a.jpg/1.jpg") is store.find_other_case("val") is None
    assert ImageStore(path).find_other_case("0.jpg") == f"{path}:Deep/0.JPG"


def test_sizes_by_headers_of_cut_off_images(tmp_path):
    Image.effect_noise((300, 200), 90).save(tmp_path / "1.jpg")
    content = (tmp_path / "1.jpg").read_bytes()
    write_zip(tmp_path / "a.zip", {"2.jpg": content[:2000], "3.jpg": content[:10]})
    store = ImageStore(tmp_path)
    assert store.find("1.jpg").size() == store.find("2.jpg").size() == (300, 200)
    assert store.find("3.jpg").size() is None
    assert ImageFile(tmp_path / "gone.jpg").size() is None


def test_a_truncated_archive_is_named(tmp_path):
    path = write_zip(tmp_path / "images.zip", {f"{index}.jpg": bytes(1000) for index in range(9)})
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"images\.zip is no whole zip archive .*download it again"):
        ImageStore(tmp_path).find("1.jpg")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="图像: no such folder of images"):
        ImageStore(tmp_path / "图像")


def test_broken_members_and_vanished_files_are_unreadable_images(tmp_path):
    path = write_zip(tmp_path / "images.zip", {"1.jpg": b"x" * 100})
    content = bytearray(path.read_bytes())
    content[50] ^= 255  # within the stored member: its checksum is wrong now
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"images\.zip:1\.jpg: .*CRC"):
        ImageStore(tmp_path).find("1.jpg").read()
    with pytest.raises(UnreadableImageError, match=r"gone\.jpg"):
        ImageFile(tmp_path / "gone.jpg").read()


def test_a_caption_in_place_of_a_name_is_no_image(tmp_path):
    assert ImageStore(tmp_path).find("一只黑猫趴在窗台上，" * 40) is None


def test_a_member_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.jpg", bytes(10**6))
    image = ImageStore(tmp_path).find("1.jpg")
    assert len(image.read()) == 10**6
    monkeypatch.setattr(image_files, "MAX_IMAGE_BYTES", 10**5)
    with pytest.raises(
        UnreadableImageError, match=r"images\.zip:1\.jpg: 1000000 bytes unpacked; it must be at most 100000"
    ):
        image.read()


def test_links_lead_out_of_the_folder_on_request_only(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    images = tmp_path / "图像"
    (images / "inside").mkdir(parents=True)
    (images / "inside/猫.jpg").write_bytes(b"cat")
    (images / "link.jpg").symlink_to(images / "inside/猫.jpg")
    (images / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (images / "away").symlink_to(tmp_path)
    assert ImageStore(images).find("link.jpg").read() == b"cat"
    for name in ("out.jpg", "away/secret.jpg"):
        with pytest.raises(
            ValueError, match=rf"{name} is a link to .*secret\.jpg, outside .*图像: .*follow_links=True"
        ):
            ImageStore(images).find(name)
        assert ImageStore(images, follow_links=True).find(name).read() == b"secret"
    (tmp_path / "given").symlink_to(images)
    assert ImageStore(tmp_path / "given").find("猫.jpg") is None  # a folder that the user gives may be a link itself
    assert ImageStore(tmp_path / "given").find("inside/猫.jpg").read() == b"cat"


def test_archives_are_followed_out_of_the_folder_on_request_only(tmp_path):
    outside = write_zip(tmp_path / "elsewhere.zip", {"1.jpg": b"one"})
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.zip").symlink_to(outside)
    with pytest.raises(ValueError, match=r"a\.zip is a link to .*elsewhere\.zip, outside"):
        ImageStore(images)
    assert ImageStore(images, follow_links=True).find("1.jpg").read() == b"one"
    assert ImageStore(images / "a.zip").find("1.jpg").read() == b"one"  # as the user says


def test_links_within_archives_are_no_images(tmp_path):
    link = zipfile.ZipInfo("1.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("2.jpg", b"two")
    assert ImageStore(tmp_path).find("1.jpg") is None
    assert ImageStore(tmp_path).find("2.jpg").read() == b"two"
