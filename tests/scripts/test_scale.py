"""The arithmetic of both stages on many devices, and the pages that it writes."""

from pathlib import Path

import pytest

from fgclip2 import FGClip2Config
from fgclip2.training.estimates import StepContents
from fgclip2.training.scale import Machine, Work, encoder_operations, step_operations, step_time
from scripts.perf import scale

DOCS = Path(__file__).parents[2] / "docs"


def test_the_time_of_a_step():
    machine = Machine(operations=100.0, bandwidth=10.0, latency=0.5, overhead=1.0)
    alone = step_time(Work(200.0), machine, 1)
    assert (alone.compute, alone.total, alone.waiting) == (3.0, 3.0, 0.0)
    updated = step_time(Work(200.0, update_bytes=28.0), Machine(100.0, 10.0, 0.5, memory=14.0), 1)
    assert (updated.compute, updated.update, updated.total) == (2.0, 2.0, 4.0)
    work = Work(200.0, gradient_bytes=40.0, text_bytes=10.0, gradient_messages=4, text_messages=2)
    both = step_time(work, machine, 2)
    assert (both.compute, both.gradients, both.texts) == (3.0, 6.0, 2.0)
    assert both.waiting == pytest.approx(8 / 11)
    hidden = step_time(work, Machine(100.0, 10.0, 0.5, overhead=1.0, overlap=0.5), 2)
    assert (hidden.gradients, hidden.texts) == (4.5, 2.0)
    shared = step_time(work, Machine(100.0, 10.0, 0.5, at_once=2, overhead=1.0), 3)  # three on two cores
    assert (shared.compute, shared.gradients, shared.texts) == (4.5, 8.0, 2.5)


def test_operations_of_a_step():
    config = FGClip2Config.from_preset("base")
    layer = 2 * (4 * 768**2 + 2 * 768 * 3072) + 4 * 64 * 768
    assert encoder_operations(config.text_config, 10, 64) == 12 * 10 * layer
    contents = StepContents(8, 256, 100, 8, 8, 20)
    plain = step_operations(config, contents, 1)
    chunks = step_operations(config, contents, 1, text_in_chunks=True)
    texts = encoder_operations(config.text_config, 6400, 64) + encoder_operations(config.text_config, 8 * 196, 196)
    assert chunks - plain == pytest.approx(texts)
    assert step_operations(config, contents, 1, checkpointing=True) > chunks
    assert step_operations(config, contents, 1, cached=True) == pytest.approx(
        step_operations(config, contents, 1, checkpointing=True)
    )
    logits = 2 * 768 * 8 * 16
    assert step_operations(config, contents, 3) - plain == pytest.approx(3 * 2 * logits)


@pytest.mark.parametrize("number", scale.STAGES)
def test_pages_have_what_the_arithmetic_says(number):
    predictions = {devices: scale.predict(scale.STAGES[number], devices) for devices in scale.DEVICES}
    for language in scale.TEXT:
        text = (DOCS / f"scale{language}.md").read_text(encoding="utf-8")
        rows = scale.stage_rows(predictions) + scale.sharded_rows(predictions)
        for cells in rows + scale.limit_rows(predictions, scale.TEXT[language]):
            assert f"| {' | '.join(cells)} |" in text


def test_memory_of_each_strategy_is_that_of_its_step():
    """FSDP2 and ZeRO-2 divide gradients, but a pass of the text tower makes those of the token embeddings whole."""
    memory = scale.predict(scale.STAGES[2], 4096).memory
    embeddings = 4 * 256_000 * 768
    assert memory["ddp"] > memory["zero2"] > memory["fsdp"] > embeddings


def test_what_breaks_first():
    words = scale.TEXT[""]
    verdicts = {}
    for number, stage in scale.STAGES.items():
        rows = scale.limit_rows({devices: scale.predict(stage, devices) for devices in scale.DEVICES}, words)
        verdicts[number] = [row[1] for row in rows]
    assert verdicts[1][-1] == verdicts[2][-1] == "exchange breaks"  # 15 images and one of each device
    assert all("nothing breaks" in verdict for verdict in verdicts[1][:3] + verdicts[2][:2])


def test_each_strategy_has_a_step_of_its_own():
    """The gradient cache gathers the weights of FSDP2 for each pass of each chunk, and does not go with DeepSpeed."""
    cached, whole = scale.predict(scale.STAGES[1], 512), scale.predict(scale.STAGES[2], 512)
    assert set(cached.time) == {"ddp", "fsdp"}
    assert set(whole.time) == {"ddp", "zero2", "fsdp"}
    assert whole.time["zero2"].update == pytest.approx(whole.time["ddp"].update / 512)
    weights = 2 * 511 / 512 * 374_000_000  # bytes in bfloat16 that a gathering sends, about
    assert cached.sent["fsdp"] - whole.sent["fsdp"] == pytest.approx(4 * weights, rel=0.02)  # 2 chunks: 6, not 2
