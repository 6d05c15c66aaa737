"""All benchmarks: how each is read, in which settings it is run, and where its data are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

from . import classification, detection, hard_negatives, matching, region_classification, retrieval, segmentation
from .class_names import LANGUAGES, class_names, imagenet_folders
from .data_sets import DataSet
from .readers import captions
from .readers._caption_files import find_file, find_images
from .readers.chinese_clip import read_chinese_clip
from .readers.classification import read_image_classes, read_imagenet
from .readers.detections import read_detections
from .readers.fg_ovd import read_fg_ovd
from .readers.matching import read_matching
from .readers.regions import read_boxes
from .readers.segmentation import check_masks, read_segmentation
from .settings import (
    ClassificationSettings,
    DetectionSettings,
    HardNegativeSettings,
    MatchingSettings,
    RegionSettings,
    RetrievalSettings,
    SegmentationSettings,
    Settings,
    change,
)

Read = Callable[[Path, Path | None, Any], DataSet]

# Of every benchmark: what the paper leaves open, and what the released scripts do that no setting here copies.
COMMON_DIFFERENCES = (
    "The paper does not state at which patch budgets it was measured. Both presets give each image its own; the "
    "released scripts give all images of a batch the budget of the largest, so that their results depend on the batch.",
)
_CASE = "The released script does not lower-case these texts, though training did. It concerns Latin letters only."


@dataclass(frozen=True)
class Benchmark:
    """A row of the catalogue.

    Attributes:
        task: The module that evaluates it.
        language: Of its texts.
        read: (folder, folder of images or None, settings) -> data set.
        paper: Settings of the paper.
        released: Settings of the scripts that its authors released, where they differ.
        source: Where the data are.
        differences: What `released` does otherwise, or neither preset can say; besides `COMMON_DIFFERENCES`.
        published: Published counts: "images", "items" (captions, boxes, pairs), "categories".
        is_fetched: Whether this package makes the data itself, wherever: results name no folder then.
    """

    name: str
    task: ModuleType
    language: str
    read: Read
    paper: Settings
    source: str
    released: Settings | None = None
    differences: tuple[str, ...] = ()
    published: Mapping[str, int] = field(default_factory=dict)
    is_fetched: bool = False

    def settings(self, preset: str) -> Settings:
        """Settings of a preset, "paper" or "released".

        Raises:
            ValueError: There is no such preset.
        """
        if preset not in PRESETS:
            raise ValueError(f"preset={preset!r}; allowed: {', '.join(PRESETS)}")
        return self.paper if preset == "paper" or self.released is None else self.released

    def changed_settings(self, preset: str, changes: Mapping[str, str]) -> Settings:
        """Settings of a preset, some of them changed by values of the command line.

        Raises:
            ValueError: There is no such preset or setting, or a value is not allowed.
        """
        try:
            return change(self.settings(preset), dict(changes))
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error


PRESETS = ("paper", "released")
_SHORT, _LONG = RetrievalSettings(), RetrievalSettings(walk_type="long")


def _captions(reader: Callable[..., DataSet], **options: Any) -> Read:
    return lambda folder, images, settings: reader(folder, images, **options)


def _chinese_clip(split: str) -> Read:
    def read(folder: Path, images: Path | None, settings: Settings) -> DataSet:
        if images is not None:
            raise ValueError(f"images={images}; this data set has its images in {split}_imgs.tsv, so leave it out")
        return read_chinese_clip(folder, split)

    return read


def _boxes(names: tuple[str, ...], image_folders: tuple[str, ...], source: str, language: str) -> Read:
    def read(folder: Path, images: Path | None, settings: RegionSettings) -> DataSet:
        file = find_file(folder, names, source)
        return read_boxes(file, find_images(folder, images, *image_folders), language, crowds=settings.crowds)

    return read


def _coco_boxes(folder: Path, images: Path | None, settings: RegionSettings) -> DataSet:
    file = find_file(folder, _COCO_BOXES, _COCO)
    data = read_boxes(file, find_images(folder, images, "val2017"), "en", crowds=settings.crowds)
    names = {language: class_names("coco", language) for language in LANGUAGES}
    for number, (here, published) in enumerate(zip_longest(data.names["en"], names["en"]), start=1):
        if here != published:
            raise ValueError(f"{file}: category {number} of {len(names['en'])} is {here!r}; COCO's is {published!r}")
    return replace(data, names=names)


def _fg_ovd(*names: str) -> Read:
    def read(folder: Path, images: Path | None, settings: Settings) -> DataSet:
        return read_fg_ovd(find_file(folder, [*names, *(f"fgovd/{name}" for name in names)], _FG_OVD), images or folder)

    return read


def _matching(name: str, file: str) -> Read:
    def read(folder: Path, images: Path | None, settings: Settings) -> DataSet:
        path = find_file(folder, (f"{name}/val/{file}", f"val/{file}", file), _CCMB)
        return read_matching(path, find_images(folder, images, "IQR_IQM_ICR_ICM_images"))

    return read


def _imagenet(folder: Path, images: Path | None, settings: Settings) -> DataSet:
    names = {language: class_names("imagenet", language) for language in LANGUAGES}
    return read_imagenet(folder, images, imagenet_folders(), names)


def _image_folder(folder: Path, images: Path | None, settings: Settings) -> DataSet:
    return read_image_classes(images or folder)


def _coco_detections(folder: Path, images: Path | None, settings: DetectionSettings) -> DataSet:
    results = find_file(folder, (_RESULTS,), _DETECTOR)
    truth = find_file(folder, _COCO_BOXES, _COCO)
    names = {language: class_names("coco", language) for language in LANGUAGES}
    data = read_detections(results, truth, find_images(folder, images, "val2017"), "en", names)
    return detection.check_measurable(data, settings)


def _lvis_detections(names: tuple[str, ...]) -> Read:
    def read(folder: Path, images: Path | None, settings: DetectionSettings) -> DataSet:
        results = find_file(folder, (_RESULTS,), _DETECTOR)
        data = read_detections(results, find_file(folder, names, _LVIS), find_images(folder, images))
        return detection.check_measurable(data, settings)

    return read


def _segmentation(folder: Path, images: Path | None, settings: Settings) -> DataSet:
    names = find_file(folder, ("classes.json", "classes.txt"), "whoever made the masks: names in the order of values")
    images, masks = (
        given or next((path for path in (folder / name, folder / f"{name}.zip") if path.exists()), folder / name)
        for name, given in (("images", images), ("masks", None))
    )
    return check_masks(read_segmentation(images, masks, names))


_HUGGING_FACE = "https://huggingface.co/datasets"
_COCO = "https://cocodataset.org/#download"
_CCMB = "https://zero.so.com"
_FG_OVD = "https://github.com/360CVGroup/FG-CLIP (data/fgovd), images of COCO 2017"
_FLICKR30K = "https://shannon.cs.illinois.edu/DenotationGraph"
_CHINESE_CLIP = "https://github.com/OFA-Sys/Chinese-CLIP"
_COCO_CN = f"{_HUGGING_FACE}/AIMClab-RUC/COCO-CN, images: {_COCO}"
_ICR_IMAGES = f"{_CCMB}, IQR_IQM_ICR_ICM_images"
_LVIS = "https://www.lvisdataset.org"
_COCO_BOXES = ("annotations/instances_val2017.json", "instances_val2017.json")
_LVIS_BOXES = ("lvis_v1_val.json", "annotations/lvis_v1_val.json")
_LVIS_MINIVAL = ("lvis_v1_minival_inserted_image_name.json", "lvis_v1_minival.json")
_RESULTS = "results.json"
_DETECTOR = "your detector: a list of image_id, category_id, bbox (x, y, width, height) and score, as COCO has it"
_ALL_BOXES = "All annotations count, those of crowds too, as in the released script."
_TIES = "The released script counts a true text that equals the best false one as a success; `paper` here does not."
_FUSION = (
    "The paper states neither exponents nor scale nor texts of the fusion of probabilities with the detector's scores, "
    "nor what a score means for other classes than its own; here all are settings, and the score is that of any class. "
    "No script was released.",
)
_CCMB_HEAD = ("FG-CLIP 2's paper measures nothing of CCMB; the head `short` is a choice made here.",)
_NO_HEAD = (
    "The paper measures a head (Cat-Seg) trained on COCO-Stuff on top of the model; here nothing is trained, so the "
    "published numbers are of another kind.",
)
_IMAGENET = ("The paper does not state its templates; both presets take CLIP's 80 (in Chinese, Chinese-CLIP's).",)
_IMAGENET_1K = (
    *_IMAGENET,
    "The released script takes 1024 patches for each image and drops the last, incomplete batch of 128: 49,920 count.",
)

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        # Long captions
        Benchmark(
            "lit-cn",
            retrieval,
            "zh",
            _captions(captions.read_lit_cn),
            _LONG,
            f"{_HUGGING_FACE}/qihoo360/LIT-CN",
            released=replace(_LONG, lower_case=False),
            differences=(_CASE,),
            published={"items": 33010},
        ),
        Benchmark(
            "dci-cn",
            retrieval,
            "zh",
            _captions(captions.read_dci_cn),
            _LONG,
            f"{_HUGGING_FACE}/qihoo360/DCI-CN",
            released=replace(_LONG, lower_case=False),
            differences=(_CASE,),
        ),
        Benchmark(
            "docci-cn",
            retrieval,
            "zh",
            _captions(captions.read_docci_cn),
            _LONG,
            f"{_HUGGING_FACE}/qihoo360/DOCCI-CN",
            released=replace(_LONG, lower_case=False),
            differences=(_CASE,),
        ),
        Benchmark(
            "sharegpt4v-1k",
            retrieval,
            "en",
            _captions(captions.read_sharegpt4v_1k),
            _LONG,
            f"{_HUGGING_FACE}/Lin-Chen/ShareGPT4V",
            published={"images": 1000, "items": 1000},
        ),
        Benchmark(
            "dci",
            retrieval,
            "en",
            _captions(captions.read_dci),
            _LONG,
            "https://github.com/facebookresearch/DCI",
            differences=(
                "Captions that are blank, 203 of 7,805, are left out; the released script takes all annotation files.",
            ),
            published={"images": 7602, "items": 7602},
        ),
        Benchmark(
            "docci",
            retrieval,
            "en",
            _captions(captions.read_docci),
            _LONG,
            "https://google.github.io/docci/#downloads",
            published={"images": 5000, "items": 5000},
        ),
        Benchmark(
            "urban-1k",
            retrieval,
            "en",
            _captions(captions.read_urban_1k),
            _LONG,
            f"{_HUGGING_FACE}/BeichenZhang/Urban1k",
            published={"images": 1000, "items": 1000},
        ),
        # Short captions
        Benchmark(
            "flickr30k-cna",
            retrieval,
            "zh",
            _captions(captions.read_flickr30k_cna),
            _SHORT,
            f"{_CCMB}, images: {_FLICKR30K}",
            released=replace(_SHORT, lower_case=False),
            differences=(_CASE,),
            published={"images": 1000, "items": 5000},
        ),
        Benchmark(
            "coco-cn",
            retrieval,
            "zh",
            _captions(captions.read_coco_cn),
            _SHORT,
            _COCO_CN,
            published={"images": 1000, "items": 5000},
        ),
        Benchmark(
            "coco-cn-written",
            retrieval,
            "zh",
            _captions(captions.read_coco_cn, captions="human-written"),
            _SHORT,
            _COCO_CN,
            differences=("FG-CLIP 2 was measured on the translated captions (`coco-cn`), Chinese-CLIP on these.",),
            published={"images": 1000, "items": 1053},
        ),
        Benchmark(
            "flickr30k-cn",
            retrieval,
            "zh",
            _chinese_clip("test"),
            _SHORT,
            _CHINESE_CLIP,
            published={"images": 1000, "items": 5000},
        ),
        Benchmark("muge", retrieval, "zh", _chinese_clip("valid"), _SHORT, _CHINESE_CLIP),
        Benchmark("icr", retrieval, "zh", _captions(captions.read_icr), _SHORT, _ICR_IMAGES, differences=_CCMB_HEAD),
        Benchmark("iqr", retrieval, "zh", _captions(captions.read_iqr), _SHORT, _ICR_IMAGES, differences=_CCMB_HEAD),
        Benchmark(
            "flickr30k",
            retrieval,
            "en",
            _captions(captions.read_flickr30k),
            _SHORT,
            _FLICKR30K,
            published={"images": 1000, "items": 5000},
        ),
        Benchmark(
            "mscoco",
            retrieval,
            "en",
            _captions(captions.read_mscoco),
            _SHORT,
            _COCO,
            published={"images": 5000, "items": 25000},
        ),
        Benchmark(
            "mscoco-karpathy",
            retrieval,
            "en",
            _captions(captions.read_mscoco, split="karpathy"),
            _SHORT,
            f"{_COCO}, val2014; https://storage.googleapis.com/sfr-vision-language-research/datasets/coco_karpathy_test.json",
            differences=("FG-CLIP 2 was measured on val2017 (`mscoco`); many others were on this split.",),
            published={"images": 5000, "items": 25000},
        ),
        Benchmark(
            "xm3600",
            retrieval,
            "en",
            _captions(captions.read_xm3600, language="en"),
            _SHORT,
            "https://google.github.io/crossmodal-3600",
            published={"images": 3600},
        ),
        Benchmark(
            "xm3600-zh",
            retrieval,
            "zh",
            _captions(captions.read_xm3600, language="zh"),
            _SHORT,
            "https://google.github.io/crossmodal-3600",
            published={"images": 3600},
        ),
        # Boxes
        Benchmark(
            "boxclass-cn",
            region_classification,
            "zh",
            _boxes(
                ("jsonfile/valid_category_data_total_zh.json", "valid_category_data_total_zh.json"),
                (),
                f"{_HUGGING_FACE}/qihoo360/BoxClass-CN",
                "zh",
            ),
            RegionSettings(templates="none"),
            f"{_HUGGING_FACE}/qihoo360/BoxClass-CN",
            published={"images": 24221, "items": 66258, "categories": 566},
        ),
        Benchmark(
            "coco-boxes",
            region_classification,
            "en",
            _coco_boxes,
            RegionSettings(),
            _COCO,
            differences=(_ALL_BOXES,),
            published={"images": 4952, "items": 36781, "categories": 80},
        ),
        Benchmark(
            "lvis-boxes",
            region_classification,
            "en",
            _boxes(_LVIS_BOXES, (), _LVIS, "en"),
            RegionSettings(),
            f"{_LVIS}, images: {_COCO}",
            published={"categories": 1203},
            differences=(_ALL_BOXES,),
        ),
        # Hard negatives
        *(
            Benchmark(
                f"fg-ovd-{level}",
                hard_negatives,
                "en",
                _fg_ovd(*files),
                HardNegativeSettings(),
                _FG_OVD,
                HardNegativeSettings(ties="right"),
                (_TIES,),
                {"items": items},
            )
            for level, files, items in (
                ("hard", ("h_attributes_llava.jsonl", "1_attributes_llava.jsonl", "1_attributes.json"), 3545),
                ("medium", ("m_attributes_llava.jsonl", "2_attributes_llava.jsonl", "2_attributes.json"), 2968),
                ("easy", ("e_attributes_llava.jsonl", "3_attributes_llava.jsonl", "3_attributes.json"), 1299),
                ("trivial", ("shuffle_negatives_llava.jsonl", "shuffle_negatives.json"), 3545),
            )
        ),
        # Matching
        Benchmark(
            "icm",
            matching,
            "zh",
            _matching("ICM", "long_itm_val.json"),
            MatchingSettings(),
            _ICR_IMAGES,
            differences=_CCMB_HEAD,
        ),
        Benchmark(
            "iqm",
            matching,
            "zh",
            _matching("IQM", "short_itm_val.json"),
            MatchingSettings(),
            _ICR_IMAGES,
            differences=_CCMB_HEAD,
        ),
        # Whole images
        Benchmark(
            "imagenet-1k",
            classification,
            "en",
            _imagenet,
            ClassificationSettings(),
            "https://image-net.org",
            ClassificationSettings(max_num_patches=1024, whole_batches_of=128),
            _IMAGENET_1K,
            {"images": 50000, "items": 50000, "categories": 1000},
        ),
        Benchmark(
            "imagenet-v2",
            classification,
            "en",
            _imagenet,
            ClassificationSettings(),
            f"{_HUGGING_FACE}/vaishaal/ImageNetV2 (matched-frequency)",
            differences=_IMAGENET,
            published={"images": 10000, "items": 10000, "categories": 1000},
        ),
        Benchmark(
            "image-folder", classification, "en", _image_folder, ClassificationSettings(), "a folder of your own"
        ),
        # Boxes of a detector, and pixels
        Benchmark(
            "detection-coco",
            detection,
            "en",
            _coco_detections,
            DetectionSettings(),
            f"results.json of a detector; {_COCO}",
            differences=_FUSION,
        ),
        *(
            Benchmark(
                name,
                detection,
                "en",
                _lvis_detections(files),
                DetectionSettings(rules="lvis"),
                f"results.json of a detector; {_LVIS}, images: {_COCO}",
                differences=(
                    *_FUSION,
                    "The paper does not say whether its AP on LVIS is fixed AP (`rules=lvis-fixed`).",
                ),
            )
            for name, files in (("detection-lvis", _LVIS_BOXES), ("detection-lvis-minival", _LVIS_MINIVAL))
        ),
        Benchmark(
            "segmentation",
            segmentation,
            "en",
            _segmentation,
            SegmentationSettings(),
            "a folder of your own: images/, masks/, classes.json or classes.txt",
            differences=_NO_HEAD,
        ),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        ValueError: There is none.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}; allowed: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
