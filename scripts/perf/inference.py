"""The model's speed and memory against plain references in the same run: base size, random weights."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fgclip2 import FGClip2Config, FGClip2ImageProcessor, FGClip2Model
from fgclip2.embedding import DenseMap
from fgclip2.embedding.reranker import stream_known_windows
from fgclip2.embedding.windows import best_windows, windows_of_maps
from fgclip2.search.dense_maps import KINDS, MapBlock, pack
from fgclip2.search.scan import ImageFile

from .measuring import Row, added_peak_memory, in_fresh_process, median_seconds, paired_ratio, peak_memory
from .reference_encoder import bare_encoder, random_pixels, weights_of

STORED_CANDIDATES = 20


def image_tower_rows(model: FGClip2Model, runs: int) -> list[Row]:
    layers = weights_of(model.vision_model.encoder)
    heads, width = model.config.vision_config.num_attention_heads, model.config.vision_config.hidden_size
    rows = []
    for batch, grid in ((4, (16, 16)), (1, (32, 32))):
        pixels, hidden = random_pixels(batch, grid), torch.randn(batch, grid[0] * grid[1], width)
        ratio = paired_ratio(
            lambda hidden=hidden: bare_encoder(hidden, layers, heads),
            lambda pixels=pixels: model.get_image_features(**pixels),
            runs,
        )
        name = f"image tower / bare encoder, speed, {batch} x {grid[0] * grid[1]} patches"
        rows.append(Row(name, ratio, "x", ">= 0.9", ratio >= 0.9))
    return rows


def region_row(model: FGClip2Model, runs: int) -> Row:
    pixels = random_pixels(1, (32, 32))
    corners = np.random.default_rng(0).uniform(0, 400, (20, 2))
    boxes = np.concatenate([corners, corners + 80], -1).tolist()
    ratio = paired_ratio(
        lambda: model.get_image_region_features(**pixels, image_sizes=[(512, 512)], region_infos=[boxes]),
        lambda: model.get_image_dense_feature(**pixels),
        runs,
    )
    return Row("20 boxes / dense map alone, time, 1,024 patches", ratio, "x", "< 1.05", ratio < 1.05)


def rerank_row(model: FGClip2Model, runs: int) -> Row:
    pixels = random_pixels(4, (16, 16))
    dense = model.get_image_dense_feature(**pixels).unflatten(1, (16, 16))  # (4, 16, 16, D)
    phrases = [F.normalize(torch.randn(8, dense.shape[-1]), dim=-1) for _ in dense]
    ratio = paired_ratio(lambda: best_windows(dense, phrases), lambda: model.get_image_dense_feature(**pixels), runs)
    return Row("best windows of 8 phrases / dense map, time, 4 x 256 patches", ratio, "x", "<= 0.15", ratio <= 0.15)


def stored_map_rows(runs: int) -> list[Row]:
    """Re-rank 20 candidates by dense maps that an index has, of base size, from reading them to their windows."""
    generator = np.random.default_rng(0)
    names = [ImageFile(f"{number}.jpg", 1, 1) for number in range(STORED_CANDIDATES)]
    rows = []
    for kind in KINDS:
        fresh = (DenseMap(generator.normal(size=(16, 16, 768)).astype(np.float32), (512, 512)) for _ in names)
        with tempfile.TemporaryDirectory() as folder:
            block = MapBlock.write(Path(folder), names, [pack(dense_map, kind) for dense_map in fresh])
            seconds = median_seconds(lambda block=block: score_stored_maps(block), runs, time.process_time)
            added = in_fresh_process(stored_maps_peak, Path(folder) / block.name) / 1e6
        name = f"{STORED_CANDIDATES} stored candidates as {kind}, 8 phrases, 256 patches"
        rows.append(Row(f"{name}, CPU time", seconds, "s", "< 0.3", seconds < 0.3))
        rows.append(Row(f"{name}, file for each image", block.nbytes / len(names) / 1000, "kB"))
        rows.append(Row(f"{name}, peak memory beside what is loaded", added, "MB"))
    return rows


def score_stored_maps(block: MapBlock) -> None:
    phrases = F.normalize(torch.randn(8, 768), dim=-1).numpy()
    vectors = dict.fromkeys(range(len(block.files)), phrases)
    no_model = SimpleNamespace(
        windows_of_maps=lambda maps, *rest: windows_of_maps([torch.from_numpy(one) for one in maps], *rest)
    )
    found = list(stream_known_windows(no_model, block.files, vectors, lambda row: block.read(row).unpack()))
    assert len(found) == len(block.files)


def stored_maps_peak(path: Path) -> int:
    block = MapBlock.open(path)
    return added_peak_memory(lambda: score_stored_maps(block))


def bf16_rows(model: FGClip2Model, runs: int) -> list[Row]:
    has_bf16 = "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags()
    half = FGClip2Model.from_pretrained(None, config=model.config, state_dict=model.state_dict(), dtype=torch.bfloat16)
    half = half.eval()
    pixels, ids = random_pixels(2, (16, 16)), torch.randint(0, 256000, (4, 64))
    rows = []
    for name, bound, call in (
        ("images, 256 patches", 1.8, lambda m: m.get_image_features(**pixels)),
        ("texts, 64 tokens", 2.0, lambda m: m.get_text_features(ids)),
    ):
        cosine = F.cosine_similarity(call(model), call(half).float()).min().item()
        rows.append(Row(f"bf16 to fp32, lowest cosine, {name}", cosine, "", ">= 0.999", cosine >= 0.999))
        if has_bf16:
            ratio = paired_ratio(lambda call=call: call(model), lambda call=call: call(half), runs)
            rows.append(Row(f"bf16 / fp32, throughput, {name}", ratio, "x", f">= {bound}", ratio >= bound))
        else:
            note = "not measured: this CPU has no bf16 instructions"
            rows.append(Row(f"bf16 / fp32, throughput, {name}", None, "x", f">= {bound}", None, note))
    return rows


def _cpu_flags() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text() if info.exists() else ""


def preprocessing_rows(runs: int) -> list[Row]:
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    ours, theirs = FGClip2ImageProcessor(), Siglip2ImageProcessorPil()
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (480, 640, 3), np.uint8)) for _ in range(32)]
    rows = []
    for budget, batch in ((1024, 1), (1024, 32), (256, 32)):
        chunk = images[:batch]
        kwargs = {"max_num_patches": budget, "return_tensors": "pt"}
        equal = torch.equal(ours(chunk, **kwargs)["pixel_values"], theirs(chunk, **kwargs)["pixel_values"])
        ratio = paired_ratio(
            lambda chunk=chunk, kwargs=kwargs: ours(chunk, **kwargs),
            lambda chunk=chunk, kwargs=kwargs: theirs(chunk, **kwargs),
            runs,
        )
        name = f"preprocessing / transformers' PIL processor, time, 640x480, {budget} patches, batch {batch}"
        rows.append(Row(name, ratio, "x", "<= 0.55", ratio <= 0.55 and equal, "bit-equal" if equal else "NOT EQUAL"))
    return rows


def memory_rows(model: FGClip2Model) -> list[Row]:
    """Peak resident memory of a process that loads the whole base model and computes one dense map."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        for side, bound in ((64, 2.0), (128, 4.0)):
            peak = in_fresh_process(dense_map_peak, folder, side) / 1e9
            name = f"dense map of {side * side:,} patches, peak memory of the process"
            rows.append(Row(name, peak, "GB", f"< {bound:g}", peak < bound))
    return rows


def dense_map_peak(checkpoint: str, side: int) -> int:
    model = FGClip2Model.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        dense = model.get_image_dense_feature(**random_pixels(1, (side, side)))
    assert dense.isfinite().all()
    return peak_memory()


def import_row() -> Row:
    baseline = "import torch; from transformers import AutoModel, AutoProcessor, PreTrainedModel"

    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    ratio = paired_ratio(lambda: run(f"{baseline}; import fgclip2"), lambda: run(baseline), 5)
    return Row("import fgclip2 / import of torch and transformers, time", ratio, "x", "<= 1.15", ratio <= 1.15)


def row_groups(runs: int) -> list[Callable[[], list[Row]]]:
    """Return the measurements, quick ones first."""
    model = FGClip2Model(FGClip2Config.from_preset("base")).eval()
    groups = [
        lambda: preprocessing_rows(runs),
        lambda: [import_row()],
        lambda: image_tower_rows(model, runs),
        lambda: [region_row(model, runs), rerank_row(model, runs)],
        lambda: stored_map_rows(runs),
        lambda: memory_rows(model),
        lambda: bf16_rows(model, max(3, runs // 2)),
    ]
    return [torch.no_grad()(group) for group in groups]
