"""Each loss equals the released one in value and gradient, and does what it promises beyond."""

import math

import pytest
import torch
import torch.nn.functional as F

from fgclip2.training.losses import (
    cross_modal_rank_loss,
    hard_negative_loss,
    rank_margin,
    region_contrastive_loss,
    sigmoid_loss,
    textual_intra_modal_contrastive_loss,
)

from . import golden

TENSORS, RESULTS = golden.losses()


def leaves(*names: str) -> list[torch.Tensor]:
    return [TENSORS[name].clone().requires_grad_() for name in names]


def assert_equal(actual: torch.Tensor, expected: torch.Tensor, is_gradient: bool = False) -> None:
    expected = expected.reshape(actual.shape)
    if is_gradient:
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6 + 1e-5 * expected.abs().max().item())
    else:
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def check(case: str, loss: torch.Tensor, gradients: dict[str, torch.Tensor]) -> None:
    assert_equal(loss.detach(), TENSORS[f"{case}.loss"])
    loss.backward()
    for name, leaf in gradients.items():
        assert_equal(leaf.grad, TENSORS[f"{case}.grad_{name}"], is_gradient=True)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_sigmoid_loss_is_the_released_one():
    images, texts, scale, bias = leaves("in.sig_img", "in.sig_txt", "in.sig_scale", "in.sig_bias")
    images, texts = images[0].detach().requires_grad_(), texts[0].detach().requires_grad_()
    gradients = {"image": images, "text": texts, "logit_scale": scale, "logit_bias": bias}
    check("siglip_w1.reduce.rank0", sigmoid_loss(images, texts, scale, bias), gradients)


def test_sigmoid_loss_of_texts_of_other_images_is_the_released_one():
    images, texts, scale, bias = leaves("in.sig_img", "in.sig_txt", "in.sig_scale", "in.sig_bias")
    images, texts = images[0].detach().requires_grad_(), texts[0].detach().requires_grad_()
    gradients = {"image": images, "text": texts, "logit_scale": scale, "logit_bias": bias}
    check("siglip_negative_only", sigmoid_loss(images, texts, scale, bias, negative_only=True), gradients)


@pytest.mark.parametrize("scale_name", ["hi", "lo"])
@pytest.mark.parametrize("name", ["a", "b"])
def test_region_contrastive_loss_is_the_released_one(name, scale_name):
    regions, texts, scale = leaves(f"in.pw_img_{name}", f"in.pw_txt_{name}", f"in.pw_scale_{scale_name}")
    gradients = {"image": regions, "text": texts, "logit_scale": scale}
    check(f"pairwise.{name}.{scale_name}", region_contrastive_loss(regions, texts, scale), gradients)


@pytest.mark.parametrize("name", ["random", "min10", "cluster", "boundary", "negative"])
def test_tic_loss_is_the_released_one(name):
    (texts,) = leaves(f"in.tic_{name}")
    check(f"tic.{name}", textual_intra_modal_contrastive_loss(texts), {"text": texts})


@pytest.mark.parametrize("threshold", range(4))
@pytest.mark.parametrize("scale_name", ["hi", "lo"])
@pytest.mark.parametrize("name", ["a", "b"])
def test_hard_negative_loss_is_the_released_one(name, scale_name, threshold):
    case = f"hard.{name}.{scale_name}.t{threshold}"
    regions, texts, scale = leaves(f"in.hn_img_{name}", f"in.hn_txt_{name}", f"in.hn_scale_{scale_name}")
    groups = texts.view(len(regions), 11, -1)
    margin = TENSORS["in.hn_thresholds"][threshold].item()
    parts = hard_negative_loss(regions, groups[:, 0], groups[:, 1:], scale, margin)
    both = (TENSORS[f"{case}.ce_image_to_text"] + TENSORS[f"{case}.ce_text_to_image"]) / 2
    assert_equal(parts["contrast"].detach(), both)
    assert_equal(parts["pair"].detach(), TENSORS[f"{case}.pair_loss"])
    assert_equal(parts["rank"].detach(), TENSORS[f"{case}.cmr_loss"])
    assert_equal(parts["new_margin"], TENSORS[f"{case}.new_threshold"])
    check(case, parts["loss"], {"image": regions, "text": texts, "logit_scale": scale})


@pytest.mark.parametrize("threshold", range(3))
def test_rank_loss_and_margin_are_the_released_ones(threshold):
    positive_and_others, negatives = leaves("in.cmr_gt", "in.cmr_da")
    own = torch.arange(5)
    positives = positive_and_others[own, own]
    margin = RESULTS[f"cmr.t{threshold}"]["threshold_in"]
    assert_equal(rank_margin(positives, negatives), TENSORS[f"cmr.t{threshold}.new_threshold"])
    gradients = {"gt_logits": positive_and_others, "da_logits": negatives}
    check(f"cmr.t{threshold}", cross_modal_rank_loss(positives, negatives, margin), gradients)


def test_low_precision_is_computed_in_float32():
    texts = TENSORS["in.tic_random"].bfloat16()
    loss = textual_intra_modal_contrastive_loss(texts)
    assert loss.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(textual_intra_modal_contrastive_loss(texts), loss, rtol=0, atol=0)
    torch.testing.assert_close(loss, TENSORS["tic.random.bf16.loss"].view(()), rtol=2e-2, atol=5e-2)


def test_fewer_than_ten_texts_take_part_with_all_they_have():
    texts = unit(3, 8)
    similarities = (texts @ texts.T).fill_diagonal_(0)
    torch.testing.assert_close(textual_intra_modal_contrastive_loss(texts), similarities.logsumexp(-1).mean())
    assert textual_intra_modal_contrastive_loss(texts[:1]).item() == 0


def test_one_region_has_a_hard_negative_loss():
    region, positive, negatives = unit(1, 8), unit(1, 8, seed=1), unit(1, 10, 8, seed=2)
    parts = hard_negative_loss(region, positive, negatives, torch.tensor([1.0]), 0.5)
    logits = math.e * torch.cat([positive, negatives[0]]) @ region[0]
    torch.testing.assert_close(parts["pair"], F.cross_entropy(logits[None], torch.tensor([0])))
    torch.testing.assert_close(parts["rank"], (logits[1:] - logits[0] + 0.5).clamp(min=0).mean())
    torch.testing.assert_close(parts["new_margin"], logits[0] - logits[1:].mean())


def test_missing_negatives_count_nowhere():
    region, positive, negatives = unit(2, 8), unit(2, 8, seed=1), unit(2, 10, 8, seed=2)
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[:, 7:] = False
    scale = torch.tensor([2.0])
    masked = hard_negative_loss(region, positive, negatives, scale, 0.5, negative_mask=mask)
    fewer = hard_negative_loss(region, positive, negatives[:, :7], scale, 0.5)
    for name, value in fewer.items():
        torch.testing.assert_close(masked[name], value, msg=name)


def test_exact_zeros_are_left_out_of_the_margin():
    positives, negatives = torch.tensor([2.0, 4.0]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert rank_margin(positives, negatives).item() == 3.0 - 2.0
    assert rank_margin(positives, torch.zeros(2, 2)).item() == 3.0


def test_no_regions_give_zero_and_a_zero_gradient():
    regions, texts = torch.zeros(0, 8, requires_grad=True), torch.zeros(0, 8, requires_grad=True)
    negatives, scale = torch.zeros(0, 10, 8, requires_grad=True), torch.ones(1, requires_grad=True)
    parts = hard_negative_loss(regions, texts, negatives, scale, 1.0)
    loss = region_contrastive_loss(regions, texts, scale) + textual_intra_modal_contrastive_loss(texts) + parts["loss"]
    loss.backward()
    assert loss.item() == 0
    assert parts["new_margin"].item() == 0
    assert scale.grad.item() == 0
    assert all(leaf.grad is not None for leaf in (regions, texts, negatives))


def test_gradients_in_float64():
    regions, texts, negatives = (unit(*shape).double().requires_grad_() for shape in ((3, 5), (3, 5), (3, 4, 5)))
    scale, bias = torch.tensor([0.7]).double().requires_grad_(), torch.tensor([-0.3]).double().requires_grad_()
    mask = torch.tensor([[True, True, False, True]] * 3)

    def total(regions, texts, negatives, scale, bias):
        hard = hard_negative_loss(regions, texts, negatives, scale, 0.25, negative_mask=mask)["loss"]
        tic = textual_intra_modal_contrastive_loss(texts)
        return hard + tic + region_contrastive_loss(regions, texts, scale) + sigmoid_loss(regions, texts, scale, bias)

    assert torch.autograd.gradcheck(total, (regions, texts, negatives, scale, bias))
