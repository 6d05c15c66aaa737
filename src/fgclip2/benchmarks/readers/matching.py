"""Texts that fit an image or don't: ICM and IQM of CCMB."""

from __future__ import annotations

from pathlib import Path

from ...data.readers.checks import check_text, shown
from ...data.records import InvalidRecordError
from ..base import Problem
from ..tasks.matching import MatchingData
from ._files import NamedImages, check_usable, numbered_json_lines, problem_of


def read_matching(path: str | Path, images: str | Path, *, follow_links: bool = False) -> MatchingData:
    """Read pairs of image and text that are labelled as fitting or not.

    ICM (long captions, `ICM/val/long_itm_val.json`) and IQM (queries, `IQM/val/short_itm_val.json`), where `val` serves
    as the test: lines of JSON with `text`, `image_path` and `label`, 1 for a pair that fits and 0 for one that doesn't.
    Of a path the last part names the image, in `IQR_IQM_ICR_ICM_images/`. Source: yuxie11/R2D2,
    `data/matching_datasets.py`.

    Args:
        path: The file.
        images, follow_links: Folder or archives of the images, as for `ImageStore`.

    Returns:
        Images and texts, each once, and the pairs in the order of the file; lines that can't be used are its problems.

    Raises:
        ValueError: The file is missing, no line can be used, or all have the same label, so that nothing is measured.
    """
    problems: list[Problem] = []
    doubts: list[Problem] = []
    found = NamedImages(images, follow_links)
    texts: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    labels: list[bool] = []
    for source, record in numbered_json_lines(path, problems, doubts):
        try:
            text = check_text(record.get("text"), "text", source)
            label = record.get("label")
            if not isinstance(label, int) or label not in (0, 1):
                raise InvalidRecordError(source, "label", shown(label), "0 or 1")
            name = check_text(record.get("image_path"), "image_path", source)
            image = found.index(name, "image_path", source)
        except InvalidRecordError as error:
            problems.append(problem_of(error))
            continue
        pairs.append((image, texts.setdefault(text, len(texts))))
        labels.append(bool(label))
    check_usable(len(pairs), path, problems)
    if len(set(labels)) == 1:
        raise ValueError(f"{path}: label is {int(labels[0])} in all lines, but both 0 and 1 are needed")
    return MatchingData(
        images=found.files, texts=list(texts), pairs=pairs, labels=labels, problems=problems, doubts=doubts
    )
