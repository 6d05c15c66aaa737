"""The parts of the checkpoint's recipe that have a right answer."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recipes.embedded_checkpoint.drawings import alpha_boxes, warp
from recipes.embedded_checkpoint.losses import multi_positive_sigmoid_loss
from recipes.embedded_checkpoint.metrics import ranks, recalls
from recipes.embedded_checkpoint.optimizer import MuonAdamW, orthogonalize
from recipes.embedded_checkpoint.settings import Settings, lr_factor
from recipes.embedded_checkpoint.texts import fill_template


def test_recalls_of_hand_made_scores():
    scores = np.array([[0.9, 0.1, 0.0], [0.5, 0.4, 0.3]])
    assert recalls(scores, np.array([0, 2])) == [50.0, 100.0, 100.0]


def test_ties_count_by_half():
    assert ranks(np.zeros((1, 5)), np.array([3])).tolist() == [2.0]


def test_sigmoid_loss_equals_the_sum_over_pairs():
    generator = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(4, 8, generator=generator), dim=-1)
    texts = F.normalize(torch.randn(3, 8, generator=generator), dim=-1)
    is_positive = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.bool)
    is_counted = torch.ones(4, 3, dtype=torch.bool)
    is_counted[0, 2] = False
    scale, bias = torch.tensor([math.log(10.0)]), torch.tensor([-2.0])
    loss = multi_positive_sigmoid_loss(images, texts, is_positive, is_counted, scale, bias)
    expected = 0.0
    for i in range(4):
        for t in range(3):
            logit = 10.0 * float(images[i] @ texts[t]) - 2.0
            if is_counted[i, t]:
                expected += math.log1p(math.exp(-logit if is_positive[i, t] else logit))
    assert loss.item() == pytest.approx(expected / 4, rel=1e-5)


@pytest.mark.parametrize("shape", [(2, 24, 24), (1, 16, 48), (3, 48, 16)])
def test_orthogonalize_brings_singular_values_close_to_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert orthogonalize(matrices).shape == shape
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_optimizer_steps_as_adamw_does():
    def run(make):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(5, 3))
        optimizer = make([weight])
        for _ in range(4):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()
        return weight.detach()

    def ours(parameters):
        return MuonAdamW([{"params": parameters, "lr": 0.1, "weight_decay": 0.01, "use_muon": False}])

    def theirs(parameters):
        return torch.optim.AdamW(parameters, lr=0.1, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)

    torch.testing.assert_close(run(ours), run(theirs))


def test_alpha_boxes_are_tight():
    alpha = torch.zeros(1, 8, 10)
    alpha[0, 2:5, 3:9] = 1.0
    assert alpha_boxes(alpha).tolist() == [[3.0, 2.0, 9.0, 5.0]]


def test_warp_without_change_is_the_identity():
    drawing = torch.rand(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    moved = warp(drawing, np.eye(2)[None], np.zeros((1, 2)), 16)
    torch.testing.assert_close(moved, drawing, atol=1e-5, rtol=0)


def test_schedule_warms_up_decays_and_ends_at_zero():
    settings = Settings()
    assert lr_factor(settings, 0) < 0.1
    assert lr_factor(settings, settings.decay_from) == 1.0
    assert lr_factor(settings, settings.total_steps) == 0.0


def test_templates_put_the_article_where_english_needs_it():
    assert fill_template("a photo of {a}", "axe") == "a photo of an axe"
    assert fill_template("一张{}的图片", "狗") == "一张狗的图片"
