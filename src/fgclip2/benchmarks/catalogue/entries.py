"""The rows of the catalogue: how each benchmark is read, in which settings it is run, where its data are."""

from __future__ import annotations

from dataclasses import replace

from ...languages import LANGUAGES
from ..class_names import class_names, imagenet_folders
from ..readers.captions import (
    read_coco_cn,
    read_dci,
    read_dci_cn,
    read_docci,
    read_docci_cn,
    read_flickr30k,
    read_flickr30k_cna,
    read_icr,
    read_iqr,
    read_lit_cn,
    read_mscoco,
    read_sharegpt4v_1k,
    read_urban_1k,
    read_xm3600,
)
from ..readers.chinese_clip import read_chinese_clip
from ..readers.classification import read_image_classes, read_imagenet
from ..readers.detections import read_detections
from ..readers.fg_ovd import read_fg_ovd
from ..readers.matching import read_matching
from ..readers.regions import read_boxes, read_coco_boxes
from ..readers.segmentation import read_segmentation_folder
from ..tasks import classification, detection, hard_negatives, matching, region_classification, retrieval, segmentation
from ..tasks.classification import ClassificationSettings
from ..tasks.detection import DetectionSettings, check_measurable
from ..tasks.hard_negatives import HardNegativeSettings
from ..tasks.matching import MatchingSettings
from ..tasks.region_classification import RegionSettings
from ..tasks.retrieval import RetrievalSettings
from ..tasks.segmentation import SegmentationSettings
from .benchmark import Benchmark, PublishedFile, Reading

# For every benchmark: what the paper leaves open, and what the released scripts do that no setting here copies.
COMMON_DIFFERENCES = (
    "The paper does not state at which patch budgets it was measured. Unless a benchmark says otherwise, both presets "
    "give each image its own, as the released scripts of retrieval and boxes do, which take one image at a time.",
)

_HUGGING_FACE = "https://huggingface.co/datasets"
_COCO = "https://cocodataset.org/#download"
_CCMB = "https://zero.so.com"
_FG_OVD = "https://github.com/360CVGroup/FG-CLIP (data/fgovd), images of COCO 2017"
_FLICKR30K = "https://shannon.cs.illinois.edu/DenotationGraph"
_CHINESE_CLIP = "https://github.com/OFA-Sys/Chinese-CLIP"
_COCO_CN = f"{_HUGGING_FACE}/AIMClab-RUC/COCO-CN, images: {_COCO}"
_ICR_IMAGES = f"{_CCMB}, IQR_IQM_ICR_ICM_images"
_LVIS = "https://www.lvisdataset.org"
_BOXCLASS_CN = f"{_HUGGING_FACE}/qihoo360/BoxClass-CN"
_DETECTOR = "your detector: a list of image_id, category_id, bbox (x, y, width, height) and score, as COCO has it"

_BOXCLASS_CN_BOXES = PublishedFile(
    ("jsonfile/valid_category_data_total_zh.json", "valid_category_data_total_zh.json"), _BOXCLASS_CN
)
_COCO_BOXES = PublishedFile(("annotations/instances_val2017.json", "instances_val2017.json"), _COCO)
_LVIS_BOXES = PublishedFile(("lvis_v1_val.json", "annotations/lvis_v1_val.json"), _LVIS)
_LVIS_MINIVAL = PublishedFile(("lvis_v1_minival_inserted_image_name.json", "lvis_v1_minival.json"), _LVIS)
_RESULTS = PublishedFile(("results.json",), _DETECTOR)
_ICM = PublishedFile(("ICM/val/long_itm_val.json", "val/long_itm_val.json", "long_itm_val.json"), _CCMB)
_IQM = PublishedFile(("IQM/val/short_itm_val.json", "val/short_itm_val.json", "short_itm_val.json"), _CCMB)
_CCMB_IMAGES = ("IQR_IQM_ICR_ICM_images",)
_COCO_IMAGES = ("val2017",)

_SHORT, _LONG = RetrievalSettings(), RetrievalSettings(walk_type="long")
_SEPARATE = RetrievalSettings(equal_captions="separate")
_BOXES = RegionSettings(crop_edges="whole-sides")
_COCO_NAMES = {language: class_names("coco", language) for language in LANGUAGES}
_IMAGENET_CLASSES = {
    "wordnet_ids": imagenet_folders(),
    "names": {language: class_names("imagenet", language) for language in LANGUAGES},
}

_SEPARATE_CAPTIONS = (
    "Equal captions of several images stay separate candidates in both presets, of equal ones the later first, as the "
    "released script sorts them (`equal_captions=one` makes one candidate of them, right for each image).",
)
_ONE_CAPTION = (
    "Equal captions of several images are one candidate, right for each of them; in the released script they stay "
    "separate (`equal_captions=separate`).",
)
_CASE = ("The released script does not lower-case these texts, though training did. It concerns Latin letters only.",)
_NAMES_CASE = (
    "The names of categories keep their capitals (T恤) in both presets, as in the released script, though training "
    "lower-cased texts (`lower_case=true`).",
)
_CROPS = (
    "With `method=crop` both presets drop the decimals of x, y, width and height, as the released script does "
    "(`crop_edges=outward` takes every pixel that the box touches). A box that then has no pixel keeps one here; the "
    "script can't use it.",
)
_ALL_BOXES = ("All annotations count, those of crowds too, as in the released script.", *_CROPS)
_FG_OVD_RULES = (
    "A true text that equals the best false one is a success in both presets, as in the released script that the "
    "published numbers are of (`ties=wrong` counts it as a failure).",
    "With `method=crop` both presets drop the decimals of both corners, as the released script does "
    "(`crop_edges=outward` takes every pixel that the box touches).",
)
_FUSION = (
    "The paper states neither exponents nor scale nor texts of the fusion of probabilities with the detector's scores, "
    "nor what a score means for other classes than its own; here all are settings, and the score is that of any class. "
    "No script was released.",
)
_FIXED_AP = (*_FUSION, "The paper does not say whether its AP on LVIS is fixed AP (`rules=lvis-fixed`).")
_CCMB_HEAD = ("FG-CLIP 2's paper measures nothing of CCMB; the head `short` is a choice made here.",)
_R2D2_TIES = (
    "R2D2's scripts re-rank the first 128 candidates (Flickr30k-CNA) or 64 (ICR, IQR) of each query, both ways, by "
    "match probability plus cosine, and so does the preset `r2d2`. Equal scores are in an order that numpy leaves "
    "there; here they count as wrong.",
)
_R2D2_AREA = (
    "R2D2's scripts measure the area under the ROC curve of the match probability, and no accuracy; the preset `r2d2` "
    "has that area as `reranked/auc`.",
)
_NO_HEAD = (
    "The paper measures a head (Cat-Seg) trained on COCO-Stuff on top of the model; here nothing is trained, so the "
    "published numbers are of another kind.",
)
_IMAGENET = ("The paper does not state its templates; both presets take CLIP's 80 (in Chinese, Chinese-CLIP's).",)
_IMAGENET_V2 = (*_IMAGENET, "The released script takes 1024 patches for each image.")
_IMAGENET_1K = (
    *_IMAGENET,
    "The released script takes 1024 patches for each image and drops the last, incomplete batch of 128: 49,920 count; "
    "that of FG-CLIP v1 drops the last batch of 64: 49,984 count.",
)

ENTRIES: tuple[Benchmark, ...] = (
    # Long captions
    Benchmark(
        "lit-cn",
        task=retrieval,
        language="zh",
        read=Reading(read_lit_cn),
        paper=_LONG,
        source=f"{_HUGGING_FACE}/qihoo360/LIT-CN",
        released=replace(_LONG, lower_case=False),
        differences=(*_CASE, *_ONE_CAPTION),
        published={"items": 33010},
    ),
    Benchmark(
        "dci-cn",
        task=retrieval,
        language="zh",
        read=Reading(read_dci_cn),
        paper=_LONG,
        source=f"{_HUGGING_FACE}/qihoo360/DCI-CN",
        released=replace(_LONG, lower_case=False),
        differences=(*_CASE, *_ONE_CAPTION),
    ),
    Benchmark(
        "docci-cn",
        task=retrieval,
        language="zh",
        read=Reading(read_docci_cn),
        paper=_LONG,
        source=f"{_HUGGING_FACE}/qihoo360/DOCCI-CN",
        released=replace(_LONG, lower_case=False),
        differences=(*_CASE, *_ONE_CAPTION),
    ),
    Benchmark(
        "sharegpt4v-1k",
        task=retrieval,
        language="en",
        read=Reading(read_sharegpt4v_1k),
        paper=_LONG,
        source=f"{_HUGGING_FACE}/Lin-Chen/ShareGPT4V",
        differences=_ONE_CAPTION,
        published={"images": 1000, "items": 1000},
    ),
    Benchmark(
        "dci",
        task=retrieval,
        language="en",
        read=Reading(read_dci),
        paper=_LONG,
        source="https://github.com/facebookresearch/DCI",
        differences=(
            "Captions that are blank, 203 of 7,805, are left out; the released script takes all annotation files.",
            *_ONE_CAPTION,
        ),
        published={"images": 7602, "items": 7602},
    ),
    Benchmark(
        "docci",
        task=retrieval,
        language="en",
        read=Reading(read_docci),
        paper=_LONG,
        source="https://google.github.io/docci/#downloads",
        published={"images": 5000, "items": 5000},
    ),
    Benchmark(
        "urban-1k",
        task=retrieval,
        language="en",
        read=Reading(read_urban_1k),
        paper=_LONG,
        source=f"{_HUGGING_FACE}/BeichenZhang/Urban1k",
        published={"images": 1000, "items": 1000},
    ),
    # Short captions
    Benchmark(
        "flickr30k-cna",
        task=retrieval,
        language="zh",
        read=Reading(read_flickr30k_cna),
        paper=_SEPARATE,
        source=f"{_CCMB}, images: {_FLICKR30K}",
        released=replace(_SEPARATE, lower_case=False),
        r2d2_candidates=128,
        differences=(*_CASE, *_SEPARATE_CAPTIONS, *_R2D2_TIES),
        published={"images": 1000, "items": 5000},
    ),
    Benchmark(
        "coco-cn",
        task=retrieval,
        language="zh",
        read=Reading(read_coco_cn),
        paper=_SEPARATE,
        source=_COCO_CN,
        differences=_SEPARATE_CAPTIONS,
        published={"images": 1000, "items": 5000},
    ),
    Benchmark(
        "coco-cn-written",
        task=retrieval,
        language="zh",
        read=Reading(read_coco_cn, options={"captions": "human-written"}),
        paper=_SHORT,
        source=_COCO_CN,
        differences=("FG-CLIP 2 was measured on the translated captions (`coco-cn`), Chinese-CLIP on these.",),
        published={"images": 1000, "items": 1053},
    ),
    Benchmark(
        "flickr30k-cn",
        task=retrieval,
        language="zh",
        read=Reading(read_chinese_clip, options={"split": "test"}),
        paper=_SHORT,
        source=_CHINESE_CLIP,
        published={"images": 1000, "items": 5000},
    ),
    Benchmark(
        "muge",
        task=retrieval,
        language="zh",
        read=Reading(read_chinese_clip, options={"split": "valid"}),
        paper=_SHORT,
        source=_CHINESE_CLIP,
    ),
    Benchmark(
        "icr",
        task=retrieval,
        language="zh",
        read=Reading(read_icr),
        paper=_SHORT,
        source=_ICR_IMAGES,
        r2d2_candidates=64,
        differences=(*_CCMB_HEAD, *_R2D2_TIES),
    ),
    Benchmark(
        "iqr",
        task=retrieval,
        language="zh",
        read=Reading(read_iqr),
        paper=_SHORT,
        source=_ICR_IMAGES,
        r2d2_candidates=64,
        differences=(*_CCMB_HEAD, *_R2D2_TIES),
    ),
    Benchmark(
        "flickr30k",
        task=retrieval,
        language="en",
        read=Reading(read_flickr30k),
        paper=_SEPARATE,
        source=_FLICKR30K,
        differences=_SEPARATE_CAPTIONS,
        published={"images": 1000, "items": 5000},
    ),
    Benchmark(
        "mscoco",
        task=retrieval,
        language="en",
        read=Reading(read_mscoco),
        paper=_SEPARATE,
        source=_COCO,
        differences=_SEPARATE_CAPTIONS,
        published={"images": 5000, "items": 25000},
    ),
    Benchmark(
        "mscoco-karpathy",
        task=retrieval,
        language="en",
        read=Reading(read_mscoco, options={"split": "karpathy"}),
        paper=_SHORT,
        source=(
            f"{_COCO}, val2014; "
            "https://storage.googleapis.com/sfr-vision-language-research/datasets/coco_karpathy_test.json"
        ),
        differences=("FG-CLIP 2 was measured on val2017 (`mscoco`); many others were on this split.",),
        published={"images": 5000, "items": 25000},
    ),
    Benchmark(
        "xm3600",
        task=retrieval,
        language="en",
        read=Reading(read_xm3600, options={"language": "en"}),
        paper=_SHORT,
        source="https://google.github.io/crossmodal-3600",
        published={"images": 3600},
    ),
    Benchmark(
        "xm3600-zh",
        task=retrieval,
        language="zh",
        read=Reading(read_xm3600, options={"language": "zh"}),
        paper=_SHORT,
        source="https://google.github.io/crossmodal-3600",
        published={"images": 3600},
    ),
    # Boxes
    Benchmark(
        "boxclass-cn",
        task=region_classification,
        language="zh",
        read=Reading(
            read_boxes,
            files={"annotations": _BOXCLASS_CN_BOXES},
            image_places=(),
            options={"language": "zh"},
            settings=("crowds",),
        ),
        paper=replace(_BOXES, templates="none", lower_case=False),
        source=_BOXCLASS_CN,
        differences=(*_NAMES_CASE, *_CROPS),
        published={"images": 24221, "items": 66258, "categories": 566},
    ),
    Benchmark(
        "coco-boxes",
        task=region_classification,
        language="en",
        read=Reading(
            read_coco_boxes, files={"annotations": _COCO_BOXES}, image_places=_COCO_IMAGES, settings=("crowds",)
        ),
        paper=_BOXES,
        source=_COCO,
        differences=_ALL_BOXES,
        published={"images": 4952, "items": 36781, "categories": 80},
    ),
    Benchmark(
        "lvis-boxes",
        task=region_classification,
        language="en",
        read=Reading(read_boxes, files={"annotations": _LVIS_BOXES}, image_places=(), settings=("crowds",)),
        paper=_BOXES,
        source=f"{_LVIS}, images: {_COCO}",
        differences=_ALL_BOXES,
        published={"categories": 1203},
    ),
    # Hard negatives
    *(
        Benchmark(
            f"fg-ovd-{level}",
            task=hard_negatives,
            language="en",
            read=Reading(
                read_fg_ovd,
                files={"path": PublishedFile((*names, *(f"fgovd/{name}" for name in names)), _FG_OVD)},
                image_places=(),
            ),
            paper=HardNegativeSettings(ties="right", crop_edges="whole-corners"),
            source=_FG_OVD,
            differences=_FG_OVD_RULES,
            published={"items": items},
        )
        for level, names, items in (
            ("hard", ("h_attributes_llava.jsonl", "1_attributes_llava.jsonl", "1_attributes.json"), 3545),
            ("medium", ("m_attributes_llava.jsonl", "2_attributes_llava.jsonl", "2_attributes.json"), 2968),
            ("easy", ("e_attributes_llava.jsonl", "3_attributes_llava.jsonl", "3_attributes.json"), 1299),
            ("trivial", ("shuffle_negatives_llava.jsonl", "shuffle_negatives.json"), 3545),
        )
    ),
    # Matching
    Benchmark(
        "icm",
        task=matching,
        language="zh",
        read=Reading(read_matching, files={"path": _ICM}, image_places=_CCMB_IMAGES),
        paper=MatchingSettings(),
        source=_ICR_IMAGES,
        differences=(*_CCMB_HEAD, *_R2D2_AREA),
    ),
    Benchmark(
        "iqm",
        task=matching,
        language="zh",
        read=Reading(read_matching, files={"path": _IQM}, image_places=_CCMB_IMAGES),
        paper=MatchingSettings(),
        source=_ICR_IMAGES,
        differences=(*_CCMB_HEAD, *_R2D2_AREA),
    ),
    # Whole images
    Benchmark(
        "imagenet-1k",
        task=classification,
        language="en",
        read=Reading(read_imagenet, options=_IMAGENET_CLASSES),
        paper=ClassificationSettings(),
        source="https://image-net.org",
        released=ClassificationSettings(max_num_patches=1024, whole_batches_of=128),
        fg_clip_v1=ClassificationSettings(whole_batches_of=64),
        differences=_IMAGENET_1K,
        published={"images": 50000, "items": 50000, "categories": 1000},
    ),
    Benchmark(
        "imagenet-v2",
        task=classification,
        language="en",
        read=Reading(read_imagenet, options=_IMAGENET_CLASSES),
        paper=ClassificationSettings(),
        source=f"{_HUGGING_FACE}/vaishaal/ImageNetV2 (matched-frequency)",
        released=ClassificationSettings(max_num_patches=1024),
        differences=_IMAGENET_V2,
        published={"images": 10000, "items": 10000, "categories": 1000},
    ),
    Benchmark(
        "image-folder",
        task=classification,
        language="en",
        read=Reading(read_image_classes),
        paper=ClassificationSettings(),
        source="a folder of your own",
    ),
    # Boxes of a detector, and pixels
    Benchmark(
        "detection-coco",
        task=detection,
        language="en",
        read=Reading(
            read_detections,
            files={"results": _RESULTS, "ground_truth": _COCO_BOXES},
            image_places=_COCO_IMAGES,
            options={"names": _COCO_NAMES},
            check=check_measurable,
        ),
        paper=DetectionSettings(),
        source=f"results.json of a detector; {_COCO}",
        differences=_FUSION,
    ),
    *(
        Benchmark(
            name,
            task=detection,
            language="en",
            read=Reading(
                read_detections,
                files={"results": _RESULTS, "ground_truth": truth},
                image_places=(),
                check=check_measurable,
            ),
            paper=DetectionSettings(rules="lvis"),
            source=f"results.json of a detector; {_LVIS}, images: {_COCO}",
            differences=_FIXED_AP,
        )
        for name, truth in (("detection-lvis", _LVIS_BOXES), ("detection-lvis-minival", _LVIS_MINIVAL))
    ),
    Benchmark(
        "segmentation",
        task=segmentation,
        language="en",
        read=Reading(read_segmentation_folder),
        paper=SegmentationSettings(),
        source="a folder of your own: images/, masks/, classes.json or classes.txt",
        differences=_NO_HEAD,
    ),
)
