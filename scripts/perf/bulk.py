"""Measure the engines of bulk embedding beside a plain loop, and calculate 10^9 images, as tables of docs/bulk.md.

    python -m scripts.perf.bulk --output docs/bulk.md docs/bulk_zh.md

Each engine embeds two tables of drawings by the embedded checkpoint, a short and a long one, in processes of its own.
What the long one costs more is the cost of its rows; the rest is the start. CPU time is that of all processes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch

from fgclip2 import FGClip2VisionConfig, FGClip2VisionModel
from fgclip2.assets import demo_images

ROWS = (2_560, 12_800)  # so many that both workers have begun before the short table is done
WORKERS = 2
ENGINES = ("loop", "local", "ray")
MARKS = ("<!-- overhead: by python -m scripts.perf.bulk -->", "<!-- cost: by python -m scripts.perf.bulk -->")
LOOP = """
import sys, pyarrow.parquet, torch
from fgclip2 import Embedder
torch.set_num_threads(1)
embedder = Embedder.from_pretrained(device="cpu")
images = pyarrow.parquet.read_table(sys.argv[1])["image"].to_pylist()
vectors = embedder.encode_images(images, show_progress_bar=False)
"""


@dataclass(frozen=True)
class Used:
    """What one run took."""

    wall: float  # seconds
    cpu: float  # seconds of all its processes


def write_drawings(path: Path, rows: int) -> None:
    """Write a table of drawings, again and again."""
    contents = [file.read_bytes() for file in sorted((demo_images() / "pictures").iterdir())]
    images = [contents[row % len(contents)] for row in range(rows)]
    pyarrow.parquet.write_table(pyarrow.table({"id": range(rows), "image": images}), path)


def run(engine: str, table: Path, output: Path) -> Used:
    """Embed a table in processes of its own."""
    command = [sys.executable, "-c", LOOP, str(table)]
    if engine != "loop":
        options = ["--workers", str(WORKERS), "--cpus-per-worker", "1", "--rows-per-file", "128", "--device", "cpu"]
        command = [
            sys.executable,
            "-m",
            "fgclip2",
            "embed",
            str(table),
            "--engine",
            engine,
            "-o",
            str(output),
            *options,
        ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    cpu: dict[int, float] = {}
    while process.poll() is None:
        cpu |= seconds_of_tree(process.pid, set(cpu))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{engine} failed")
    return Used(time.monotonic() - start, sum(cpu.values()))


def seconds_of_tree(root: int, known: set[int]) -> dict[int, float]:
    """Return the CPU seconds so far of a process, of those below it, and of those that were so once."""
    ticks = os.sysconf("SC_CLK_TCK")
    parents, seconds = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        parents[int(folder.name)] = int(fields[1])
        seconds[int(folder.name)] = (int(fields[11]) + int(fields[12])) / ticks
    found = {root, *known}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: seconds[pid] for pid in found if pid in seconds}


def overhead_table(used: dict[str, tuple[Used, Used]], titles: dict[str, str], columns: str) -> str:
    """Return the table of the engines, from what the short and the long table took with each."""
    lines = [columns, "|---" + "|---:" * 4 + "|"]
    for engine, (short, long) in used.items():
        more = ROWS[1] - ROWS[0]
        row = (long.cpu - short.cpu) / more
        fixed = short.cpu - ROWS[0] * row
        cells = (
            f"{fixed:.0f} s",
            f"{1000 * row:.1f} ms",
            f"{long.cpu:.0f} s",
            f"{long.wall:.0f} s",
        )
        lines.append(f"| {titles[engine]} | {' | '.join(cells)} |")
    return "\n".join(lines)


TITLES = {
    "en": {
        "loop": "plain loop, 1 process",
        "local": f"`--engine local`, {WORKERS} workers",
        "ray": f"`--engine ray`, {WORKERS} workers",
    },
    "zh": {
        "loop": "普通循环，1 个进程",
        "local": f"`--engine local`，{WORKERS} 个工作进程",
        "ray": f"`--engine ray`，{WORKERS} 个工作进程",
    },
}
COLUMNS = {
    "en": f"| engine | start, CPU | a row, CPU | {ROWS[1]:,} rows, CPU | {ROWS[1]:,} rows, wall |",
    "zh": f"| 引擎 | 启动，CPU | 每行，CPU | {ROWS[1]:,} 行，CPU | {ROWS[1]:,} 行，实际 |",
}


@dataclass(frozen=True)
class Assumptions:
    """What the cost of a large run is calculated from."""

    images: int = 10**9
    seconds_per_image: float = 1.08  # CPU, measured by `seconds_per_image`
    instructions: str = "AVX2"  # of that CPU, as torch names them
    overhead_per_image: float = 0.0  # CPU seconds that the engine adds, measured by `run`
    core_hour: float = 0.04  # USD
    bytes_per_image: int = 100_000
    embedding_size: int = 768
    bytes_per_id: int = 20
    storage_month: float = 23.0  # USD, of a TB in an object store
    rows_per_file: int = 1024
    rows_per_run: int = 10_000_000
    days: int = 30


@dataclass(frozen=True)
class Cost:
    """What follows from assumptions."""

    core_hours: float
    dollars: float
    cores: float
    input_terabytes: float
    output_terabytes: float
    storage_dollars: float
    files: int
    runs: int


def cost(given: Assumptions) -> Cost:
    """Calculate time, money, cores, bytes and files of a run."""
    core_hours = given.images * (given.seconds_per_image + given.overhead_per_image) / 3600
    output = given.images * (4 * given.embedding_size + given.bytes_per_id) / 1e12  # float32, which hardly compresses
    return Cost(
        core_hours=core_hours,
        dollars=core_hours * given.core_hour,
        cores=core_hours / (24 * given.days),
        input_terabytes=given.images * given.bytes_per_image / 1e12,
        output_terabytes=output,
        storage_dollars=output * given.storage_month,
        files=-(-given.images // given.rows_per_file),
        runs=-(-given.images // given.rows_per_run),
    )


COST_COLUMNS = {"en": "| assumption or result | value | from |", "zh": "| 假设或结果 | 数值 | 来源 |"}


def cost_table(given: Assumptions, language: str) -> str:
    """Return the table of assumptions and of what follows from them."""
    found = cost(given)
    rows = {
        "en": [
            ("images", f"{given.images:,}", "assumed"),
            (
                "an image: FG-CLIP 2 base, 256 patches, float32",
                f"{given.seconds_per_image:.2f} CPU s",
                f"measured, one core with {given.instructions}",
            ),
            (
                "an image: the engine",
                f"{1000 * given.overhead_per_image:.1f} CPU ms",
                "measured, table above (`ray` less the plain loop)",
            ),
            ("a core for an hour", f"{given.core_hour:.2f} USD", "assumed"),
            ("an image file", f"{given.bytes_per_image / 1000:.0f} kB", "assumed"),
            (
                "a vector and its id",
                f"{4 * given.embedding_size + given.bytes_per_id:,} bytes",
                f"{given.embedding_size} float32, id assumed",
            ),
            ("a TB in the object store for a month", f"{given.storage_month:.0f} USD", "assumed"),
            ("rows per file", f"{given.rows_per_file:,}", "default"),
            ("rows per run", f"{given.rows_per_run:,}", "assumed"),
            ("**core hours**", f"**{found.core_hours:,.0f}**", "images x seconds / 3600"),
            ("**cost of computing**", f"**{found.dollars:,.0f} USD**", "core hours x price"),
            (f"**cores, to be done in {given.days} days**", f"**{found.cores:,.0f}**", "core hours / (24 x days)"),
            ("input", f"{found.input_terabytes:,.0f} TB", "images x bytes"),
            ("output", f"{found.output_terabytes:.1f} TB, {found.storage_dollars:.0f} USD a month", "images x bytes"),
            ("files", f"{found.files:,}", "images / rows per file"),
            ("runs", f"{found.runs:,}", "images / rows per run"),
        ],
        "zh": [
            ("图像", f"{given.images:,}", "假设"),
            (
                "一幅图像：FG-CLIP 2 base，256 图块，float32",
                f"{given.seconds_per_image:.2f} CPU s",
                f"实测，一个 {given.instructions} 核",
            ),
            ("一幅图像：引擎", f"{1000 * given.overhead_per_image:.1f} CPU ms", "实测，见上表（`ray` 减去普通循环）"),
            ("一个核一小时", f"{given.core_hour:.2f} USD", "假设"),
            ("一个图像文件", f"{given.bytes_per_image / 1000:.0f} kB", "假设"),
            (
                "一个向量和它的 id",
                f"{4 * given.embedding_size + given.bytes_per_id:,} bytes",
                f"{given.embedding_size} 个 float32，id 为假设",
            ),
            ("对象存储中一 TB 一个月", f"{given.storage_month:.0f} USD", "假设"),
            ("每个文件的行数", f"{given.rows_per_file:,}", "默认"),
            ("每次运行的行数", f"{given.rows_per_run:,}", "假设"),
            ("**核时**", f"**{found.core_hours:,.0f}**", "图像数 x 秒 / 3600"),
            ("**计算费用**", f"**{found.dollars:,.0f} USD**", "核时 x 价格"),
            (f"**{given.days} 天内完成所需的核**", f"**{found.cores:,.0f}**", "核时 / (24 x 天数)"),
            ("输入", f"{found.input_terabytes:,.0f} TB", "图像数 x 字节"),
            ("输出", f"{found.output_terabytes:.1f} TB, {found.storage_dollars:.0f} USD 每月", "图像数 x 字节"),
            ("文件", f"{found.files:,}", "图像数 / 每个文件的行数"),
            ("运行次数", f"{found.runs:,}", "图像数 / 每次运行的行数"),
        ],
    }
    lines = [f"| {' | '.join(cells)} |" for cells in rows[language]]
    return "\n".join([COST_COLUMNS[language], "|---|---:|---|", *lines])


def replace_table(page: Path, mark: str, table: str) -> None:
    """Put a table in the place of the one below a mark in a page."""
    text = page.read_text(encoding="utf-8")
    before, after = text.split(f"{mark}\n")
    rest = after.lstrip("\n").split("\n")
    while rest and rest[0].startswith("|"):
        rest.pop(0)
    page.write_text(f"{before}{mark}\n{table}\n" + "\n".join(rest), encoding="utf-8")


def seconds_per_image() -> float:
    """Return the CPU seconds that a vision tower of base size takes for an image of 256 patches, on one core."""
    torch.set_num_threads(1)
    model = FGClip2VisionModel(FGClip2VisionConfig()).eval()
    pixels = {"pixel_values": torch.zeros(4, 256, 768), "pixel_attention_mask": torch.ones(4, 256, dtype=torch.int32)}
    shapes = torch.full((4, 2), 16)
    times = []
    with torch.inference_mode():
        for _ in range(3):
            start = time.process_time()
            model(**pixels, spatial_shapes=shapes)
            times.append((time.process_time() - start) / 4)
    return sorted(times)[1]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", nargs=2, type=Path, required=True, help="The page, and its Chinese twin.")
    options = parser.parse_args(arguments)
    used: dict[str, tuple[Used, Used]] = {}
    with tempfile.TemporaryDirectory() as name:
        for rows in ROWS:
            write_drawings(Path(name, f"{rows}.parquet"), rows)
        for engine in ENGINES:
            short, long = (run(engine, Path(name, f"{rows}.parquet"), Path(name, f"{engine}{rows}")) for rows in ROWS)
            used[engine] = short, long
            print(engine, short, long, flush=True)
    row = {engine: (long.cpu - short.cpu) / (ROWS[1] - ROWS[0]) for engine, (short, long) in used.items()}
    given = Assumptions(
        seconds_per_image=round(seconds_per_image(), 2),
        instructions=torch.backends.cpu.get_cpu_capability(),
        overhead_per_image=round(max(0.0, row["ray"] - row["loop"]), 4),
    )
    print(given)
    for page, language in zip(options.output, ("en", "zh"), strict=True):
        replace_table(page, MARKS[0], overhead_table(used, TITLES[language], COLUMNS[language]))
        replace_table(page, MARKS[1], cost_table(given, language))


if __name__ == "__main__":
    main()
