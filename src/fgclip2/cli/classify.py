"""`fgclip2 classify`: label whole images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..files import printable
from . import common

EXAMPLES = """
fgclip2 classify dog.png --labels "dog,cat,bird"
fgclip2 classify 照片/*.jpg --labels "猫,狗,鸟" --template "一张{}的照片"
"""


def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files to label.")],
    labels: common.Labels = None,
    labels_file: common.LabelsFile = None,
    template: common.Templates = None,
    top_k: common.TopK = 5,
    calibration: common.CalibrationFile = None,
    min_probability: common.MinProbability = None,
    prevalence: common.Prevalence = None,
    max_patches: common.MaxPatches = None,
    max_pixels: common.MaxPixels = None,
    skip_errors: common.SkipErrors = False,
    model: common.Model = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
) -> None:
    """Score images against labels.

    With FG-CLIP 2 the score is the probability that a label fits. Labels don't compete, so the scores need not sum to
    1. With FG-CLIP v1 it is the share of a label among all that are given: the scores sum to 1, and of a single label
    it is 1, whatever the image shows.

    Where there is a calibration (`fgclip2 calibrate`), the probability that a label fits stands behind the score, as p.
    If none of the labels of an image reaches --min-probability, it says that nothing here matches.
    """
    names = common.read_labels(labels, labels_file)
    common.refuse_folders(images)
    budget = common.parse_max_patches(max_patches)
    from ..embedding import fill_templates

    embedder = common.load_embedder(model, device, max_pixels=max_pixels)
    on_error = "skip" if skip_errors else "raise"
    least = common.use_calibration(embedder, calibration, min_probability, prevalence)
    label_vectors = embedder.encode_labels(names, template or "{}")
    encoded = embedder.encode_images(images, budget, on_error=on_error)
    vectors, skipped = encoded if isinstance(encoded, tuple) else (encoded, [])
    cosines = embedder.similarity(vectors, label_vectors)  # (images, labels)
    scores = embedder.probabilities(cosines)
    texts = fill_templates(names, (template or ["{}"])[:1])
    common.tell_missing_curves(embedder, texts, "auto", budget, calibration, min_probability, prevalence)
    probabilities = common.match_probabilities(embedder, cosines, texts, "auto", budget)
    left_out = common.report_skipped(common.without_indices(images, skipped))
    indices = {index for index, _ in skipped}
    used = [image for index, image in enumerate(images) if index not in indices]
    results: list[dict[str, Any]] = []
    for row, image in enumerate(used):
        its = None if probabilities is None else probabilities[row]
        labelled = common.rank_labels(names, scores[row], len(names), probability=its)
        results.append({"image": str(image), "labels": labelled[:top_k]})
        if its is not None:
            results[-1]["nothing_matches"] = common.shows_no_match(labelled, least)
    if as_json:
        common.print_json({"model": embedder.name, "results": results, "skipped": left_out})
        return
    for result in results:
        typer.echo(printable(result["image"]))
        common.print_labels(result["labels"])
        if result.get("nothing_matches"):
            typer.echo(f"  nothing here matches: no label has a probability of {least:g}")
