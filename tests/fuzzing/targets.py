"""What is fuzzed: readers of files from outside, each with the errors that it promises; anything else is a fault.

A target takes bytes and a folder to write in. Its corpus is `corpus/NAME/`.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fgclip2.data.box_files import read_boxes
from fgclip2.data.readers import read_finehard, read_pairs
from fgclip2.data.records import InvalidRecordError, Record, RecordDataset, open_record_image
from fgclip2.data.shard_files import BrokenShardError, ShardReader, list_shards
from fgclip2.data.validation import guess_format
from fgclip2.errors import IncompatibleIndexError, UnreadableImageError
from fgclip2.files import decode_json
from fgclip2.modeling.inputs import check_boxes, load_image
from fgclip2.search import ImageIndex
from fgclip2.search.store import MANIFEST, digest_of

CORPUS = Path(__file__).parent / "corpus"

_RECORDS_LOOKED_AT = 50


def image(content: bytes, folder: Path) -> None:
    """Open an image from bytes, as of a shard, and from a file, whose suffix says nothing."""
    with suppress(UnreadableImageError):
        opened = open_record_image(Record(content, "猫", None, "zh", (), "a.tar:0"))
        assert opened.mode == "RGB"
    path = folder / "image.jpg"
    path.write_bytes(content)
    with suppress(ValueError):
        assert load_image(path).mode == "RGB"


def boxes(content: bytes, folder: Path) -> None:
    """Read boxes of an image from JSON (plain, COCO) and YOLO's text, and check them against the image."""
    picture = CORPUS / "image" / "000042.png"
    for name in ("boxes.json", "boxes.txt"):
        path = folder / name
        path.write_bytes(content)
        with suppress(ValueError):
            (found,) = read_boxes(path, [picture]).boxes
            check_boxes([box.box for box in found], 8, 8)


def _read_all(dataset: RecordDataset) -> None:
    assert len(dataset.languages) == len(dataset)
    for number in range(min(len(dataset), _RECORDS_LOOKED_AT)):
        assert dataset.source(number)
        with suppress(InvalidRecordError):  # what on_error="skip" leaves out, nothing else
            dataset[number]


def records(content: bytes, folder: Path) -> None:
    """Read JSON, JSON lines, CSV and TSV as pairs and as FineHARD's records."""
    for name in ("a.json", "b.csv", "c.tsv"):
        path = folder / name
        path.write_bytes(content)
        with suppress(ValueError):
            guess_format(path)
        with suppress(ValueError):
            _read_all(read_pairs(path, folder))
    with suppress(ValueError):
        _read_all(read_finehard(folder / "a.json", folder))


def shard(content: bytes, folder: Path) -> None:
    """Read every sample of a tar shard."""
    path = folder / "a.tar"
    path.write_bytes(content)
    with suppress(BrokenShardError), ShardReader(str(path)) as reader:
        for sample in reader.samples():
            assert reader.language(sample) in ("en", "zh")
            try:
                reader.record(sample)
            except BrokenShardError:
                raise
            except InvalidRecordError:
                pass


def manifest(content: bytes, folder: Path) -> None:
    """Read the index of a folder of shards, and the manifest of an index of images as it stands."""
    path = folder / "index.json"
    path.write_bytes(content)
    with suppress(ValueError):
        list_shards(path, count=False)
    _load_index(folder, MANIFEST, content)


def index(content: bytes, folder: Path) -> None:
    """Read an index of images with a block of these bytes, or JSON as its manifest, with its right digest."""
    try:
        decoded = decode_json(content)
    except ValueError:
        (block,) = (CORPUS / "index").glob("*.safetensors")
        _load_index(folder, block.name, content)
        return
    if isinstance(decoded, dict):
        decoded["digest"] = digest_of(decoded)
        _load_index(folder, MANIFEST, json.dumps(decoded).encode())


def _load_index(folder: Path, name: str, content: bytes) -> None:
    """Load the index of the corpus with one of its files replaced."""
    where = folder / ".fgclip2_index"
    shutil.copytree(CORPUS / "index", where, dirs_exist_ok=True)
    (where / name).write_bytes(content)
    with suppress(IncompatibleIndexError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged blocks
        ImageIndex.load(folder)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    target.__name__: target for target in (image, boxes, records, shard, manifest, index)
}


def seeds(name: str) -> list[bytes]:
    """Return the corpus of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
