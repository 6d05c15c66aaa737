"""Images and captions for retrieval, from the files that the data sets' owners publish.

All readers take the folder of a data set and, where its images lie elsewhere, theirs (`images`: a folder or a zip
archive). Links that lead out of either are not followed, unless `follow_links=True`. Texts are UTF-8, with or without a
byte order mark. A record that can't be used becomes a problem of the result; a file that is missing or broken as a
whole, or has not one record that can be used, raises `ValueError`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ...checks import one_of
from ...data.readers.ccmb import split_key
from ...data.readers.checks import check_language, check_text, shown
from ...data.readers.files import scan_list
from ...data.records import InvalidRecordError
from ...files import read_json
from ...languages import Language
from ..tasks.retrieval import RetrievalData
from ._caption_files import (
    CaptionCollector,
    Folder,
    decode_text,
    find_file,
    find_folder,
    find_images,
    numbered_lines,
)
from ._files import check_list, check_object, numbered_json_lines, shifted_ids

COCOCNCaptions = Literal["manually-translated", "human-written"]
COCOSplit = Literal["val2017", "karpathy"]

CAPTIONS_PER_IMAGE = 5  # Flickr30k has five; of COCO, where some images have more, the first five count
SHAREGPT4V_IMAGES = 1000

_COCO_2014 = re.compile(r"COCO_(train|val)2014_(\d{12})")
_HUGGING_FACE = "https://huggingface.co/datasets"
_SALESFORCE = "https://storage.googleapis.com/sfr-vision-language-research/datasets"
_CCMB = "https://zero.so.com"


# ---------------------------------------------------------------------------------------------------------------------
# Chinese: lines of text
# ---------------------------------------------------------------------------------------------------------------------


def read_lit_cn(folder: Folder, images: Folder | None = None, *, follow_links: bool = False) -> RetrievalData:
    """Read LIT-CN: lines `path TAB caption` of `image_caption_long_cn.txt`.

    Source: scripts/eval/eval.sh of github.com/360CVGroup/FG-CLIP names the file. Not verified: where its paths begin;
    their longest end that is found counts.
    """
    return _read_paths(folder, images, "LIT-CN", "image_caption_long_cn.txt", follow_links)


def read_dci_cn(folder: Folder, images: Folder | None = None, *, follow_links: bool = False) -> RetrievalData:
    """Read DCI-CN: lines `path TAB caption` of `image_caption_trans.txt`, images in `images/images_1.zip` and `_2.zip`.

    Source: https://huggingface.co/datasets/qihoo360/DCI-CN; scripts/eval/eval.sh of github.com/360CVGroup/FG-CLIP. Not
    verified: where the paths begin; their longest end that is found counts.
    """
    return _read_paths(folder, images, "DCI-CN", "image_caption_trans.txt", follow_links)


def read_docci_cn(folder: Folder, images: Folder | None = None, *, follow_links: bool = False) -> RetrievalData:
    """Read DOCCI-CN: lines `path TAB caption` of `image_caption_trans.txt`, images in `images.zip`.

    Source: https://huggingface.co/datasets/qihoo360/DOCCI-CN; scripts/eval/eval.sh of github.com/360CVGroup/FG-CLIP.
    Not verified: where the paths begin; their longest end that is found counts.
    """
    return _read_paths(folder, images, "DOCCI-CN", "image_caption_trans.txt", follow_links)


def read_flickr30k_cna(folder: Folder, images: Folder | None = None, *, follow_links: bool = False) -> RetrievalData:
    """Read Flickr30k-CNA, test: lines `id#k TAB caption` of `flickr30k_cna_test.txt`, images `id.jpg`.

    Source: data/flickr30k_cna_dataset.py of github.com/yuxie11/R2D2. https://zero.so.com/detail.html shows lines
    without `#k`; they are read too.
    """
    path = find_file(folder, ("test/flickr30k_cna_test.txt", "flickr30k_cna_test.txt"), _CCMB)
    collector = CaptionCollector(
        find_images(folder, images, "Flickr30k-images", "flickr30k-images", follow_links=follow_links), follow_links
    )
    for source, key, caption in _keyed_captions(path, collector):
        collector.add_column(source, ("the image's id", f"{key}.jpg"), caption)
    return collector.data(path)


def read_coco_cn(
    folder: Folder,
    images: Folder | None = None,
    captions: COCOCNCaptions = "manually-translated",
    *,
    follow_links: bool = False,
) -> RetrievalData:
    """Read COCO-CN, test.

    Sources: the release coco-cn-version1805v1.1, https://huggingface.co/datasets/AIMClab-RUC/COCO-CN by
    github.com/li-xirong/coco-cn, lines `id#k TAB caption`; `pair.txt` of github.com/360CVGroup/FG-CLIP, as
    fgclip2/eval/coco_cn.py there reads it, lines `id#zhm#k caption`.

    Args:
        folder: Has the release, or `pair.txt`.
        images: Has `train2014/` and `val2014/` of COCO, in folders or archives.
        captions: "manually-translated": five for each of 1,000 images, which FG-CLIP 2 reports; "human-written": 1,053
            for the same images, which Chinese-CLIP reports (github.com/OFA-Sys/Chinese-CLIP/issues/175).
    """
    origin = f"{_HUGGING_FACE}/AIMClab-RUC/COCO-CN"
    names = {
        "manually-translated": ("imageid.manually-translated-caption.txt", "pair.txt"),
        "human-written": ("imageid.human-written-caption.txt",),
    }
    if captions not in names:
        raise ValueError(f"captions must be {one_of(names)}, got {captions!r}")
    path = find_file(folder, names[captions], origin)
    collector = CaptionCollector(find_images(folder, images, follow_links=follow_links), follow_links)
    test = None
    if captions == "human-written":
        lines = numbered_lines(find_file(folder, ("coco-cn_test.txt",), origin), collector.doubts)
        test = {decode_text(line, source).strip() for source, line in lines}
    for source, key, caption in _keyed_captions(path, collector):
        if test is None or key in test:
            with collector.checking():
                collector.add_column(source, ("the image's id", _coco_2014_name(key, source)), caption)
    return collector.data(path)


def _coco_2014_name(key: str, source: str) -> str:
    match = _COCO_2014.fullmatch(key)
    if not match:
        allowed = "COCO_train2014_ or COCO_val2014_ with 12 digits, # and a number"
        raise InvalidRecordError(source, "the image's id", shown(key), allowed)
    return f"{match[1]}2014/{key}.jpg"


def _read_paths(folder: Folder, images: Folder | None, name: str, file_name: str, follow_links: bool) -> RetrievalData:
    path = find_file(folder, (file_name, f"{name}/{file_name}"), f"{_HUGGING_FACE}/qihoo360/{name}")
    collector = CaptionCollector(find_images(path.parent, images, follow_links=follow_links), follow_links)
    for source, line in numbered_lines(path, collector.doubts):
        with collector.checking():
            image, tab, caption = decode_text(line, source).partition("\t")
            if not tab:
                raise InvalidRecordError(source, "the line", shown(image), "a path, a tab and a caption")
            collector.add_column(source, ("the path", image.strip()), caption.strip())
    return collector.data(path)


def _keyed_captions(path: Path, collector: CaptionCollector) -> Iterator[tuple[str, str, str]]:
    """Yield (source, image's id, caption) of lines `id#k TAB caption`; some files have a space for the tab."""
    for source, line in numbered_lines(path, collector.doubts):
        with collector.checking():
            yield source, *split_key(decode_text(line, source), source)


# ---------------------------------------------------------------------------------------------------------------------
# Chinese: CCMB
# ---------------------------------------------------------------------------------------------------------------------


def read_icr(folder: Folder, images: Folder | None = None, *, follow_links: bool = False) -> RetrievalData:
    """Read ICR of CCMB, images and their captions: its val serves as test.

    Source: data/icr_dataset.py of github.com/yuxie11/R2D2, https://zero.so.com/detail.html: lines of JSON with `text`
    and `image_path`.

    Args:
        folder: Has `ICR/val/long_itr_val.json` and `IQR_IQM_ICR_ICM_images/`.
    """
    return _read_ccmb(folder, images, "ICR", "long_itr_val.json", follow_links)


def read_iqr(folder: Folder, images: Folder | None = None, *, follow_links: bool = False) -> RetrievalData:
    """Read IQR of CCMB, images and queries that led to them: its val serves as test.

    Source: data/iqr_dataset.py of github.com/yuxie11/R2D2, https://zero.so.com/detail.html: lines of JSON with `text`
    and `image_path`.

    Args:
        folder: Has `IQR/val/short_itr_val.json` and `IQR_IQM_ICR_ICM_images/`.
    """
    return _read_ccmb(folder, images, "IQR", "short_itr_val.json", follow_links)


def _read_ccmb(folder: Folder, images: Folder | None, task: str, name: str, follow_links: bool) -> RetrievalData:
    path = find_file(folder, (f"{task}/val/{name}", f"val/{name}", name), _CCMB)
    collector = CaptionCollector(
        find_images(folder, images, "IQR_IQM_ICR_ICM_images", follow_links=follow_links), follow_links
    )
    for source, record in numbered_json_lines(path, collector.problems, collector.doubts):
        collector.add(source, ("image_path", record.get("image_path")), {"text": record.get("text")})
    return collector.data(path)


# ---------------------------------------------------------------------------------------------------------------------
# English: long captions
# ---------------------------------------------------------------------------------------------------------------------


def read_sharegpt4v_1k(folder: Folder, images: Folder | None = None, *, follow_links: bool = False) -> RetrievalData:
    """Read ShareGPT4V-1k: the first 1,000 records of `share-captioner_coco_lcs_sam_1246k_1107.json`.

    Source: https://huggingface.co/datasets/Lin-Chen/ShareGPT4V; fgclip/eval/shareg4v_retrieval.py of
    github.com/360CVGroup/FG-CLIP: a list of `image` and `conversations`, of which the second has the caption.
    """
    path = find_file(folder, ("share-captioner_coco_lcs_sam_1246k_1107.json",), f"{_HUGGING_FACE}/Lin-Chen/ShareGPT4V")
    collector = CaptionCollector(find_images(folder, images, follow_links=follow_links), follow_links)
    for span in islice(scan_list(path), SHAREGPT4V_IMAGES):  # no more of the file: it may be larger than memory
        source = f"{path}:{span.number}"
        if not span.length:
            raise ValueError(f"{source} is broken or cut off at byte {span.start}; it must be one JSON list in UTF-8")
        with collector.checking():
            record = check_object(span.item, source)
            turns = check_list(record.get("conversations"), "conversations", source)
            turn = check_object(turns[1] if len(turns) > 1 else None, source, "conversations[1]")
            collector.add(source, ("image", record.get("image")), {"conversations[1].value": turn.get("value")})
    return collector.data(path)


def read_dci(folder: Folder, images: Folder | None = None, *, follow_links: bool = False) -> RetrievalData:
    """Read DCI: the `extra_caption` of every file in `annotations/`, images in `photos/`.

    203 of the 7,805 captions are blank, as published: they are left out, and are no problems. 7,602 stay.

    Source: dataset/densely_captioned_images/dataset/dense_image.py of github.com/facebookresearch/DCI. FG-CLIP 2 takes
    all files and this caption (fgclip2/eval/dci_retrieval.py of github.com/360CVGroup/FG-CLIP).

    Args:
        folder: Has `annotations/`, or `densely_captioned_images/` which has it.
    """
    origin = "https://github.com/facebookresearch/DCI"
    root = find_folder(folder, "annotations", "densely_captioned_images", origin)
    collector = CaptionCollector(find_images(root, images, "photos", follow_links=follow_links), follow_links)
    for path in sorted((root / "annotations").glob("[!.]*.json")):
        with collector.checking():
            try:
                content = read_json(path)
            except ValueError as error:
                raise InvalidRecordError(str(path), "the file", "broken or cut off", "JSON in UTF-8") from error
            record = check_object(content, str(path))
            caption = record.get("extra_caption")
            if not (isinstance(caption, str) and not caption.strip()):
                collector.add(str(path), ("image", record.get("image")), {"extra_caption": caption})
    return collector.data(root / "annotations")


def read_docci(folder: Folder, images: Folder | None = None, *, follow_links: bool = False) -> RetrievalData:
    """Read DOCCI, test: `docci_descriptions.jsonlines`, images in `images/`, where docci_images.tar.gz unpacks them.

    Source: https://google.github.io/docci: lines of JSON with `example_id`, `split`, `image_file`, `description`.
    """
    path = find_file(folder, ("docci_descriptions.jsonlines",), "https://google.github.io/docci/#downloads")
    collector = CaptionCollector(find_images(folder, images, follow_links=follow_links), follow_links)
    for source, record in numbered_json_lines(path, collector.problems, collector.doubts):
        with collector.checking():
            if check_text(record.get("split"), "split", source) == "test":
                description = {"description": record.get("description")}
                collector.add(source, ("image_file", record.get("image_file")), description)
    return collector.data(path)


def read_urban_1k(folder: Folder, images: Folder | None = None, *, follow_links: bool = False) -> RetrievalData:
    """Read Urban-1k: the first line of each `caption/N.txt`, with the image `image/N.jpg`.

    Source: https://huggingface.co/datasets/BeichenZhang/Urban1k; eval/retrieval/Urban1k.py of
    github.com/beichenzbc/Long-CLIP.

    Args:
        folder: Has `caption/` and `image/`, or `Urban1k/` which has them.
    """
    root = find_folder(folder, "caption", "Urban1k", f"{_HUGGING_FACE}/BeichenZhang/Urban1k")
    collector = CaptionCollector(find_images(root, images, "image", follow_links=follow_links), follow_links)
    for path in sorted((root / "caption").glob("[!.]*.txt"), key=lambda path: (len(path.stem), path.stem)):
        source, line = next(numbered_lines(path, collector.doubts), (str(path), b""))
        with collector.checking():
            caption = {"caption": decode_text(line, source).strip()}
            collector.add(source, ("the image", f"{path.stem}.jpg"), caption)
    return collector.data(root / "caption")


# ---------------------------------------------------------------------------------------------------------------------
# English: several short captions
# ---------------------------------------------------------------------------------------------------------------------


def read_flickr30k(folder: Folder, images: Folder | None = None, *, follow_links: bool = False) -> RetrievalData:
    """Read Flickr30k, the 1,000 images of Karpathy's test split: `flickr30k_test.json`, else `dataset_flickr30k.json`.

    Sources: the first is of github.com/salesforce/ALBEF, a list of `image` and `caption`, a list of five; the second is
    Karpathy's (https://cs.stanford.edu/people/karpathy/deepimagesent), `images` with `filename`, `split` and
    `sentences[].raw`.
    """
    path = find_file(folder, ("flickr30k_test.json", "dataset_flickr30k.json"), f"{_SALESFORCE}/flickr30k_test.json")
    place = find_images(folder, images, "flickr30k-images", "Flickr30k-images", follow_links=follow_links)
    return _read_karpathy_test(path, place, follow_links)


def read_mscoco(
    folder: Folder, images: Folder | None = None, split: COCOSplit = "val2017", *, follow_links: bool = False
) -> RetrievalData:
    """Read MSCOCO: 5,000 images with their first five captions.

    Sources: https://cocodataset.org/#format-data for `captions_val2017.json`, which FG-CLIP 2 uses
    (scripts/eval/eval.sh of github.com/360CVGroup/FG-CLIP); those of `read_flickr30k` for `coco_karpathy_test.json`
    and `dataset_coco.json`.

    Args:
        folder: Has `annotations/`, and the images in `val2017/` or `val2014/`, folders or archives.
        split: Which images: "val2017" of COCO, or "karpathy", Karpathy's test split of val2014.
    """
    if split == "val2017":
        name = "captions_val2017.json"
        path = find_file(folder, (f"annotations/{name}", name), "https://cocodataset.org/#download")
        place = find_images(folder, images, "val2017", follow_links=follow_links)
        return _read_coco_captions(path, place, follow_links)
    if split != "karpathy":
        raise ValueError(f"split must be 'val2017' or 'karpathy', got {split!r}")
    names = [
        f"{part}{name}" for name in ("coco_karpathy_test.json", "dataset_coco.json") for part in ("annotations/", "")
    ]
    path = find_file(folder, names, f"{_SALESFORCE}/coco_karpathy_test.json")
    return _read_karpathy_test(path, find_images(folder, images, follow_links=follow_links), follow_links)


def read_xm3600(
    folder: Folder, images: Folder | None = None, language: Language = "en", *, follow_links: bool = False
) -> RetrievalData:
    """Read XM3600 (Crossmodal-3600): the captions of one language in `captions.jsonl`, images `key.jpg`.

    Source: https://google.github.io/crossmodal-3600: lines of JSON with `image/key` and, for each language, `caption`,
    a list.

    Args:
        folder: Has `captions.jsonl` and the images, or `images/` with them.
        language: "en" or "zh".
    """
    check_language(language, "language", "read_xm3600")
    path = find_file(folder, ("captions.jsonl",), "https://google.github.io/crossmodal-3600/#downloads")
    collector = CaptionCollector(find_images(folder, images, follow_links=follow_links), follow_links)
    for source, record in numbered_json_lines(path, collector.problems, collector.doubts):
        with collector.checking():
            captions = check_object(record.get(language), source, language)
            texts = _numbered(captions.get("caption"), f"{language}.caption", source)
            key = record.get("image/key")
            collector.add(source, ("image/key", f"{key}.jpg" if isinstance(key, str) else key), texts)
    return collector.data(path)


def _read_karpathy_test(path: Path, images: Path, follow_links: bool) -> RetrievalData:
    collector = CaptionCollector(images, follow_links)
    if not path.name.startswith("dataset_"):  # ALBEF's list
        for source, record in numbered_json_lines(path, collector.problems, collector.doubts):
            with collector.checking():
                captions = _numbered(record.get("caption"), "caption", source, CAPTIONS_PER_IMAGE)
                collector.add(source, ("image", record.get("image")), captions)
        return collector.data(path)
    for source, record in collector.members(read_json(path), "images", path):
        if record.get("split", "test") != "test":
            continue
        with collector.checking():
            sentences = _numbered(record.get("sentences"), "sentences", source, CAPTIONS_PER_IMAGE)
            captions = {
                f"{field}.raw": check_object(sentence, source, field).get("raw")
                for field, sentence in sentences.items()
            }
            name, part = record.get("filename"), record.get("filepath")  # COCO's has both
            collector.add(source, ("filename", f"{part}/{name}" if part and name else name), captions)
    return collector.data(path)


def _read_coco_captions(path: Path, images: Path, follow_links: bool) -> RetrievalData:
    document, collector = read_json(path), CaptionCollector(images, follow_links)
    captions: defaultdict[int, dict[str, Any]] = defaultdict(dict)  # image -> field -> caption
    for source, record in collector.members(document, "annotations", path):
        with collector.checking():
            number = _check_id(record.get("image_id"), "image_id", source)
            captions[number][f"caption of {source.rpartition(':')[2]}"] = record.get("caption")
    named = set(captions)
    for source, record in collector.members(document, "images", path):
        with collector.checking():
            number = _check_id(record.get("id"), "id", source)
            if number not in captions:
                raise InvalidRecordError(source, "id", str(number), "an image that has captions, once")
            first = dict(islice(captions.pop(number).items(), CAPTIONS_PER_IMAGE))
            collector.add(source, ("file_name", record.get("file_name")), first)
    ids = [image.get("id") for image in document["images"] if isinstance(image, dict)]
    collector.doubts += shifted_ids("image_id", named, ids, f"{path}: annotations")
    for number, orphans in captions.items():
        with collector.checking():
            field = f"image_id of the {', the '.join(orphans)}"
            raise InvalidRecordError(str(path), field, str(number), "the id of an image")
    return collector.data(path)


def _check_id(value: Any, field: str, source: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRecordError(source, field, shown(value), "an integer")
    return value


def _numbered(values: Any, field: str, source: str, count: int | None = None) -> dict[str, Any]:
    """Return the first values in a list, by the names of their fields."""
    return {f"{field}[{index}]": value for index, value in enumerate(check_list(values, field, source)[:count])}
