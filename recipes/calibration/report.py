"""Tables and plots of `results.json`, for docs/calibration.md and its Chinese twin.

python -m recipes.calibration.report
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from fgclip2.languages import LANGUAGES

from .pairs import DRAWINGS, HARD, NAMES, PHRASES, SCENES

HERE = Path(__file__).parent
PICTURES = HERE.parents[1] / "docs" / "calibration"
HEADS = {"caption": "short", "long_caption": "long", "region_phrase": "region"}
SHOWN_BUDGET = 36
COLOURS = {"en": "tab:blue", "zh": "tab:red"}
SHOWN_RATES = ("0.1", "0.01", "0.001")
# (English, Chinese)
HEAD_NAMES = {"caption": ("short", "短描述"), "long_caption": ("long", "长描述"), "region_phrase": ("region", "区域")}
KIND_NAMES = {
    SCENES: ("short captions of scenes", "场景的短描述"),
    DRAWINGS: ("single drawings", "单个图画"),
    PHRASES: ("phrases of regions", "区域的短语"),
    NAMES: ("names of regions", "区域的名称"),
}
METHODS = ("platt", "isotonic")
COLUMNS: dict[str, tuple[str, ...]] = {
    "tried": ("head | a line | an isotonic curve", "文本头 | 直线 | 保序曲线"),
    "errors": (
        "head | language | patches | matches / others | before | after | before, 1 in 100 | after, 1 in 100",
        "文本头 | 语言 | 图块数 | 匹配 / 不匹配 | 之前 | 之后 | 之前，百分之一 | 之后，百分之一",
    ),
    "thresholds": (
        "head | language | patches | cosine for 10% | 1% | 0.1% | false positives above | matches found above",
        "文本头 | 语言 | 图块数 | 10% 的余弦 | 1% | 0.1% | 超过的不匹配 | 超过的匹配",
    ),
    "kinds": ("pairs | language | patches | before | after", "图文对 | 语言 | 图块数 | 之前 | 之后"),
    "hard": (
        "phrases of another thing | language | patches | taken for matches",
        "物体不对的短语 | 语言 | 图块数 | 被当作匹配",
    ),
    "described": (
        "head | language | patches | matches / others | before | after | false positives above the 1% cosine",
        "文本头 | 语言 | 图块数 | 匹配 / 不匹配 | 之前 | 之后 | 超过 1% 余弦的不匹配",
    ),
}


def main() -> None:
    """Write the tables of both languages and the plots."""
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    for language in LANGUAGES:
        name = "table.md" if language == "en" else f"table_{language}.md"
        (HERE / name).write_text(markdown(results, language), encoding="utf-8")
    PICTURES.mkdir(parents=True, exist_ok=True)
    save(draw_reliability(results["measured"]), PICTURES / "reliability.webp")
    save(draw_false_positives(results["measured"], results["cosines"]), PICTURES / "false_positives.webp")


def markdown(results: dict[str, Any], language: str) -> str:
    """Return the tables: what was tried, errors, thresholds, kinds of pairs, and pictures from elsewhere."""
    number = LANGUAGES.index(language)  # type: ignore[arg-type]
    # By `auto` all these pictures have 128 patches: its rows would be the same.
    measured = [row for row in results["measured"] if row["max_num_patches"] != "auto"]
    rows: dict[str, list[Iterable[str]]] = {name: [] for name in COLUMNS}
    for role, errors in results["tried"].items():
        rows["tried"].append([HEAD_NAMES[role][number], *(f"{errors[method]:.4f}" for method in METHODS)])
    for row in measured:
        rest = [row["language"], str(row["max_num_patches"])]
        key, its = [HEAD_NAMES[row["role"]][number], *rest], row["all"]
        rows["errors"].append([*key, counts(its), *error_cells(its, ("0.5", "0.01"))])
        cosines = [f"{its['thresholds'][rate]:.3f}" for rate in SHOWN_RATES]
        found = [shares(its["false_positives"], 2), shares(its["true_positives"], 0)]
        rows["thresholds"].append([*key, *cosines, *found])
        for kind, of_kind in row.get("kinds", {}).items():
            rows["kinds"].append([KIND_NAMES[kind][number], *rest, *error_cells(of_kind, ("0.5",))])
        if HARD in row:
            taken = f"{100 * row[HARD]['taken_for_matches']:.0f}%"
            rows["hard"].append([f"{row[HARD]['others']:,}", *rest, taken])
        if "described" in row:
            its = row["described"]
            above = f"{100 * its['false_positives']['0.01']:.1f}%"
            rows["described"].append([*key, counts(its), *error_cells(its, ("0.5",)), above])
    tables = []
    for name, columns in COLUMNS.items():
        lines = [columns[number], *(" | ".join(cells) for cells in rows[name])]
        rule = "|" + "---|" * (columns[number].count("|") + 1)
        tables.append("\n".join([f"| {lines[0]} |", rule, *(f"| {line} |" for line in lines[1:])]))
    return "\n\n".join(tables) + "\n"


def counts(its: dict[str, Any]) -> str:
    """Return the numbers of pairs as a cell."""
    return f"{its['matches']:,} / {its['others']:,}"


def error_cells(its: dict[str, Any], prevalences: tuple[str, ...]) -> list[str]:
    """Return the calibration errors before and after, for each prevalence."""
    errors = its["calibration_error"]
    return [f"{errors[name][prevalence]:.3f}" for prevalence in prevalences for name in ("before", "after")]


def shares(its: dict[str, float], digits: int) -> str:
    """Return shares above the thresholds as a cell of percents."""
    return " / ".join(f"{100 * its[rate]:.{digits}f}%" for rate in SHOWN_RATES)


def draw_reliability(measured: list[dict[str, Any]]) -> Any:
    """Draw how often pairs match by their probability, before and after, a panel for each head."""
    figure, panels = three_panels()
    for panel, (role, head) in zip(panels, HEADS.items(), strict=True):
        panel.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        for row in rows_of(measured, role):
            for name, style in (("before", ":"), ("after", "-")):
                points = row["all"]["reliability"][name]
                label = f"{row['language']} {name} (ECE {row['all']['calibration_error'][name]['0.5']:.3f})"
                panel.plot(
                    *zip(*[point[:2] for point in points], strict=True),
                    f"o{style}",
                    color=COLOURS[row["language"]],
                    markersize=3,
                    label=label,
                )
        panel.set_title(f"{head}, {SHOWN_BUDGET} patches")
        panel.set_xlabel("probability")
        panel.legend(fontsize="small", loc="upper left")
    panels[0].set_ylabel("share that match")
    return figure


def draw_false_positives(measured: list[dict[str, Any]], cosines: list[float]) -> Any:
    """Draw the shares of others and of matches above each cosine, a panel for each head."""
    figure, panels = three_panels()
    for panel, (role, head) in zip(panels, HEADS.items(), strict=True):
        for row in rows_of(measured, role):
            colour, its = COLOURS[row["language"]], row["all"]
            panel.plot(cosines, its["false_positives_by_cosine"], color=colour, label=f"{row['language']} others")
            panel.plot(cosines, its["true_positives_by_cosine"], ":", color=colour, label=f"{row['language']} matches")
            panel.axvline(its["thresholds"]["0.01"], color=colour, linewidth=0.5)
        panel.axhline(0.01, color="0.8", linewidth=1)
        panel.set_yscale("log")
        panel.set_ylim(1e-4, 1.5)
        panel.set_title(f"{head}, {SHOWN_BUDGET} patches")
        panel.set_xlabel("cosine")
        panel.legend(fontsize="small", loc="lower left")
    panels[0].set_ylabel("share above")
    return figure


def three_panels() -> tuple[Any, Any]:
    """Return a figure with three panels side by side."""
    from matplotlib.figure import Figure  # not pyplot, which may want a screen

    figure = Figure(figsize=(12, 4), layout="constrained")
    return figure, figure.subplots(1, 3)


def rows_of(measured: list[dict[str, Any]], role: str) -> list[dict[str, Any]]:
    """Return what is drawn of a head."""
    return [row for row in measured if row["role"] == role and row["max_num_patches"] == SHOWN_BUDGET]


def save(figure: Any, path: Path) -> None:
    """Write a figure as WebP, which keeps lines sharp at a few kilobytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    Image.open(drawn).convert("RGB").save(path, lossless=True)


if __name__ == "__main__":
    main()
