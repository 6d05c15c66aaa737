"""Measure the gain of the service from computing the inputs of several clients in one batch."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from fgclip2 import FGClip2Embedder, FGClip2Processor, embedded_checkpoint

from ...perf.loader import HEIGHT, WIDTH, published_records
from ..models import random_model
from ..records import Case, Column, Part, Settings, Words

CLIENTS = (1, 8, 32, 128)
REQUESTS = 24  # of each client, the first of which are not timed
WARM_UP = 4
PATCHES, BATCH = 256, 32


def embedder_of(settings: Settings) -> FGClip2Embedder:
    """Return an embedder of base size with random weights in bf16."""
    model = random_model("base", settings).cpu()
    processor = FGClip2Processor.from_pretrained(embedded_checkpoint())
    return FGClip2Embedder(model, processor, settings.device, torch.bfloat16, "random")


def image_files(count: int) -> list[bytes]:
    """Return different JPEG files."""
    with tempfile.TemporaryDirectory() as folder:
        return [Path(str(record.image)).read_bytes() for record in published_records(Path(folder), count)]


async def all_clients(count: int, requests: range, ask: Callable[[int, int], Coroutine[Any, Any, Any]]) -> float:
    """Return the seconds that clients take together, each of which asks anew when it has its answer."""

    async def client(number: int) -> None:
        for request in requests:
            await ask(number, request)

    start = time.perf_counter()
    await asyncio.gather(*map(client, range(count)))
    return time.perf_counter() - start


def batches_of(metrics: str) -> tuple[float, float]:
    """Return how many inputs ran through the model, and in how many batches."""
    from prometheus_client.parser import text_string_to_metric_families

    samples = [sample for family in text_string_to_metric_families(metrics) for sample in family.samples]
    inputs = sum(sample.value for sample in samples if sample.name == "fgclip2_batch_size_sum")
    return inputs, sum(sample.value for sample in samples if sample.name == "fgclip2_batch_size_count")


def measure(kind: str, clients: int, embedder: Callable[[], FGClip2Embedder], settings: Settings) -> dict[str, Any]:
    """Time the clients' requests of one input each; no two that are under way are equal."""
    from fgclip2.serving.engine import Engine  # needs the extra `serve`
    from fgclip2.serving.images import EncodedImage
    from fgclip2.serving.limits import Limits

    files = image_files(clients) if kind == "images" else []
    engine = Engine(embedder(), Limits(), "random", max_num_patches=PATCHES, batch_size=BATCH)

    async def ask(client: int, request: int) -> Any:
        if kind == "images":
            return await engine.embed_images([EncodedImage(files[client], WIDTH, HEIGHT)])
        return await engine.embed_texts([f"a red apple on table {client}, {request}"])

    async def run() -> tuple[float, float, float]:
        skipped, asked = settings.pick(WARM_UP, 1), settings.pick(REQUESTS, 2)
        await all_clients(clients, range(skipped), ask)
        inputs, batches = batches_of(engine.metrics.text().decode())
        seconds = await all_clients(clients, range(skipped, asked), ask)
        all_inputs, all_batches = batches_of(engine.metrics.text().decode())
        return seconds, all_inputs - inputs, all_batches - batches

    try:
        seconds, inputs, batches = asyncio.run(run())
    finally:
        engine.close()
    return {"rate": inputs / seconds, "batch": inputs / batches, "wait": seconds * clients / inputs * 1000}


def cases(settings: Settings) -> Iterator[Case]:
    """Give images and texts by numbers of clients."""
    embedder = cache(partial(embedder_of, settings))
    for kind in ("images", "texts"):
        for clients in settings.pick(CLIENTS, (1, 3)):
            yield Case({"kind": kind, "clients": clients}, partial(measure, kind, clients, embedder, settings))


PART = Part(
    Words("Service", "服务"),
    Words(
        f"The engine of `fgclip2 serve` without HTTP: base size in bf16, images of 640x480 at {PATCHES} patches from "
        f"JPEG, at most {BATCH} of them in a batch, two threads. Each client asks for one input and waits for its "
        "answer.",
        f"`fgclip2 serve` 的引擎，不经 HTTP：base 尺寸，bf16，640x480 的 JPEG 图像，{PATCHES} 个图块，"
        f"每批最多 {BATCH} 张，两个线程。每个客户端每次请求一项，得到回答后再请求。",
    ),
    (
        Column("kind", Words("inputs", "输入")),
        Column("clients", Words("clients", "客户端"), "d"),
        Column("rate", Words("per second", "每秒数量"), ",.0f"),
        Column("batch", Words("mean batch", "平均批大小"), ".1f"),
        Column("wait", Words("mean wait, ms", "平均等待，毫秒"), ".1f"),
    ),
    cases,
)
