"""The measurements: the plain training step is the objective, and each measurement runs."""

import numpy as np
import pytest
import torch

from fgclip2.training.objective import FGClip2Objective
from scripts.perf import loader, padding, sampler, training
from scripts.perf.__main__ import markdown
from scripts.perf.index_update import measure_update
from scripts.perf.measuring import Row, added_peak_memory, in_fresh_process
from scripts.perf.reference_training import padded_batch, reference_loss
from scripts.perf.varied_drawings import varied_drawings

from ..training import golden

TINY = {"width": 64, "layers": 1, "vocabulary": 500}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("pad_hard_negatives", [True, False])
def test_the_plain_step_equals_the_official_one(pad_hard_negatives):
    tensors, results = golden.outputs()
    for step in (1, 2):
        case = f"w1.full_reduce.step{step}.rank0"
        model = golden.model()
        padded = padded_batch(golden.batch(0), pad_hard_negatives=pad_hard_negatives)
        loss = reference_loss(model, padded, results[case]["threshold_in"])
        loss.backward()
        assert loss.item() == pytest.approx(results[case]["total_loss"], rel=2e-5)
        actual, prefix = gradients(model), f"{case}.grad."
        expected = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        assert expected
        for name, gradient in expected.items():
            tolerance = 1e-6 + 1e-4 * gradient.abs().max().item()
            torch.testing.assert_close(actual[name], gradient.view_as(actual[name]), rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("margin", [0.0, 3.0])
def test_the_plain_step_equals_ours_on_the_batch_that_is_measured(margin):
    model, batch = training.random_model(**TINY), training.random_batch(8, TINY["vocabulary"])
    objective = FGClip2Objective("released")
    objective.margin.fill_(margin)
    ours = objective(model(**batch), batch)["loss"]
    ours.backward()
    our_gradients = gradients(model)
    model.zero_grad()
    theirs = reference_loss(model, padded_batch(batch), margin)
    theirs.backward()
    assert theirs.item() == pytest.approx(ours.item(), rel=1e-5)
    for name, gradient in gradients(model).items():
        tolerance = 1e-6 + 1e-4 * gradient.abs().max().item()
        torch.testing.assert_close(our_gradients[name], gradient, rtol=0, atol=tolerance, msg=name)
    assert all(row.held for row in training.equality_rows(model, batch, padded_batch(batch)))


def test_a_difference_is_seen():
    model, batch = training.random_model(**TINY), training.random_batch(8, TINY["vocabulary"])
    padded = padded_batch(batch)
    padded["region_input_ids"] = padded["region_input_ids"].roll(1, 0)
    assert not all(row.held for row in training.equality_rows(model, batch, padded))


def test_padding_keeps_the_boxes_and_texts_of_each_image():
    batch = training.random_batch(4, 500)
    padded = padded_batch(batch)
    assert padded["region_counts"].tolist() == [4, 3, 2, 1]
    assert padded["region_input_ids"].shape == (16, 64)
    assert padded["hard_input_ids"].shape == (16, 11, 64)
    assert torch.equal(padded["region_input_ids"].view(4, 4, 64)[1, :3], batch["region_input_ids"][4:7])
    assert torch.equal(padded["region_boxes"][1, :3], batch["boxes"][1, :3])


def _fill(megabytes: int) -> None:
    torch.ones(megabytes * 2**18).sum()


def _three_calls() -> list[int]:
    calls = [added_peak_memory(lambda megabytes=megabytes: _fill(megabytes)) for megabytes in (200, 50)]
    return [*calls, *training.step_memory("all slots", 4, TINY)]


@pytest.mark.slow
def test_added_memory_is_that_of_the_call_and_not_of_one_before():
    large, small, step, total = in_fresh_process(_three_calls)
    assert 190e6 < large < 260e6
    assert 45e6 < small < 110e6
    assert 0 < step < total


@pytest.mark.slow
def test_ring_stays_flat_and_the_cache_too(monkeypatch):
    rows = training.sigmoid_rows(batches=(4096,), world_sizes=(1, 3), width=64)
    assert [row.name.split(",")[1] for row in rows[:2]] == [" gather", " ring"]
    assert rows[2].held
    rows = training.gradient_cache_rows(runs=2, sizes=(8, 48))
    assert rows[2].held
    assert 0.5 < rows[3].value < 4  # of single runs, beside whatever else the machine does; it is about 1.3


@pytest.mark.slow
def test_loader_rows():
    rows = loader.loader_rows(1, budget=256, images=8, batch_size=4)
    assert rows[0].held  # the same bits
    assert rows[1].value > 0 < rows[2].value
    assert all(row.value or "not measured" in row.note for row in rows[3:])


def test_tables_by_section():
    rows = {"Model": [Row("a", 1.0, "x", ">= 2", False)], "Training": [Row("b", None, "", note="1 / 2 MB")]}
    text = markdown(rows)
    assert "## Model" in text
    assert "| a | 1 x | >= 2 | **no** |" in text
    assert "| b | 1 / 2 MB |  | - |" in text


def test_an_update_is_measured_with_what_changed_alone(tmp_path):
    figures = measure_update(tmp_path, 300)
    assert figures.pop("count") == 300
    assert all(seconds > 0 for pair in figures.values() for seconds in pair)


def test_varied_drawings_are_all_different_and_always_the_same():
    cutouts = np.zeros((2, 96, 96, 4), np.uint8)
    cutouts[:, 20:60, 10:50] = 255
    pictures = [np.asarray(picture) for picture in varied_drawings(cutouts, 20)]
    assert len({picture.tobytes() for picture in pictures}) == 20
    for picture, again in zip(pictures, varied_drawings(cutouts, 20), strict=True):
        assert picture.shape == (96, 96, 3)
        np.testing.assert_array_equal(picture, again)
        assert (picture == 255).all(-1).any()  # the drawing


def test_batches_hold_their_bounds():
    rows = [row for group in padding.row_groups(1) for row in group()]
    assert len(rows) == 10
    assert [row.held for row in rows if row.bound] == [True] * 7


@pytest.mark.slow
def test_the_memory_and_the_start_of_an_order_are_measured():
    rows = [*sampler.memory_rows(40_000, 20_000), *sampler.start_rows(10_000)]
    assert [row.bound for row in rows] == ["<= 100", "<= 100", "", "<= 20"]
    assert 0 < rows[3].value < rows[2].value  # which has found the records
