"""The rows of the offline benchmark, whose data are made in published formats by `benchmarks/bundled.py`."""

from __future__ import annotations

from ...languages import LANGUAGES, Language
from ..readers.captions import read_docci, read_flickr30k, read_lit_cn
from ..readers.fg_ovd import read_fg_ovd
from ..readers.matching import read_matching
from ..readers.regions import read_boxes
from ..tasks import hard_negatives, matching, region_classification, retrieval
from ..tasks.hard_negatives import HardNegativeSettings
from ..tasks.matching import MatchingSettings
from ..tasks.region_classification import RegionSettings
from ..tasks.retrieval import RetrievalSettings
from .benchmark import Benchmark, PublishedFile, Reading

PATCHES = 100  # the size of the scenes; photographs are shrunk to it

_SOURCE = "registry packages: `fgclip2 bench run bundled` makes it"
_SCENES = ("scenes/images.zip",)
_BOXES = PublishedFile(("scenes/boxes/valid_category_data_total_zh.json",), _SOURCE)
_HARD_NEGATIVES = {
    language: PublishedFile((f"scenes/hard-negatives-{language}/h_attributes_llava.jsonl",), _SOURCE)
    for language in LANGUAGES
}
_PAIRS = {
    language: PublishedFile((f"scenes/matching-{language}/long_itm_val.json",), _SOURCE) for language in LANGUAGES
}
_READERS = {
    ("en", "long"): read_docci,
    ("en", "short"): read_flickr30k,
    ("zh", "long"): read_lit_cn,
    ("zh", "short"): read_lit_cn,
}


_CAPTIONS = (("scenes", "long"), ("scenes", "short"), ("boards", "long"), ("boards", "short"), ("stamps", "short"))


def bundled_rows(language: Language) -> list[Benchmark]:
    """Return the rows of one language."""
    captions = [
        Benchmark(
            f"bundled-{pictures}-{length}-{language}",
            task=retrieval,
            language=language,
            read=Reading(
                _READERS[language, length],
                image_places=(f"{pictures}/images.zip",),
                subfolder=f"{pictures}/{length}",
            ),
            paper=RetrievalSettings(PATCHES, length),
            source=_SOURCE,
            is_fetched=True,
        )
        for pictures, length in _CAPTIONS
    ]
    boxes = Benchmark(
        f"bundled-boxes-{language}",
        task=region_classification,
        language=language,
        read=Reading(
            read_boxes,
            files={"annotations": _BOXES},
            image_places=_SCENES,
            options={"language": "zh"},  # of `name`; there is `name_en` too
            settings=("crowds",),
        ),
        paper=RegionSettings(PATCHES, templates="none"),
        source=_SOURCE,
        is_fetched=True,
    )
    negatives = Benchmark(
        f"bundled-hard-negatives-{language}",
        task=hard_negatives,
        language=language,
        read=Reading(read_fg_ovd, files={"path": _HARD_NEGATIVES[language]}, image_places=_SCENES),
        paper=HardNegativeSettings(PATCHES),
        source=_SOURCE,
        is_fetched=True,
    )
    pairs = Benchmark(
        f"bundled-matching-{language}",
        task=matching,
        language=language,
        read=Reading(read_matching, files={"path": _PAIRS[language]}, image_places=_SCENES),
        paper=MatchingSettings(PATCHES, "long"),
        source=_SOURCE,
        is_fetched=True,
    )
    return [*captions[:2], boxes, negatives, pairs, *captions[2:]]


BUNDLED: tuple[Benchmark, ...] = tuple(row for language in LANGUAGES for row in bundled_rows(language))
