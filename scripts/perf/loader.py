"""Speed of the training loader beside decoding and resizing alone, on samples as published.

    python -m scripts.perf --only loader

Rows of WebDataset and LitData come where they have an environment, with the torch that is installed here:

    python -m scripts.environments .cache/loaders "torch==2.13.0" "webdataset~=1.0" "litdata~=0.2.76"
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from fgclip2 import FGClip2Processor, embedded_checkpoint
from fgclip2.data import ShardedRecords, jpeg, write_shards
from fgclip2.data.records import Record, RecordDataset, Region
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.inputs import load_image
from fgclip2.modeling.pixels import naflex_size
from fgclip2.training.collator import FGClip2Collator
from fgclip2.training.pixel_values import normalize_pixels
from fgclip2.training.sampler import DrawnRecord

from ..environments import ROOT, python_of
from .measuring import Row, seconds_in_turn
from .other_loaders import READERS, Size, decode_and_resize
from .training import bounded_row

EXPLANATION = """\
From JPEG files of 640x480 to batches, CPU time of one process without workers. A sample is as published: 4 boxes with a
text and 10 hard negatives each (44 texts), and 2 captions. *Plain* is Pillow's decoding and resizing of the same files
and nothing else, in turn with the other. *Loader* makes batches of records, *shards* of the stream over tar files of
them; WebDataset and LitData read the same files out of one shard or chunk, decode and resize, without texts and
boxes."""

BUDGETS = (256, 1024)
LEAST = 0.7  # of the speed of plain decoding and resizing
WIDTH, HEIGHT = 640, 480
LOADERS = ROOT / ".cache" / "loaders"  # the environment of the others


def row_groups(runs: int) -> list[Callable[[], list[Row]]]:
    """The measurements, one for each budget."""
    return [partial(loader_rows, runs, budget) for budget in BUDGETS]


def loader_rows(runs: int, budget: int, images: int = 64, batch_size: int = 16) -> list[Row]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as in workers
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    processor = FGClip2Processor.from_pretrained(embedded_checkpoint())
    collator = FGClip2Collator(processor, max_num_patches=budget)
    try:
        with tempfile.TemporaryDirectory() as folder:
            records = published_records(Path(folder), images)
            drawn = [DrawnRecord(record, 0) for record in records]
            paths = sorted(Path(folder).glob("*.jpg"))
            height, width = naflex_size(HEIGHT, WIDTH, 16, budget)
            size = (width, height)
            make, plain = partial(batches, collator, drawn, batch_size), partial(decode_and_resize, paths, size)
            name = f"loader / plain, {budget} patches"
            rows = [_same_bits(processor, collator, drawn[:batch_size], budget)]
            rows.append(_ratio_row(name, plain, make, images, runs, LEAST))
            with mock.patch.object(jpeg, "_decoder", return_value=None):
                rows.append(_ratio_row(f"{name}, without simplejpeg", plain, make, images, runs))
            write_shards(HeldRecords(records), Path(folder) / "shards")
            stream = partial(batches_of_shards, collator, Path(folder) / "shards", batch_size)
            rows.append(_ratio_row(f"shards / plain, {budget} patches", plain, stream, images, runs))
            rows += [_row_of_other(package, Path(folder), size, budget, images, runs) for package in READERS]
    finally:
        torch.set_num_threads(threads)
    return rows


def _ratio_row(
    name: str,
    plain: Callable[[], object],
    other: Callable[[], object],
    images: int,
    runs: int,
    bound: float | None = None,
) -> Row:
    plain(), other()
    return _row_of_seconds(name, seconds_in_turn(plain, other, runs, time.process_time), images, bound)


def _row_of_other(package: str, folder: Path, size: Size, budget: int, images: int, runs: int) -> Row:
    """Measure another loader on the files in a folder, by an interpreter that has it."""
    name, python = f"{package} / plain, {budget} patches", python_of(LOADERS)
    if not python.is_file():
        return Row(name, None, "", note=f"not measured: {package} is not installed")
    command = [python, "-m", "scripts.perf.other_loaders", package, folder, folder / package, *size, runs]
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=True)
    return _row_of_seconds(name, json.loads(done.stdout.splitlines()[-1]), images)


def _row_of_seconds(
    name: str, seconds_of_runs: Sequence[Sequence[float]], images: int, bound: float | None = None
) -> Row:
    seconds = np.array(seconds_of_runs)  # (runs, 2)
    rates = images / np.median(seconds, axis=0)
    note = f"{rates[1]:.0f} / {rates[0]:.0f} images a second"
    return bounded_row(name, float(np.median(seconds[:, 0] / seconds[:, 1])), bound, ">=", note)


def _same_bits(processor: FGClip2Processor, collator: FGClip2Collator, drawn: list[DrawnRecord], budget: int) -> Row:
    """Compare a batch with what processor and tokenizer make one by one of what Pillow decodes."""
    batch = normalize_pixels(collator(drawn))
    records = [record for record, _ in drawn]
    expected = processor.process_images([load_image(record.image) for record in records], budget)
    texts = [text for record in records for region in record.regions for text in _texts_of(region)]
    ids = processor.tokenizer(texts, walk_type="box", return_tensors="pt")["input_ids"]
    same = torch.equal(batch["pixel_values"].view(torch.int32), expected["pixel_values"].view(torch.int32))
    same &= torch.equal(batch["hard_input_ids"].flatten(0, 1), ids)
    return Row(
        f"pixel values and ids to the bit those of Pillow and the tokenizer, {budget} patches", None, "", held=same
    )


def _texts_of(region: Region) -> tuple[str, ...]:
    return (region.short_text, *region.hard_negatives)


def batches(collator: FGClip2Collator, drawn: Sequence[DrawnRecord], batch_size: int) -> None:
    for start in range(0, len(drawn), batch_size):
        collator(drawn[start : start + batch_size])


def batches_of_shards(collator: FGClip2Collator, folder: Path, batch_size: int) -> None:
    records = iter(ShardedRecords(folder, batch_size, drop_last=True))
    while drawn := [DrawnRecord(record, 0) for record in islice(records, batch_size)]:
        collator(drawn)


class HeldRecords(RecordDataset):
    """Records in memory, to be written as shards."""

    def __init__(self, records: Sequence[Record]):
        self._records = records
        self.languages = np.array([LANGUAGES.index(record.language) for record in records], np.uint8)

    def _read(self, index: int) -> Record:
        return self._records[index]

    def _source(self, index: int) -> str:
        return self._records[index].source


def published_records(folder: Path, count: int) -> list[Record]:
    """Records on noise of some coarseness, which compresses about as photos do; every second one Chinese."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(count):
        path = folder / f"{number:06}.jpg"
        noise = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
        noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path, quality=90)
        chinese = number % 2 == 1
        text = "桌上有一个红苹果" if chinese else "a red apple on the table"
        regions = tuple(
            Region(
                (0.1 * box, 0.1, 0.5 + 0.1 * box, 0.6),
                f"{text} {number} {box}",
                None,
                tuple(f"{other}{'个' if chinese else ' '}{text} {number} {box}" for other in range(10)),
            )
            for box in range(4)
        )
        record = Record(str(path), text, 10 * f"{text}. ", "zh" if chinese else "en", regions, f"records:{number + 1}")
        records.append(record)
    return records
