"""The whole objective on one process: components, total, margin and gradients of the official training model."""

import pytest
import torch

from fgclip2.training.objective import PRESETS, FGClip2Objective, ObjectiveSettings

from . import golden

TENSORS, RESULTS = golden.outputs()
COMPONENTS = {
    "long": "loss_long",
    "short": "loss_short",
    "region": "loss_box_pairwise",
    "tic": "loss_box_tic",
    "hard_negative": "loss_hard_total",
}
WITHOUT_REGIONS = {"region_weight": 0.0, "tic_weight": 0.0}
WITHOUT_HARD = {"hard_negative_weight": 0.0}


def run(batch: dict, margin: float = 0.0, **settings):
    model, objective = golden.model(), FGClip2Objective("released", **settings)
    objective.margin.fill_(margin)
    losses = objective(model(**batch), batch)
    losses["loss"].backward()
    return model, objective, losses


def assert_components(losses: dict, result: dict) -> None:
    for name, key in COMPONENTS.items():
        if key in result:
            torch.testing.assert_close(losses[name].item(), result[key], rtol=2e-5, atol=2e-5, msg=name)
    torch.testing.assert_close(losses["loss"].item(), result["total_loss"], rtol=2e-5, atol=2e-5)


def assert_gradients(model, case: str) -> None:
    prefix = f"{case}.grad."
    expected = {name.removeprefix(prefix): tensor for name, tensor in TENSORS.items() if name.startswith(prefix)}
    parameters = dict(model.named_parameters())
    for name, gradient in expected.items():
        actual, tolerance = parameters[name].grad, 1e-6 + 1e-4 * gradient.abs().max().item()
        torch.testing.assert_close(actual, gradient.view_as(actual), rtol=0, atol=tolerance, msg=name)
    for name, norm in RESULTS[case]["grad_l2_norms"].items():
        if norm is not None:
            # The keys' bias has a gradient of zero but for rounding, which no two machines share: softmax does not see
            # what is added to all scores.
            rounding = 1e-5 if name.endswith("k_proj.bias") else 1e-6
            assert parameters[name].grad.norm().item() == pytest.approx(norm, rel=2e-4, abs=rounding), name


def test_embeddings_that_enter_the_losses():
    batch, case = golden.batch(0), "w1.full_reduce.step1.rank0.emb"
    with torch.no_grad():
        outputs = golden.model()(**batch)
    hard = torch.cat([outputs["hard_positive_embeds"][:, None], outputs["hard_negative_embeds"]], 1).flatten(0, 1)
    for ours, theirs in (
        (outputs["image_embeds"], "image"),
        (outputs["short_text_embeds"], "text_short"),
        (outputs["long_text_embeds"], "text_long"),
        (outputs["region_embeds"], "box_image"),
        (outputs["region_text_embeds"], "box_text"),
        (outputs["hard_region_embeds"], "hard_image"),
        (hard, "hard_text"),
    ):
        torch.testing.assert_close(ours, TENSORS[f"{case}.{theirs}"], rtol=1e-4, atol=2e-5, msg=theirs)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_full_objective(step):
    case = f"w1.full_reduce.step{step}.rank0"
    result = RESULTS[case]
    model, objective, losses = run(golden.batch(0), result["threshold_in"])
    assert_components(losses, result)
    assert objective.margin.item() == pytest.approx(result["thresholds_after"], abs=2e-5)
    assert_gradients(model, case)


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("global_only_reduce", WITHOUT_REGIONS | WITHOUT_HARD),
        ("box_only", WITHOUT_HARD),
        ("hard_only", WITHOUT_REGIONS),
    ],
)
def test_parts_of_the_objective(case, settings):
    case = f"w1.{case}.step1.rank0"
    result = RESULTS[case]
    model, objective, losses = run(golden.batch(0), result["threshold_in"], **settings)
    assert_components(losses, result)
    assert objective.margin.item() == pytest.approx(result["thresholds_after"], abs=2e-5)
    assert_gradients(model, case)


def test_no_regions_leave_the_margin_and_give_every_parameter_a_gradient():
    result = RESULTS["w1.zero_counts.step1.rank0"]
    model, objective, losses = run(golden.batch(0, regions=0, hard=0), result["threshold_in"])
    assert_components(losses, result)
    assert objective.margin.item() == pytest.approx(result["thresholds_after"])
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == ["dense_feature_head.probe"]


def test_few_regions_keep_their_losses():
    """The official code loses all region terms here; the values that it had computed are those of ours."""
    whole = run(golden.batch(0))[2]
    _, objective, losses = run(golden.batch(0, regions=9))
    assert losses["long"].item() == pytest.approx(whole["long"].item(), rel=1e-6)
    assert losses["hard_negative"].item() == pytest.approx(whole["hard_negative"].item(), rel=1e-6)
    assert losses["region"].item() > 0
    assert losses["tic"].item() > 0
    assert objective.margin.item() > 0


def test_a_single_hard_negative_keeps_its_loss():
    result = RESULTS["w1.single_hard.step1.rank0"]
    _, _, losses = run(golden.batch(0, hard=1), result["threshold_in"])
    assert losses["region"].item() == pytest.approx(result["loss_box_pairwise"], rel=2e-5)
    assert losses["tic"].item() == pytest.approx(result["loss_box_tic"], rel=2e-5)
    assert losses["hard_negative"].item() > 0
    assert losses["loss"].item() > result["total_loss"]


def test_without_long_captions_the_region_losses_stay():
    batch = {**golden.batch(0), "long_input_ids": None}
    _, _, losses = run(batch)
    result, full = RESULTS["w1.short_only.step1.rank0"], RESULTS["w1.full_reduce.step1.rank0"]
    assert losses["short"].item() == pytest.approx(result["loss_short"], rel=2e-5)
    assert losses["region"].item() == pytest.approx(full["loss_box_pairwise"], rel=2e-5)
    assert losses["hard_negative"].item() == pytest.approx(full["loss_hard_total"], rel=2e-5)
    assert "long" not in losses


def test_captions_of_some_images_only():
    batch = golden.batch(0)
    kept = torch.tensor([0, 3])
    some = {**batch, "long_input_ids": batch["long_input_ids"][kept], "long_image_index": kept}
    _, _, losses = run(some)
    outputs = golden.model()(**batch)
    from fgclip2.training.losses import sigmoid_loss

    expected = sigmoid_loss(
        outputs["image_embeds"][kept],
        outputs["long_text_embeds"][kept],
        outputs["logit_scale"],
        outputs["logit_bias"],
    )
    torch.testing.assert_close(losses["long"], expected)


def test_a_batch_whose_images_were_all_left_out():
    batch = golden.batch(0, regions=0, hard=0)
    empty = {name: value[:0] if name not in ("region_index", "hard_index") else value for name, value in batch.items()}
    model, _, losses = run(empty)
    assert losses["loss"].item() == 0
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_forms_of_the_sigmoid_loss_agree():
    model, _, losses = run(golden.batch(0))
    other, _, other_losses = run(golden.batch(0), sigmoid_form="ring")
    torch.testing.assert_close(other_losses["loss"], losses["loss"])
    for (name, parameter), other_parameter in zip(model.named_parameters(), other.parameters(), strict=True):
        if parameter.grad is not None:
            torch.testing.assert_close(other_parameter.grad, parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_margin_moves_in_training_only():
    batch, model = golden.batch(0), golden.model()
    objective = FGClip2Objective("released").eval()
    objective(model(**batch), batch)
    assert objective.margin.item() == 0
    objective.train()(model(**batch), batch)
    assert objective.margin.item() > 0


def test_margin_bounds():
    batch, model = golden.batch(0), golden.model()
    objective = FGClip2Objective("released", margin_bounds=(0.0, 0.1))
    objective(model(**batch), batch)
    assert objective.margin.item() == pytest.approx(0.1)


def test_paper_preset_has_the_weights_of_the_paper():
    _, _, released = run(golden.batch(0), 0.3)
    model, batch = golden.model(), golden.batch(0)
    objective = FGClip2Objective("paper")
    objective.margin.fill_(0.3)
    paper = objective(model(**batch), batch)
    parts = {name: released[name] for name in ("short", "long", "region", "tic", "pair", "rank")}
    expected = (
        parts["short"]
        + parts["long"]
        + 0.1 * parts["region"]
        + 0.5 * parts["pair"]
        + 0.1 * parts["tic"]
        + 0.4 * parts["rank"]
    )
    torch.testing.assert_close(paper["loss"], expected)


def test_released_weights():
    assert PRESETS["released"] == ObjectiveSettings()
    settings = PRESETS["released"]
    assert (settings.region_weight, settings.tic_weight, settings.hard_negative_weight) == (0.2, 0.1, 0.5)
    assert (settings.contrast_weight, settings.pair_weight, settings.rank_weight) == (0.6, 3.0, 0.4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "stage1"}, "`preset` must be 'released', 'paper' or 'fgclip', got 'stage1'"),
        ({"fgv_weight": 1.0}, "`objective_settings` must be of caption_loss, .*, got fgv_weight"),
        ({"tic_weight": -1.0}, r"`tic_weight` must be a number from 0 on, got -1.0"),
        ({"tic_weight": float("nan")}, "`tic_weight` must be a number from 0 on, got nan"),
        ({"region_negatives": "all"}, "`region_negatives` must be 'local' or 'global', got 'all'"),
        ({"sigmoid_form": "chunked"}, "`sigmoid_form` must be 'gather' or 'ring', got 'chunked'"),
        ({"tic_weight": "0.1"}, "`tic_weight` must be a number from 0 on, got '0.1'"),
        ({"pair_weight": float("inf")}, "`pair_weight` must be a number from 0 on, got inf"),
        ({"short_weight": True}, "`short_weight` must be a number from 0 on, got True"),
        ({"long_weight": None}, "`long_weight` must be a number from 0 on, got None"),
        ({"num_hardest": 0}, "`num_hardest` must be a positive integer, got 0"),
        ({"num_hardest": 2.5}, "`num_hardest` must be a positive integer, got 2.5"),
        ({"num_hardest": "64"}, "`num_hardest` must be a positive integer, got '64'"),
        ({"max_similarity": 95}, "`max_similarity` must be a number from -1 to 1, got 95"),
        ({"max_similarity": [0.9]}, r"`max_similarity` must be a number from -1 to 1, got \[0.9\]"),
        ({"margin_bounds": 3}, "`margin_bounds` must be two numbers, the lower one first, got 3"),
        ({"margin_bounds": [10, 0]}, r"`margin_bounds` must be two numbers, .*got \[10, 0\]"),
        ({"margin_bounds": [0, 1, 2]}, r"`margin_bounds` must be two numbers, .*got \[0, 1, 2\]"),
        ({"margin_bounds": "01"}, "`margin_bounds` must be two numbers, .*got '01'"),
        (
            {"margin_bounds": [0, float("nan")]},
            r"`margin_bounds` must be two numbers, .*got \[0, nan\]",
        ),
        ({"margin_ranks": ["all"]}, r"`margin_ranks` must be 'all' or 'with_hard_negatives', got \['all'\]"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FGClip2Objective(**arguments)


def test_settings_as_yaml_and_json_have_them():
    """Whole numbers for weights, and lists for pairs."""
    settings = FGClip2Objective(region_weight=0, margin_bounds=[0, 5], max_similarity=1).settings
    assert not settings.region_weight
    assert settings.margin_bounds == [0, 5]


def test_outputs_without_anything_to_learn_from():
    with pytest.raises(ValueError, match="nothing that a loss with any weight needs"):
        FGClip2Objective()({"image_embeds": torch.zeros(1, 4)})
