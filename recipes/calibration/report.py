"""Tables and plots of `results.json`, for docs/calibration.md and its Chinese twin.

python -m recipes.calibration.report
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from .pairs import HARD

HERE = Path(__file__).parent
PICTURES = HERE.parents[1] / "docs" / "calibration"
HEADS = {"caption": "short", "long_caption": "long", "region_phrase": "region"}
SHOWN_BUDGET = 100
COLOURS = {"en": "tab:blue", "zh": "tab:red"}


def main() -> None:
    """Write `table.md` and the plots."""
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    (HERE / "table.md").write_text(markdown(results["measured"]), encoding="utf-8")
    PICTURES.mkdir(parents=True, exist_ok=True)
    save(draw_reliability(results["measured"]), PICTURES / "reliability.webp")
    save(draw_false_positives(results["measured"], results["cosines"]), PICTURES / "false_positives.webp")


def markdown(measured: list[dict[str, Any]]) -> str:
    """Return the tables: calibration errors and thresholds, kinds of regions, and pictures from elsewhere."""
    errors = [
        "| head | language | patches | matches / others | before | after | before, 1 in 100 | after, 1 in 100 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    thresholds = [
        "| head | language | patches | cosine for 10% | 1% | 0.1% | false positives above | matches found above |",
        "|---|---|---|---|---|---|---|---|",
    ]
    kinds = ["| pairs | language | patches | before | after |", "|---|---|---|---|---|"]
    elsewhere = [
        "| head | language | patches | matches / others | before | after | false positives above the 1% cosine |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in measured:
        key = f"{HEADS[row['role']]} | {row['language']} | {row['max_num_patches']}"
        errors.append(f"| {key} | {counts(row['all'])} | {' | '.join(error_cells(row['all'], ('0.5', '0.01')))} |")
        shown, above = ("0.1", "0.01", "0.001"), row["all"]
        thresholds.append(
            f"| {key} | "
            + " | ".join(f"{above['thresholds'][rate]:.3f}" for rate in shown)
            + f" | {shares(above['false_positives'], shown, 2)} | {shares(above['true_positives'], shown, 0)} |"
        )
        rest = f"{row['language']} | {row['max_num_patches']}"
        for kind, its in row.get("kinds", {}).items():
            kinds.append(f"| {kind} | {rest} | {' | '.join(error_cells(its, ('0.5',)))} |")
        if "described" in row:
            its = row["described"]
            cells = " | ".join(error_cells(its, ("0.5",)))
            elsewhere.append(f"| {key} | {counts(its)} | {cells} | {100 * its['false_positives']['0.01']:.1f}% |")
    hard = ["| phrases of another thing | language | patches | taken for matches |", "|---|---|---|---|"]
    hard += [
        f"| {row[HARD]['others']:,} | {row['language']} | {row['max_num_patches']} | "
        f"{100 * row[HARD]['taken_for_matches']:.0f}% |"
        for row in measured
        if HARD in row
    ]
    return "\n\n".join("\n".join(table) for table in (errors, thresholds, kinds, hard, elsewhere)) + "\n"


def counts(its: dict[str, Any]) -> str:
    """Return the numbers of pairs as a cell."""
    return f"{its['matches']:,} / {its['others']:,}"


def error_cells(its: dict[str, Any], prevalences: tuple[str, ...]) -> list[str]:
    """Return the calibration errors before and after, for each prevalence."""
    errors = its["calibration_error"]
    return [f"{errors[name][prevalence]:.3f}" for prevalence in prevalences for name in ("before", "after")]


def shares(its: dict[str, float], rates: tuple[str, ...], digits: int) -> str:
    """Return shares above the thresholds as a cell of percents."""
    return " / ".join(f"{100 * its[rate]:.{digits}f}%" for rate in rates)


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
