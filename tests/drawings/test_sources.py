import hashlib
import io
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from fgclip2.drawings import sources
from fgclip2.drawings.sources import ARTWORK, DESCRIBED, NAMES, WALLPAPERS, Source, fetch, read_member, read_members

ALL = {**ARTWORK, **NAMES, **WALLPAPERS, **DESCRIBED}


def tar_bytes(files: dict[str, bytes], mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def deb_bytes(data_name: str, data: bytes) -> bytes:
    members = {"debian-binary": b"2.0\n", "control.tar.gz": b"odd", data_name: data}
    archive = b"!<arch>\n"
    for name, content in members.items():
        archive += f"{name + '/':<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        archive += b"\n" * (len(content) % 2)
    return archive


@pytest.fixture
def source() -> Source:
    content = b"archive"
    return Source("@scope/name", "1.2.3", hashlib.sha256(content).hexdigest(), "MIT", "someone", "https://example.org")


@pytest.fixture
def client(monkeypatch):
    """A registry client that writes `content`, or fails; records its calls."""

    class Client:
        content: bytes | None = b"archive"
        calls: list[list[str]] = []

        def run(self, command, cwd, **_):
            self.calls.append(command)
            if self.content is not None:
                (Path(cwd) / "scope-name-1.2.3.tgz").write_bytes(self.content)
            return subprocess.CompletedProcess(command, 0 if self.content else 1, "", "E404 not found")

    client = Client()
    client.calls = []
    monkeypatch.setattr(sources.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(sources.subprocess, "run", client.run)
    return client


def test_archives_are_named_as_the_clients_name_them():
    assert ARTWORK["noto"].filename == "iconify-json-noto-1.2.9.tgz"
    assert ARTWORK["noto"].command == ["npm", "pack", "--silent", "--ignore-scripts", "@iconify-json/noto@1.2.9"]
    assert WALLPAPERS["mate"].filename == "mate-backgrounds_1.26.0-1_all.deb"
    assert WALLPAPERS["mate"].command == ["apt-get", "download", "mate-backgrounds=1.26.0-1"]


def test_checksums_are_sha256_and_distinct():
    checksums = [source.sha256 for source in ALL.values()]
    assert all(len(bytes.fromhex(checksum)) == 32 for checksum in checksums)
    assert len(set(checksums)) == len(checksums)


def test_fetch_downloads_once(tmp_path, source, client):
    path = fetch(source, tmp_path)
    assert path == tmp_path / "downloads" / "scope-name-1.2.3.tgz"
    assert path.read_bytes() == b"archive"
    fetch(source, tmp_path)
    assert client.calls == [["/bin/npm", *source.command[1:]]]


def test_fetch_refuses_a_wrong_archive_and_keeps_none(tmp_path, source, client):
    client.content = b"something else"
    with pytest.raises(RuntimeError, match=r"is not @scope/name 1\.2\.3: SHA-256 .* expected .* Delete it"):
        fetch(source, tmp_path)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_fetch_refuses_a_damaged_cached_archive(tmp_path, source, client):
    fetch(source, tmp_path).write_bytes(b"damaged")
    with pytest.raises(RuntimeError, match="Delete it and run again"):
        fetch(source, tmp_path)


def test_fetch_says_what_the_client_said(tmp_path, source, client):
    client.content = None
    with pytest.raises(RuntimeError, match=r"npm pack .* failed: E404 not found(.|\n)*put the archive"):
        fetch(source, tmp_path)
    debian = replace(source, kind="debian")
    with pytest.raises(RuntimeError, match="Debian 12"):
        fetch(debian, tmp_path)


def test_fetch_says_that_the_client_is_missing(tmp_path, source, monkeypatch):
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"npm is needed to download @scope/name and was not found.*example\.org"):
        fetch(source, tmp_path)


def test_members_are_read_without_unpacking(tmp_path):
    archive = tmp_path / "folder" / "package.tgz"
    archive.parent.mkdir()
    archive.write_bytes(tar_bytes({"package/a.json": b"A", "../../evil": b"E", "./package/b.txt": b"B"}, "w:gz"))
    assert dict(read_members(archive, lambda path: True)) == {
        "package/a.json": b"A",
        "../../evil": b"E",
        "package/b.txt": b"B",
    }
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "package.tgz"]
    assert read_member(archive, "package/b.txt") == b"B"
    with pytest.raises(KeyError, match=r"package\.tgz has no file 'package/c'"):
        read_member(archive, "package/c")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("data.tar.xz", tar_bytes({"./usr/share/x.jpg": b"photo"}, "w:xz")),
        ("data.tar.zst", zstandard.compress(tar_bytes({"./usr/share/x.jpg": b"photo"}, "w"))),
    ],
)
def test_debian_packages_are_read(tmp_path, name, data):
    archive = tmp_path / "package.deb"
    archive.write_bytes(deb_bytes(name, data))
    assert dict(read_members(archive, lambda path: path.endswith(".jpg"))) == {"usr/share/x.jpg": b"photo"}


def test_what_is_no_debian_package_is_refused(tmp_path):
    archive = tmp_path / "package.deb"
    archive.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"package\.deb is not a Debian package"):
        list(read_members(archive, lambda path: True))
    archive.write_bytes(deb_bytes("other", b""))
    with pytest.raises(ValueError, match="no data member"):
        list(read_members(archive, lambda path: True))


@pytest.mark.slow
def test_a_small_package_is_what_its_checksum_says(tmp_path):
    if sources.shutil.which("npm") is None:
        pytest.skip("needs npm")
    archive = fetch(ARTWORK["streamline"], tmp_path)
    assert b"CC BY 4.0" in read_member(archive, "package/info.json")
