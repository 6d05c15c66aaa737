"""The rows of the offline benchmark, whose data are made in published formats by `benchmarks/bundled.py`."""

from __future__ import annotations

from ...languages import LANGUAGES
from ..readers.captions import read_docci, read_flickr30k, read_lit_cn
from ..readers.fg_ovd import read_fg_ovd
from ..readers.regions import read_boxes
from ..tasks import hard_negatives, region_classification, retrieval
from ..tasks.hard_negatives import HardNegativeSettings
from ..tasks.region_classification import RegionSettings
from ..tasks.retrieval import RetrievalSettings
from .benchmark import Benchmark, PublishedFile, Reading

PATCHES = 100  # the size of the scenes; photographs are shrunk to it

_SOURCE = "registry packages: `fgclip2 bench run bundled` makes it"
_READERS = {"en-long": read_docci, "en-short": read_flickr30k, "zh-long": read_lit_cn, "zh-short": read_lit_cn}


def _captions(pictures: str, length: str, language: str) -> Benchmark:
    reader = _READERS[f"{language}-{length}"]
    return Benchmark(
        f"bundled-{pictures}-{length}-{language}",
        task=retrieval,
        language=language,
        read=Reading(reader, subfolder=f"{pictures}/{length}", image_places=(f"{pictures}/images.zip",)),
        paper=RetrievalSettings(PATCHES, length),
        source=_SOURCE,
        is_fetched=True,
    )


def _boxes(language: str) -> Benchmark:
    file = PublishedFile(("scenes/boxes/valid_category_data_total_zh.json",), _SOURCE)
    return Benchmark(
        f"bundled-boxes-{language}",
        task=region_classification,
        language=language,
        read=Reading(
            read_boxes,
            files={"annotations": file},
            image_places=("scenes/images.zip",),
            options={"language": "zh"},  # of `name`; there is `name_en` too
            settings=("crowds",),
        ),
        paper=RegionSettings(PATCHES, templates="none"),
        source=_SOURCE,
        is_fetched=True,
    )


def _hard_negatives(language: str) -> Benchmark:
    file = PublishedFile((f"scenes/hard-negatives-{language}/h_attributes_llava.jsonl",), _SOURCE)
    return Benchmark(
        f"bundled-hard-negatives-{language}",
        task=hard_negatives,
        language=language,
        read=Reading(read_fg_ovd, files={"path": file}, image_places=("scenes/images.zip",)),
        paper=HardNegativeSettings(PATCHES),
        source=_SOURCE,
        is_fetched=True,
    )


BUNDLED: tuple[Benchmark, ...] = tuple(
    row
    for language in LANGUAGES
    for row in (
        _captions("scenes", "long", language),
        _captions("scenes", "short", language),
        _boxes(language),
        _hard_negatives(language),
        _captions("boards", "long", language),
        _captions("boards", "short", language),
        _captions("stamps", "short", language),
    )
)
