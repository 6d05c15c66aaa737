"""`fgclip2 train --dry-run`: what a run would take, printed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

_NARROWEST, _WIDEST = 41, 60  # columns of names


def print_plan(plan: dict[str, Any]) -> None:
    """Print a plan for people."""
    for title, rows in _sections(plan):
        typer.echo(title)
        width = max([_NARROWEST, *(len(name) for name, _ in rows if len(name) <= _WIDEST)])
        for name, value in rows:
            typer.echo(f"  {name:<{width}} {value}".rstrip())  # after a longer path there is a space, too


def _sections(plan: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    model, steps, disk = plan["model"], plan["steps"], plan["disk"]
    yield f"model {model['name']}{' with LoRA' if model['lora'] else ''}", _parameter_rows(model["parameters"])
    yield "objective", [(name, str(value)) for name, value in plan["objective"].items()]
    looked_at = plan["data"]["sample"]["looked_at"]
    if plan["terms"]:
        yield f"terms of the objective, by the {looked_at:,} records looked at", _term_rows(plan["terms"])
    yield "data", _data_rows(plan["data"])
    if plan["benchmarks"]:
        yield "benchmarks", [(row["name"], _counts(row)) for row in plan["benchmarks"]]
    yield "steps", _step_rows(steps)
    yield "memory of one process, an estimate", _memory_rows(plan["memory"])
    ways = plan["memory"]["activations_by_way"].items()
    yield "activations at once by setting, an estimate", [(way, _bytes(activations)) for way, activations in ways]
    yield "loader of one process, in host memory, an estimate", _loader_rows(plan["loader"])
    checkpoints = f"{disk['checkpoints']} of {_bytes(disk['checkpoint'])}"
    yield "disk", [("checkpoints", checkpoints), ("model", _bytes(disk["model"])), ("in all", _bytes(disk["total"]))]
    if steps["processes"] > 1:
        traffic = plan["traffic"]
        yield "sent by one process in a step, an estimate", [(name, _bytes(value)) for name, value in traffic.items()]
    if plan["advice"]:
        yield "advice", [(text, "") for text in plan["advice"]]


def _parameter_rows(parameters: dict[str, dict[str, int]]) -> list[tuple[str, str]]:
    rows = [("parameters", f"{'all':>15}{'trained':>15}")]
    return rows + [(part, f"{count['all']:>15,}{count['trained']:>15,}") for part, count in parameters.items()]


def _term_rows(terms: dict[str, dict[str, float]]) -> list[tuple[str, str]]:
    rows = []
    for term, of_term in terms.items():
        use = f"weight {of_term['weight']:g}" if of_term["weight"] else "turned off (weight 0)"
        data = f"data in {of_term['records']:.0%} of the records" if of_term["records"] else "no data"
        rows.append((term, f"{use}, {data}"))
    return rows


def _data_rows(data: dict[str, Any]) -> list[tuple[str, str]]:
    sample = data["sample"]
    rows = []
    for source in data["sources"]:
        counts = f", {source['records']:,} records, {source['draws']:,} in an epoch" if "draws" in source else ""
        rows.append((source["path"], source["format"] + counts))
    rows.append(("records", f"{data['records']:,}"))
    for language, count in data.get("languages", {}).items():
        draws = data["draws"][language]
        rows.append((f"  {language}", f"{count:,}, {draws:,} in an epoch ({draws / sum(data['draws'].values()):.0%})"))
    never = data.get("never_drawn", {})
    others = data["left_out"] - sum(never.values())
    rows.append(("left out of each epoch", f"{others:,} (others each time)"))
    rows += [(f"never trained on: {language}", f"{count:,}, too few for a batch") for language, count in never.items()]
    rows.append(("held out, to be evaluated on", f"{data['held_out']:,}"))
    rows += [(f"  {name}", f"{count:,}") for name, count in data["held_out_sets"].items()]
    rows.append(("looked at", f"{sample['looked_at']:,}, for these shares:"))
    if sample["unusable"]:
        rows.append(
            ("  unusable", f"{sample['unusable']}: {sample['first_problem']} (fgclip2 data validate lists all)")
        )
    for name in ("short_captions", "long_captions", "with_regions"):
        rows.append((f"  {name.replace('_', ' ')}", f"{sample[name]:.0%}"))
    rows.append(("  regions taken per image", f"{sample['regions']:.2f}"))
    rows.append(("  of these with hard negatives", f"{sample['hard_regions']:.2f}"))
    return [*rows, ("  patches per image", f"{sample['mean_patches']:.0f} on average, at most {sample['max_patches']}")]


def _counts(benchmark: dict[str, Any]) -> str:
    left_out = f", {benchmark['left_out']} left out" if benchmark["left_out"] else ""
    return f"{benchmark['images']:,} images, {benchmark['items']:,} items{left_out}"


def _step_rows(steps: dict[str, Any]) -> list[tuple[str, str]]:
    contents = steps["contents"]
    batch = f"{steps['batch_per_process']} per process x {steps['processes']} = {steps['contrastive_batch']:,}"
    texts = f"{contents['short_texts']:.0f} short or of regions, {contents['long_texts']:.0f} long"
    return [
        ("contrastive batch", f"{batch}, {steps['language_batches']} in language"),
        (
            "samples per step",
            f"{steps['samples_per_step']:,} (accumulation {steps['accumulation']}, adds no negatives)",
        ),
        ("patches per image", f"{steps['max_num_patches'] or 'as the squares of this model have'}"),
        ("texts per process and batch", texts),
        ("steps per epoch", f"{steps['per_epoch']:,}"),
        ("steps", f"{steps['total']:,} ({steps['epochs']:.2f} epochs)"),
        ("warm-up", f"{steps['warmup']:,} steps, to a learning rate of {steps['learning_rate']:g}"),
    ]


def _memory_rows(memory: dict[str, Any]) -> list[tuple[str, str]]:
    others = ("strategy", "text_chunk_size", "device", "fits", "total", "activations_by_way")
    rows = [(name.replace("_", " "), _bytes(value)) for name, value in memory.items() if name not in others]
    rows.append(
        ("at most at once", f"{_bytes(memory['total'])} ({memory['strategy']}; beside what torch itself takes)")
    )
    if memory["text_chunk_size"]:
        rows.append(("text_chunk_size", f"{memory['text_chunk_size']}: so many texts at once"))
    if memory["device"]:
        share = memory["total"] / memory["device"]
        verdict = "fits" if memory["fits"] else "does not fit: a tenth is left to the device's own use"
        rows.append(("of the device", f"{share:.0%} of {_bytes(memory['device'])}, {verdict}"))
    return rows


def _loader_rows(loader: dict[str, Any]) -> list[tuple[str, str]]:
    workers = f"{loader['workers']} worker{'' if loader['workers'] == 1 else 's'}"
    queues = _bytes(loader["queues"]) if loader["workers"] else "none without workers"
    return [("pixels of a batch", _bytes(loader["batch"])), (f"batches ready, {workers}", queues)]


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"
