"""The results of `evaluate.py` as Markdown tables."""

from __future__ import annotations

from fgclip2.languages import LANGUAGES


def cell(value: dict | float) -> str:
    """`12.3 (10.4-14.2)`, or a plain number where there is no interval."""
    if not isinstance(value, dict):
        return f"{value:.1f}"
    low, high = value["interval"]
    return f"{value['percent']:.1f} ({low:.1f}-{high:.1f})"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def caption_rows(results: dict) -> list[list[str]]:
    rows = []
    for budget, by_language in results["model"].items():
        first = by_language["en"]["captions"]
        for length, directions in first.items():
            for direction, recalls in directions.items():
                for k in recalls:
                    values = [by_language[language]["captions"][length][direction][k] for language in LANGUAGES]
                    chance = results["controls"]["chance"]["captions"][k]
                    task = f"{length} caption, {direction.replace('_', ' ')}, {k}"
                    rows.append([budget, task, *map(cell, values), f"chance {chance:g}"])
    return rows


def free_language_rows(results: dict) -> list[list[str]]:
    """Recall@1 from text to image, by wording and head; the share of the composed captions' by the same head beside."""
    rows = []
    for budget, by_language in results["model"].items():
        for wording, heads in by_language["en"]["free_language"].items():
            for head in heads:
                found, of_composed = [], []
                for language in LANGUAGES:
                    free = by_language[language]["free_language"]
                    value, composed = (free[name][head]["text_to_image"]["recall@1"] for name in (wording, "composed"))
                    found.append(cell(value))
                    of_composed.append(f"{value['percent'] / composed['percent']:.2f}" if composed["percent"] else "-")
                task = f"{wording.replace('_', ' ')}, {head} head, text to image, recall@1"
                rows.append([budget, task, *found, f"of composed: {' / '.join(of_composed)}"])
    return rows


def box_rows(results: dict) -> list[list[str]]:
    controls, rows = results["controls"], []
    for budget, by_language in results["model"].items():
        for k, pixels in controls["box_names_by_pixels_of_crop"].items():
            values = [by_language[language]["box_names"][k] for language in LANGUAGES]
            control = f"chance {controls['chance']['box_names'][k]:g}, pixels {cell(pixels)}"
            rows.append([budget, f"name of the thing in a box, {k}", *map(cell, values), control])
    return rows


def hard_negative_rows(results: dict) -> list[list[str]]:
    """The model, the text tower alone and the text classifier, each for all ten and by kind."""
    rows = []
    for budget, by_language in results["model"].items():
        by_method = {
            "": [by_language[language]["hard_negatives"] for language in LANGUAGES],
            ", text tower alone": [
                by_language[language]["hard_negatives_by_text_tower_alone"] for language in LANGUAGES
            ],
            ", text classifier": [
                results["controls"]["hard_negatives_by_text_classifier"][language] for language in LANGUAGES
            ],
        }
        for method, of_language in by_method.items():
            chance = results["controls"]["chance"]
            values = [cell(one["beats_all"]) for one in of_language]
            rows.append([budget, f"all ten hard negatives beaten{method}", *values, f"chance {chance['beats_all']:g}"])
            for kind, of_kind in of_language[0]["pairwise"].items():
                values = [cell(one["pairwise"][kind]) for one in of_language]
                task = f"one of kind {kind} ({of_kind['count']}) beaten{method}"
                rows.append([budget, task, *values, f"chance {chance['pairwise']:g}"])
    return rows


def markdown(results: dict) -> str:
    """All numbers in percent with 95% intervals, and what they were made with."""
    settings, checkpoint = results["settings"], results["checkpoint"]
    lines = [
        f"Checkpoint {checkpoint['name']} (fingerprint {checkpoint['fingerprint']}) on {settings['scenes']} scenes, "
        f"{settings['regions']} regions, of the split `{settings['split']}` (seed {settings['seed']}). Percent, with "
        "95% bootstrap intervals over scenes.\n",
        table(
            ["patches", "task", *LANGUAGES, "control"],
            caption_rows(results) + free_language_rows(results) + box_rows(results) + hard_negative_rows(results),
        ),
    ]
    return "\n".join(lines)
