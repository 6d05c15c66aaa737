"""Parts that all readers share: JSON and JSON lines with a place for each record, and images, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ...data.readers.checks import existing_folder, shown
from ...data.records import InvalidRecordError
from ...files import IMAGE_SUFFIXES, UTF8_BOM, decode_json, read_json
from ..base import Problem
from ..image_files import ImageFile, ImageStore, archive_members, check_inside, open_archive

_OF_MACOS = "__MACOSX"  # a folder that it adds to archives
_POINTER = b"version https://git-lfs"  # what a clone without Git LFS has in place of a large file

Item = TypeVar("Item")


def numbered_json_lines(
    path: str | Path, problems: list[Problem], doubts: list[Problem]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where it is, object) for each record of a file of JSON lines, or of one JSON list of objects.

    Args:
        problems: What is no JSON object is added to it.
        doubts: Lines that are the same as one before are added to it.

    Raises:
        ValueError: There is no such file, or it is a list and broken.
    """
    path = existing_file(path)
    with path.open("rb") as file:
        is_list = file.read(2**16).removeprefix(UTF8_BOM).lstrip().startswith(b"[")
    for number, item in enumerate(read_json(path), start=1) if is_list else _decoded_lines(path, doubts):
        source = f"{path}:{number}"
        if isinstance(item, dict):
            yield source, item
        else:
            reason = str(item) if isinstance(item, ValueError) else f"the record is a {type(item).__name__}"
            problems.append(Problem(source, f"{reason}; it must be one JSON object"))


def _decoded_lines(path: Path, doubts: list[Problem]) -> Iterator[tuple[int, Any]]:
    """Yield the number and the item of each line that is not blank, or the error that says why there is none."""
    seen: dict[bytes, str] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            content = line.removeprefix(UTF8_BOM).strip()
            note_repeated_line(content, f"{path}:{number}", seen, doubts)
            try:
                if content:
                    yield number, decode_json(content)
            except ValueError as error:
                yield number, ValueError(f"the line is broken ({error})")


def note_repeated_line(content: bytes, source: str, seen: dict[bytes, str], doubts: list[Problem]) -> None:
    """Add a line to the doubts if it is not blank and one before was the same.

    Args:
        content: The line, stripped.
        source: Where it is.
        seen: Lines so far -> where they are; this one is added.
        doubts: Of the data set.
    """
    first = seen.setdefault(content, source)
    if content and first != source:
        doubts.append(Problem(source, f"the line is the same as {first}: remove one of them"))


def shifted_ids(name: str, used: Iterable[Any], known: Iterable[Any], source: str) -> list[Problem]:
    """Return a doubt if ids don't fit, but would if each were one more or less.

    Args:
        name: What the ids are called.
        used: The ids that records name; what is no whole number is passed over.
        known: The ids that there are.
        source: Where the records are.
    """
    named = {value for value in used if type(value) is int}
    there = {value for value in known if type(value) is int}
    for shift, remedy in ((1, "subtract 1 from"), (-1, "add 1 to")):
        if not named <= there and {value - shift for value in named} <= there:
            return [Problem(source, f"all {name}s seem to be shifted by one: {remedy} each, and they are all known")]
    return []


def existing_file(path: str | Path) -> Path:
    """Check an argument that names a file.

    Raises:
        ValueError: There is no such file, or Git LFS has not fetched it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ValueError(f"{path} is a pointer of Git LFS, not the file; fetch it with `git lfs pull`")
    return path


def existing_root(path: str | Path) -> Path:
    """Check an argument that names a folder of images, or a zip archive of one.

    Raises:
        ValueError: There is neither, or the archive is broken.
    """
    if not Path(path).is_file():
        return existing_folder(path)
    open_archive(Path(path))
    return Path(path)


def image_files(
    root: Path, problems: list[Problem], least_parts: int = 1, follow_links: bool = False
) -> dict[PurePosixPath, ImageFile]:
    """Return the images in a folder or zip archive, however deep, in the order of paths; hidden files are none.

    Args:
        root: Of `existing_root`.
        problems: Files of other kinds are added, and links that lead out of the folder.
        least_parts: Of a path in an archive. A folder that all its images are in is left out of their paths if as many
            parts are left: `albums.zip` may have `cats/1.jpg` or `albums/cats/1.jpg`.
        follow_links: Take what links lead to outside the folder too.

    Returns:
        Path within the root -> image.
    """
    images: dict[PurePosixPath, ImageFile] = {}
    for path, file in sorted(_files_in(root, problems, follow_links), key=itemgetter(0)):
        if any(part.startswith(".") for part in path.parts) or path.parts[0] == _OF_MACOS:
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES:
            images[path] = file
            continue
        way = ": give the archive in place of the folder, or unpack it" if path.suffix.lower() == ".zip" else ""
        problems.append(Problem(str(file), f"the suffix is {path.suffix!r}; it must be an image's, such as .jpg{way}"))
    is_wrapped = root.is_file() and len({path.parts[0] for path in images}) == 1
    if is_wrapped and min(len(path.parts) for path in images) > least_parts:
        return {PurePosixPath(*path.parts[1:]): file for path, file in images.items()}
    return images


def _files_in(root: Path, problems: list[Problem], follow_links: bool) -> Iterator[tuple[PurePosixPath, ImageFile]]:
    if root.is_file():
        yield from ((PurePosixPath(member.lstrip("/")), ImageFile(root, member)) for member in archive_members(root))
        return

    def is_inside(path: Path) -> bool:
        try:
            check_inside(path, root, follow_links)
        except ValueError as error:
            problems.append(Problem(str(path), str(error).removeprefix(f"{path} ")))
            return False
        return True

    for child in root.iterdir():  # a link to a folder of images, which rglob would not follow, is one
        for path in (child, *child.rglob("*")) if is_inside(child) else ():
            if path.is_file() and (path == child or not path.is_symlink() or is_inside(path)):
                yield PurePosixPath(path.relative_to(root).as_posix()), ImageFile(path)


def problem_of(error: InvalidRecordError) -> Problem:
    """Return the problem that a check of a field found."""
    return Problem(error.source, str(error).removeprefix(f"{error.source}: "))


def check_object(value: Any, source: str, field: str = "the record") -> dict[str, Any]:
    """Return a value that is a JSON object; another is an `InvalidRecordError`."""
    if not isinstance(value, dict):
        raise InvalidRecordError(source, field, shown(value), "one JSON object")
    return value


def check_list(value: Any, field: str, source: str) -> list[Any]:
    """Return a value that is a JSON list with something in it; another is an `InvalidRecordError`."""
    if not isinstance(value, list) or not value:
        raise InvalidRecordError(source, field, shown(value), "a list of at least one")
    return value


def check_usable(count: int, path: str | Path, problems: Sequence[Problem]) -> None:
    """Check that a data set has something in it.

    Raises:
        ValueError: It has not; names the first problem.
    """
    if not count:
        first = f"; the first problem: {problems[0]}" if problems else " and is empty"
        raise ValueError(f"{path} has no record that can be used{first}")


class NamedImages:
    """The images that records name, each once, in the order of their first mention.

    Args:
        folder, follow_links: As for `ImageStore`.

    Attributes:
        files: The images so far.

    Raises:
        ValueError: There is no such folder, an archive is broken, or a link to one outside the folder.
    """

    def __init__(self, folder: str | Path, follow_links: bool = False):
        self.files: list[ImageFile] = []
        self._store = ImageStore(folder, follow_links)
        for archive in self._store.archives:
            open_archive(archive)  # a broken one is an error of the data set, not of each record
        self._found: dict[str, ImageFile | None] = {}
        self._sizes: dict[str, tuple[int, int] | None] = {}
        self._indices: dict[ImageFile, int] = {}

    @property
    def missing(self) -> list[str]:
        """The names of which there is no image."""
        return [name for name, image in self._found.items() if image is None]

    def index(self, name: str, field: str, source: str) -> int:
        """Return which of `files` a name means; to be asked last of a record, so that each of `files` has a use.

        Raises:
            InvalidRecordError: There is no such image, there are several, or the name leaves the folder.
        """
        try:
            image = self._find(name)
        except ValueError as error:
            raise InvalidRecordError(source, field, repr(name), f"a safe, unambiguous name ({error})") from error
        if image is None:
            other = self._store.find_other_case(name)
            there = "" if other is None else f"; there is {other}"
            raise InvalidRecordError(source, field, repr(name), f"an image in {self._store.folder}{there}")
        if image not in self._indices:
            self._indices[image] = len(self.files)
            self.files.append(image)
        return self._indices[image]

    def size(self, name: str) -> tuple[int, int] | None:
        """Return width and height of the upright image of a name; None where there is none or its header is broken."""
        if name not in self._sizes:
            try:
                image = self._find(name)
            except ValueError:
                image = None
            self._sizes[name] = None if image is None else image.size()
        return self._sizes[name]

    def _find(self, name: str) -> ImageFile | None:
        if name not in self._found:
            self._found[name] = self._store.find(name)
        return self._found[name]


def items_by_image(
    records: Iterable[tuple[str, Any]],
    parse: Callable[[Any, str], tuple[str, Item]],
    images: NamedImages,
    problems: list[Problem],
) -> list[list[Item]]:
    """Return the items of each image that has any, in the order of `images.files`.

    Args:
        records: (where it is, record) of each.
        parse: Makes (name of its image, item) of a record and where that is, or raises `InvalidRecordError`.
        images: Has no files yet; those of the items are added.
        problems: Records that can't be used are added.
    """
    items: list[list[Item]] = []
    for source, record in records:
        try:
            name, item = parse(record, source)
            index = images.index(name, "the image", source)
        except InvalidRecordError as error:
            problems.append(problem_of(error))
            continue
        if index == len(items):
            items.append([])
        items[index].append(item)
    return items
