"""Print `results.json` as the tables of the README.

python -m recipes.embedded_checkpoint.report recipes/embedded_checkpoint/results.json
"""

from __future__ import annotations

import sys

from fgclip2.files import read_json
from fgclip2.languages import LANGUAGES

from .evaluate import ARTISTS


def cell(values: list[float]) -> str:
    return " / ".join(f"{value:.1f}" for value in values)


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def protocol_table(results: dict) -> str:
    rows = []
    for split in (split for split in ARTISTS if split in results):
        protocols = results[split]["protocols"]
        for protocol in (name for name in protocols if name != "chance"):
            for group in ("trained", "held_out"):
                of_group = protocols[protocol][group]
                for direction in ("image_to_text", "text_to_image"):
                    keys = (*LANGUAGES, "pixels")
                    cells = [cell(of_group[key][direction]) if key in of_group else "" for key in keys]
                    name = f"{results[split]['artist']} ({of_group['count']})"
                    rows.append([name, protocol, group.replace("_", " "), direction.replace("_", " "), *cells])
    return table(["artist (pictures)", "protocol", "concepts", "direction", "en", "zh", "pixel 1-NN"], rows)


def caption_table(results: dict) -> str:
    rows = []
    for split in (split for split in ARTISTS if split in results):
        captions = results[split]["long_captions"]
        for direction in ("image_to_text", "text_to_image"):
            cells = [cell(captions[language][direction]) for language in LANGUAGES]
            rows.append([results[split]["artist"], direction.replace("_", " "), *cells, cell(captions["chance"])])
    return table(["artist", "direction", "en", "zh", "chance"], rows)


def region_table(results: dict) -> str:
    rows = []
    for split in (split for split in ARTISTS if split in results):
        regions, artist = results[split]["regions"], results[split]["artist"]
        for method in regions["en"]:
            for group in ("trained", "held_out"):
                cells = [cell(regions[language][method][group]) for language in LANGUAGES]
                rows.append([artist, method.replace("_", " "), group.replace("_", " "), *cells])
        pixels = cell(regions["pixels_of_crop"]["trained"])
        rows.append([artist, "pixel 1-NN of the crop", "trained", pixels, pixels])
        rows.append([artist, "chance", "", cell(regions["chance"]), cell(regions["chance"])])
    return table(["artist", "method", "concepts", "en", "zh"], rows)


def described_table(results: dict) -> str:
    rows = []
    for name, entry in results.get("described", {}).items():
        naming, retrieval = entry["naming_among_837"], entry["retrieval"]
        rows.append(
            [name, f"naming among 837 ({naming['count']})"]
            + [cell(naming[language]) for language in LANGUAGES]
            + [cell(naming["chance"])]
        )
        for length in ("short", "long"):
            if f"en_{length}" in retrieval:
                cells = [cell(retrieval[f"{language}_{length}"]) for language in LANGUAGES]
                task = f"its {length} text among {retrieval['count']}"
                rows.append([name, task, *cells, cell(retrieval["chance"])])
    return table(["set", "task", "en", "zh", "chance"], rows)


def main() -> None:
    results = read_json(sys.argv[1])
    for make in (protocol_table, caption_table, region_table, described_table):
        print(make(results))


if __name__ == "__main__":
    main()
