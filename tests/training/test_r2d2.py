"""The losses of R2D2 and its models in training, against the released code on one and two processes."""

import math

import pytest
import torch
from torch import Tensor

from fgclip2 import R2D2Model
from fgclip2.training import R2D2ForImageTextMatching, R2D2ForImageTextRetrieval
from fgclip2.training.losses import draw_negatives, matching_loss, negative_weights
from fgclip2.training.tasks.pairs import PairTask
from tests import golden_of_r2d2
from tests.golden_of_r2d2 import EMBEDDINGS, LOSSES

from ..ranks import run_on_ranks

INPUTS, GOLDEN, RESULTS = (
    golden_of_r2d2.tensors("inputs"),
    golden_of_r2d2.tensors("losses"),
    golden_of_r2d2.results(),
)


def of_rank(world_size: int, rank: int) -> dict[str, Tensor]:
    """Golden data of a rank, by names without its own."""
    prefix = f"retrieval.world{world_size}.rank{rank}."
    return {name.removeprefix(prefix): value for name, value in GOLDEN.items() if name.startswith(prefix)}


def batch(rows: slice, golden: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {name: INPUTS[name][rows] for name in ("pixel_values", "input_ids", "attention_mask")}
    return named | {name: golden[name] for name in ("ids", "negative_image", "negative_text")}


def gradients(model: R2D2Model, names: list[str]) -> dict[str, Tensor]:
    found = dict(model.named_parameters())
    return {name: found[name].grad for name in names}


def names_of(golden: dict[str, Tensor], kind: str) -> list[str]:
    return [name.removeprefix(f"{kind}.") for name in golden if name.startswith(f"{kind}.")]


def assert_gradients(found: dict[str, Tensor], golden: dict[str, Tensor], kind: str) -> None:
    for name, gradient in found.items():
        expected = golden[f"{kind}.{name}"]
        tolerance = 1e-5 * max(1.0, expected.abs().max().item()) + 1e-5
        if name == "temp":
            tolerance = max(tolerance, 1e-4 * expected.abs().item())
        torch.testing.assert_close(gradient, expected, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("term", ["gcpr", "fgr"])
def test_one_process_is_the_released_one(term):
    golden = of_rank(1, 0)
    model = golden_of_r2d2.model(R2D2ForImageTextRetrieval)
    losses = model(**batch(slice(0, 6), golden))
    torch.testing.assert_close(losses[term].detach(), golden[f"loss_{term}"], **LOSSES)
    torch.testing.assert_close(losses["loss"], losses["gcpr"] + losses["fgr"])
    losses[term].backward()
    names = names_of(golden, f"grad_{term}")
    assert len(names) >= 8
    assert_gradients(gradients(model, names), golden, f"grad_{term}")
    for name in RESULTS[f"retrieval.world1.no_gradient.{term}"]:
        assert model.get_parameter(name).grad is None or not model.get_parameter(name).grad.any(), name
    assert all(parameter.grad is None for parameter in model.visual_encoder.parameters())


def test_the_sum_reaches_every_parameter_that_is_trained():
    """DDP waits for the gradient of each."""
    model = golden_of_r2d2.model(R2D2ForImageTextRetrieval)
    model(**batch(slice(0, 6), of_rank(1, 0)))["loss"].backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def on_rank() -> dict[str, Tensor]:
    from fgclip2.distributed import rank

    golden = of_rank(2, rank())
    model = golden_of_r2d2.model(R2D2ForImageTextRetrieval)
    part = batch(slice(3 * rank(), 3 * rank() + 3), golden)
    length = int(part["attention_mask"].sum(1).max())  # lengths of ranks differ, and change nothing
    part |= {name: part[name][:, :length] for name in ("input_ids", "attention_mask")}
    losses = model(**part)
    losses["loss"].backward()
    return {name: value.detach() for name, value in losses.items()} | gradients(model, names_of(golden, "grad_sum"))


def test_two_processes_are_the_released_two():
    for rank, found in enumerate(run_on_ranks(on_rank, 2)):
        golden = of_rank(2, rank)
        for term in ("gcpr", "fgr"):
            torch.testing.assert_close(found.pop(term), golden[f"loss_{term}"], **LOSSES)
        found.pop("loss")
        assert_gradients(found, golden, "grad_sum")


@torch.no_grad()
def test_negatives_are_drawn_by_similarity_and_never_of_the_same_id():
    golden, model = of_rank(1, 0), golden_of_r2d2.model()
    outputs = model(INPUTS["input_ids"][:6], INPUTS["pixel_values"][:6], INPUTS["attention_mask"][:6])
    images, texts, ids = outputs.image_embeds, outputs.text_embeds, golden["ids"]
    of_texts = negative_weights(texts, images, model.temp, ids, ids)
    torch.testing.assert_close(of_texts, golden["weights_t2i"], **EMBEDDINGS)
    of_images = negative_weights(images, texts, model.temp, ids, ids)
    torch.testing.assert_close(of_images, golden["weights_i2t"], **EMBEDDINGS)
    torch.manual_seed(0)
    drawn = torch.stack([draw_negatives(of_texts) for _ in range(400)])  # (400, 6)
    assert not (ids[drawn] == ids).any()
    shares = torch.nn.functional.one_hot(drawn, 6).float().mean(0)  # (6, 6)
    torch.testing.assert_close(shares, of_texts / of_texts.sum(1, keepdim=True), rtol=0, atol=0.1)
    # A query whose own candidate takes the whole softmax still has negatives.
    cold = negative_weights(torch.eye(3), torch.eye(3), torch.tensor(1e-3), torch.arange(3), torch.arange(3))
    assert (draw_negatives(cold) != torch.arange(3)).all()
    with pytest.raises(ValueError, match="pair 0 has no negative: no candidate of another id"):
        draw_negatives(negative_weights(texts, images, model.temp, ids * 0, ids * 0))


def test_negatives_that_are_not_given_are_drawn():
    model, golden = golden_of_r2d2.model(R2D2ForImageTextRetrieval), of_rank(1, 0)
    drawn = {name: None for name in ("negative_image", "negative_text")}
    with torch.no_grad():
        losses = model(**{**batch(slice(0, 6), golden), **drawn})
    torch.testing.assert_close(losses["gcpr"], golden["loss_gcpr"], **LOSSES)
    assert losses["fgr"].isfinite()


def test_matching_as_released():
    model, target = golden_of_r2d2.model(R2D2ForImageTextMatching), GOLDEN["matching.target"]
    rows = slice(0, len(target))
    pairs = (INPUTS["pixel_values"][rows], INPUTS["input_ids"][rows], INPUTS["attention_mask"][rows])
    outputs = model(*pairs, target, form="released")
    torch.testing.assert_close(outputs["probability"], GOLDEN["matching.pred"][:, 1], **EMBEDDINGS)
    torch.testing.assert_close(outputs["loss"].detach(), GOLDEN["matching.loss"], **LOSSES)
    outputs["loss"].backward()
    names = names_of(GOLDEN, "matching.grad")
    assert_gradients(gradients(model, names), GOLDEN, "matching.grad")
    for name in RESULTS["matching.no_gradient"]:
        assert model.get_parameter(name).grad is None, name
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_forms_of_the_matching_loss():
    """By hand: probabilities of a match of 3/4 and 1/2."""
    first, second = torch.tensor([[0.0, math.log(3)]]), torch.zeros(1, 2)
    match, no_match = torch.tensor([1]), torch.tensor([0])
    fgr = -(math.log(3 / 4) + math.log(1 / 2)) / 2
    assert matching_loss(first, second, match).item() == pytest.approx(fgr)
    assert matching_loss(first, second, match, "nll").item() == pytest.approx(-math.log(5 / 8))
    assert matching_loss(first, second, no_match, "nll").item() == pytest.approx(-math.log(3 / 8))
    released = math.log(1 + math.exp(3 / 8 - 5 / 8))
    assert matching_loss(first, second, match, "released").item() == pytest.approx(released)
    # A match counts twice: (2 ln 4/3 + ln 4) / 3 of one head.
    both = torch.cat([first, first])
    weighted = (2 * math.log(4 / 3) + math.log(4)) / 3
    assert matching_loss(both, both, torch.tensor([1, 0])).item() == pytest.approx(weighted)
    sure = torch.tensor([[-50.0, 50.0]])
    assert matching_loss(sure, sure, match, "released").item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert matching_loss(sure, sure, match, "nll").item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match=r"`form` must be .*'released'.*, got 'bce'"):
        matching_loss(sure, sure, match, "bce")


def test_the_temperature_is_clamped_before_a_step():
    model, part = golden_of_r2d2.model(R2D2ForImageTextRetrieval), batch(slice(0, 6), of_rank(1, 0))
    with torch.no_grad():
        model.temp.fill_(2.0)
        model(**part)
        assert model.temp.item() == 2.0  # evaluation writes no weights
        model.train()(**part)
    assert model.temp.item() == 0.5


def test_two_forwards_before_one_backward():
    model, part = golden_of_r2d2.model(R2D2ForImageTextRetrieval).train(), batch(slice(0, 6), of_rank(1, 0))
    (model(**part)["loss"] + model(**part)["loss"]).backward()
    assert model.temp.grad.isfinite()


def test_wrong_models_and_batches():
    with pytest.raises(ValueError, match="the model must have cross encoders to be trained by pairs"):
        R2D2ForImageTextRetrieval(golden_of_r2d2.config(cross_config={"num_hidden_layers": 0}))
    model, part = golden_of_r2d2.model(R2D2ForImageTextRetrieval), batch(slice(0, 6), of_rank(1, 0))
    with pytest.raises(ValueError, match="input_ids has 48 tokens per text; allowed: up to 24"):
        model(**{**part, "input_ids": part["input_ids"].repeat(1, 2)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ids": torch.arange(5)},
            "one row for each pair, got .* input_ids 6, attention_mask 6, ids 5, negative_image 6",
        ),
        ({"negative_text": torch.zeros(1).long()}, "one row for each pair, got .*, negative_text 1"),
        (
            {"ids": torch.arange(6), "negative_image": torch.tensor([1, 2, 6, 0, 0, 0])},
            "`negative_image` must be rows of the pairs of all ranks, 0 to 5, got 6 in row 2",
        ),
        (
            {"ids": torch.arange(6), "negative_image": None, "negative_text": torch.tensor([1, 2, -1, 0, 0, 0])},
            "`negative_text` must be rows of the pairs of all ranks, 0 to 5, got -1 in row 2",
        ),
        (
            {"ids": torch.tensor([3, 4, 5, 7, 4, 9]), "negative_image": torch.tensor([1, 4, 0, 0, 0, 0])},
            "`negative_image` must be pairs of other ids, got 4 in row 1: both have the id 4",
        ),
    ],
)
def test_wrong_ids_and_negatives(changes, message):
    model = golden_of_r2d2.model(R2D2ForImageTextRetrieval)
    with torch.no_grad(), pytest.raises(ValueError, match=message):
        model(**batch(slice(0, 6), of_rank(1, 0)) | changes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([1, 2]), "`labels` must be 1 for a match, else 0, got 2 in row 1"),
        (torch.tensor([-100, 1]), "`labels` must be 1 for a match, else 0, got -100 in row 0"),
        (torch.tensor([1.0, 0.0]), r"`labels` must be integers of shape \(2,\), .*, got torch.float32 of shape \(2,\)"),
        (torch.tensor([1]), r"`labels` must be integers of shape \(2,\), .*, got torch.int64 of shape \(1,\)"),
    ],
)
def test_wrong_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        matching_loss(torch.zeros(2, 2), torch.zeros(2, 2), labels)


def test_a_label_for_each_pair():
    model, rows = golden_of_r2d2.model(R2D2ForImageTextMatching), slice(0, 2)
    pairs = (INPUTS["pixel_values"][rows], INPUTS["input_ids"][rows], INPUTS["attention_mask"][rows])
    with pytest.raises(ValueError, match=r"one row for each pair, got .* attention_mask 2, labels 3"):
        model(*pairs, torch.tensor([1, 0, 1]))


def test_checkpoints_are_those_of_the_model(tmp_path):
    model = golden_of_r2d2.model(R2D2ForImageTextRetrieval)
    model.save_pretrained(tmp_path)
    plain, info = R2D2Model.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    again = R2D2ForImageTextRetrieval.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(plain.state_dict()[name], tensor), name
        assert torch.equal(again.state_dict()[name], tensor), name
    assert not any(parameter.requires_grad for parameter in again.visual_encoder.parameters())


def test_a_task_of_pairs_has_to_say_what_its_rows_are():
    class WithoutRows(PairTask):
        objectives = ("none",)

    with pytest.raises(TypeError, match=r"abstract.*embed_batch.*no_rows"):
        WithoutRows()
