"""Training after R2D2's description, against the reference data, and by identities that hold at its first step."""

import json

import pytest
import torch
from torch import Tensor, nn

from fgclip2.data import Record
from fgclip2.training import AfterR2D2ForPreTraining, AfterR2D2Settings
from fgclip2.training.losses import (
    PairRows,
    feature_guided_distillation_loss,
    masked_language_loss,
    relational_distillation_loss,
    target_guided_distillation_loss,
)
from fgclip2.training.losses.after_r2d2 import NOT_MASKED, soft_targets
from fgclip2.training.masking import mask_tokens
from fgclip2.training.momentum import EMPTY, MomentumTeacher, PairQueue, move_towards
from fgclip2.training.pair_collator import PairCollator
from fgclip2.training.sampler import DrawnRecord
from fgclip2.training.tasks.after_r2d2 import MaskedLanguageHead
from tests import golden_of_r2d2
from tests.golden_of_r2d2 import GOLDEN_R2D2

from .pairs import make_pairs

GOLDEN = golden_of_r2d2.tensors("reference_pretraining")
CONSTANTS = json.loads((GOLDEN_R2D2 / "reference_pretraining.json").read_text(encoding="utf-8"))
REFERENCE, GRADIENTS = {"rtol": 0, "atol": 1e-6}, {"rtol": 0, "atol": 1e-5}
SIZES = {"full": 20, "empty": 5, "partial": 12, "no_alpha": 20, "no_target": 20}  # case -> candidates
INPUTS = golden_of_r2d2.tensors("inputs")


def of(prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t.clone() for name, t in GOLDEN.items() if name.startswith(f"{prefix}.")}


# -- pure functions, against the reference ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", SIZES)
def test_target_guided_distillation(case):
    golden = of(f"tgd.{case}")
    queue = PairQueue(CONSTANTS["K"], CONSTANTS["D"], 1.0, torch.device("cpu"))
    queue.images, queue.texts, queue.ids = (golden[f"{name}_queue"] for name in ("image", "text", "id"))
    student = PairRows(golden["image"].requires_grad_(), golden["text"].requires_grad_(), golden["ids"])
    teacher = PairRows(golden["teacher_image"], golden["teacher_text"], golden["ids"])
    candidates = PairRows(*(torch.cat(both) for both in zip(teacher, queue.filled(), strict=True)))
    assert len(candidates.ids) == SIZES[case]
    alpha, tau = CONSTANTS[f"tgd.{case}"]["alpha"], torch.tensor(CONSTANTS["tau"], requires_grad=True)
    loss = target_guided_distillation_loss(student, teacher, candidates, tau, alpha)
    torch.testing.assert_close(loss.detach(), golden["loss"], **REFERENCE)
    loss.backward()
    torch.testing.assert_close(student.images.grad, golden["grad_image"], **GRADIENTS)
    torch.testing.assert_close(student.texts.grad, golden["grad_text"], **GRADIENTS)
    torch.testing.assert_close(tau.grad, golden["grad_temp"], rtol=1e-4, atol=0)
    equal = student.ids[:, None] == candidates.ids
    for name, own, others in (("i2t", teacher.images, candidates.texts), ("t2i", teacher.texts, candidates.images)):
        targets = soft_targets(equal, own @ others.T / tau, alpha)
        torch.testing.assert_close(targets, golden[f"targets_{name}"], **REFERENCE)


def test_both_forms_of_feature_guided_distillation():
    golden, other = of("fgd"), of("fgd_relational")
    student = golden["student"].requires_grad_()
    loss = feature_guided_distillation_loss(student, golden["teacher"])
    torch.testing.assert_close(loss.detach(), golden["loss"], **REFERENCE)
    loss.backward()
    torch.testing.assert_close(student.grad, golden["grad_student"], **GRADIENTS)
    student.grad = None
    tau = torch.tensor(CONSTANTS["tau"])
    loss = relational_distillation_loss(student, golden["teacher"], other["teacher_image"], tau)
    torch.testing.assert_close(loss.detach(), other["loss"], **REFERENCE)
    loss.backward()
    torch.testing.assert_close(student.grad, other["grad_student"], **GRADIENTS)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_masked_language_loss(kind):
    golden = of("mlm")
    logits, labels = golden["logits"].requires_grad_(), GOLDEN["mask.labels"]
    soft = {"teacher_logits": golden["teacher_logits"], "alpha": CONSTANTS["alpha"]} if kind == "soft" else {}
    loss = masked_language_loss(logits, labels, **soft)
    torch.testing.assert_close(loss.detach(), golden[f"{kind}.loss"], **REFERENCE)
    loss.backward()
    torch.testing.assert_close(logits.grad, golden[f"{kind}.grad_logits"], **GRADIENTS)


def test_a_batch_without_masked_tokens_still_gives_gradients():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    loss = masked_language_loss(logits, torch.full((2, 3), NOT_MASKED))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_masks():
    golden, constants = of("mask"), CONSTANTS["mask"]
    special = (constants["pad"], constants["cls"], constants["sep"])
    draws = torch.stack([golden["u_choose"], golden["u_kind"]], -1)
    masked, labels = mask_tokens(
        golden["input_ids"], draws, golden["random_ids"], constants["mask"], special, constants["probability"]
    )
    assert torch.equal(masked, golden["masked_ids"])
    assert torch.equal(labels, golden["labels"])


def test_the_language_head():
    golden = of("mlm_head")
    config = golden_of_r2d2.config().text_config
    config.hidden_size, config.vocab_size = 12, 31
    head = MaskedLanguageHead(config)
    named = {name.removeprefix("transform."): value for name, value in golden.items()}
    head.load_state_dict({name: named[name] for name in head.state_dict()})
    found = head(golden["hidden"], golden["word_embeddings"]).detach()
    torch.testing.assert_close(found, golden["logits"], rtol=0, atol=1e-5)


def test_queues():
    queue = PairQueue(CONSTANTS["K"], CONSTANTS["D"], CONSTANTS["gamma"], torch.device("cpu"))
    assert not len(queue.filled().ids)
    for step in range(4):
        golden = of(f"queue.step{step}")
        queue.push(PairRows(golden["image"], golden["text"], golden["ids"]))
        torch.testing.assert_close(queue.images, golden["image_queue"], **REFERENCE)
        torch.testing.assert_close(queue.texts, golden["text_queue"], **REFERENCE)
        assert torch.equal(queue.ids, golden["id_queue"])
        assert queue.pointer == golden["pointer"]
    small = PairQueue(4, CONSTANTS["D"], 1.0, torch.device("cpu"))
    with pytest.raises(
        ValueError, match="`queue_size` must be at least 5, the pairs of a step of all processes, got 4"
    ):
        small.push(PairRows(golden["image"], golden["text"], golden["ids"]))
    assert (small.ids == EMPTY).all()


def test_the_teacher_follows():
    student = nn.Linear(4, 3, bias=False)
    student.load_state_dict({"weight": GOLDEN["ema.step0.student"]})
    teacher = MomentumTeacher({"linear": student}, CONSTANTS["m"])
    for step in range(3):
        student.load_state_dict({"weight": GOLDEN[f"ema.step{step}.student"]})
        if step:
            teacher.follow()
        torch.testing.assert_close(teacher["linear"].weight, GOLDEN[f"ema.step{step}.teacher"], **REFERENCE)
    assert not teacher["linear"].weight.requires_grad
    move_towards([own := torch.ones(2)], [torch.zeros(2)], 0.0)
    assert torch.equal(own, torch.zeros(2))


# -- the model --------------------------------------------------------------------------------------------------------


def model_of(**settings) -> AfterR2D2ForPreTraining:
    model = AfterR2D2ForPreTraining.from_model(golden_of_r2d2.model())
    model.start(AfterR2D2Settings(**({"queue_size": 16} | settings)))
    return model


def batch(masked: bool = True, rows: slice = slice(0, 6)) -> dict[str, Tensor]:
    part = {name: INPUTS[name][rows] for name in ("pixel_values", "input_ids", "attention_mask")}
    part["ids"] = torch.arange(100)[rows]
    if masked:  # the second and third token of each text
        part["masked_labels"] = torch.full_like(part["input_ids"], NOT_MASKED)
        part["masked_labels"][:, 1:3] = part["input_ids"][:, 1:3]
        part["masked_input_ids"] = part["input_ids"].clone()
        part["masked_input_ids"][:, 1:3] = 4
    return part


def test_alpha_grows_from_nothing():
    memory = model_of(alpha_epochs=100.0).memory
    for step, alpha in CONSTANTS["alpha_schedule"].items():
        memory.epoch = float(step)
        assert CONSTANTS["alpha"] * memory.alpha_share == pytest.approx(alpha)
    assert model_of(alpha_epochs=0.0).memory.alpha_share == 1.0


def test_at_the_first_step_the_teacher_says_what_the_student_does():
    """Without dropout, with an empty queue, and before `alpha` grows, TgD is GCPR; then the queue changes it."""
    model = model_of(fgd_weight=0.0, mlm_weight=0.0, tgd_weight=2.0)
    losses = model(**batch(masked=False))
    torch.testing.assert_close(losses["tgd"], losses["gcpr"])
    torch.testing.assert_close(losses["loss"], losses["gcpr"] + losses["fgr"] + 2 * losses["tgd"])
    assert losses.keys() == {"gcpr", "fgr", "tgd", "loss"}
    assert not len(model.memory.queue.filled().ids)  # in evaluation mode
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for layer in (*model.text_encoder.encoder.layer, *model.text_joint_layer.encoder.layer):
        layer.attention.self.dropout = 0.0
    model.train()
    torch.testing.assert_close(model(**batch(masked=False))["tgd"], losses["tgd"])
    queue = model.memory.queue.filled()
    assert queue.ids.tolist() == list(range(6))
    torch.testing.assert_close(
        queue.texts, golden_of_r2d2.model()(batch()["input_ids"], None, batch()["attention_mask"]).text_embeds
    )
    assert model(**batch(masked=False))["tgd"] > losses["tgd"] + 0.1  # twice as many candidates
    assert len(model.memory.queue.filled().ids) == 12


@pytest.mark.parametrize("mlm_alpha", [0.0, 0.4])
def test_masked_texts_are_what_the_student_reads(mlm_alpha):
    """Against each part by itself."""
    model, part = model_of(mlm_alpha=mlm_alpha, alpha_epochs=0.0, fgd_weight=0.5), batch()
    losses = model(**part)
    read = {"input_ids": part["masked_input_ids"], "attention_mask": part["attention_mask"]}
    student = model.get_text_tokens(**read)
    whole = model.get_text_features(part["input_ids"], part["attention_mask"])
    expected = 1 - torch.cosine_similarity(model.text_proj(student[:, 0]), whole).mean()
    torch.testing.assert_close(losses["fgd"], expected)
    assert expected > 0.001
    of_texts, _ = model.get_joint_tokens(model.get_image_tokens(part["pixel_values"]), student, part["attention_mask"])
    logits = model.mlm_head(of_texts[:, 1:3], model.get_input_embeddings().weight)  # (6, 2, V)
    labels = part["input_ids"][:, 1:3]
    hard = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    entropy = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()  # the teacher is the student
    torch.testing.assert_close(losses["mlm"], (1 - mlm_alpha) * hard + mlm_alpha * entropy)
    weighted = losses["gcpr"] + losses["fgr"] + losses["tgd"] + 0.5 * losses["fgd"] + losses["mlm"]
    torch.testing.assert_close(losses["loss"], weighted)
    plain = golden_of_r2d2.model()(part["masked_input_ids"], part["pixel_values"], part["attention_mask"])
    torch.testing.assert_close(pairs_loss(plain.logits_per_image), losses["gcpr"])


def pairs_loss(logits: Tensor) -> Tensor:
    own = torch.arange(len(logits))
    return (nn.functional.cross_entropy(logits, own) + nn.functional.cross_entropy(logits.T, own)) / 2


WITHOUT_ANY = {"tgd_weight": 0.0, "fgd_weight": 0.0, "mlm_weight": 0.0}


@pytest.mark.parametrize(
    "settings", [{}, {"mlm_weight": 0.0}, {"fgd_form": "relational", "tgd_weight": 0.0}, WITHOUT_ANY]
)
def test_every_trained_parameter_gets_a_gradient_and_the_teacher_none(settings):
    """DDP waits for each; the vision tower is trained, and pairs reach it."""
    model = model_of(**settings)
    for name in model.unused_parameters(model.memory.settings):
        model.get_submodule(name).requires_grad_(False)
    model(**batch())["loss"].backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert model.visual_encoder.encoder.layers[0].mlp.fc1.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in model.memory.teacher.parameters())
    assert not any(name.startswith("memory") for name in model.state_dict())


def test_a_saved_folder_has_neither_head_nor_teacher(tmp_path):
    model = model_of()
    model.save_pretrained(tmp_path)
    again, info = type(golden_of_r2d2.model()).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert torch.equal(again.text_proj.weight, model.text_proj.weight)
    trainee, info = AfterR2D2ForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert all(name.startswith("mlm_head.") for name in info["missing_keys"])
    assert not trainee.mlm_head.bias.any()
    assert 0.01 < trainee.mlm_head.dense.weight.std() < 0.03


def test_what_a_step_can_not_take():
    model = AfterR2D2ForPreTraining.from_model(golden_of_r2d2.model())
    with pytest.raises(ValueError, match="no teacher and no queue yet: call `start` with its settings first"):
        model(**batch())
    model.start(AfterR2D2Settings(queue_size=4))
    with pytest.raises(
        ValueError, match=r"`masked_input_ids` must have the shape of input_ids, \(6, 24\), .* got None"
    ):
        model(**batch(masked=False))
    with pytest.raises(ValueError, match="`queue_size` must be at least 6, the pairs of a step"):
        model.train()(**batch())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tgd_weight": -1}, "`tgd_weight` must be .*, got -1"),
        ({"mlm_weight": 0, "mlm_alpha": 0.4}, "`mlm_alpha` must be 0 where `mlm_weight` is, got 0.4"),
        ({"mask_probability": 0}, "`mask_probability` must be above 0 where `fgd_weight` or `mlm_weight` is"),
        ({"momentum": 1.5}, "`momentum` must be .*, got 1.5"),
        ({"queue_size": 0}, "`queue_size` must be a positive integer, got 0"),
        ({"fgd_form": "cos"}, "`fgd_form` must be 'cosine' or 'relational', got 'cos'"),
    ],
)
def test_settings_that_mean_nothing(settings, message):
    with pytest.raises(ValueError, match=message):
        AfterR2D2Settings(**settings)


# -- batches ----------------------------------------------------------------------------------------------------------


def test_masks_of_a_record_depend_on_seed_and_epoch_alone(tmp_path):
    make_pairs(tmp_path, 3)
    processor = golden_of_r2d2.embedder().processor
    del processor.prepare_image  # that of the class
    records = [
        Record(str(tmp_path / "images" / f"{n}.png"), text, None, "zh", (), str(n))
        for n, text in enumerate(["红球" * 5, "左边绿球右边黄球"])
    ]
    collator = PairCollator(processor, mask_probability=0.5)

    def masks(which: list[int], epoch: int = 0, collator: PairCollator = collator) -> Tensor:
        made = collator([DrawnRecord(records[n], epoch) for n in which])
        labels, ids, masked = made["masked_labels"], made["input_ids"], made["masked_input_ids"]
        assert torch.equal(labels[labels != NOT_MASKED], ids[labels != NOT_MASKED])
        assert torch.equal(masked[labels == NOT_MASKED], ids[labels == NOT_MASKED])
        assert not torch.isin(ids[labels != NOT_MASKED], torch.tensor([0, 2, 3])).any()
        return masked

    both = masks([0, 1])
    assert torch.equal(masks([1])[0], both[1, : masks([1]).shape[1]])
    assert not torch.equal(masks([0, 1], epoch=1), both)
    other = PairCollator(processor, mask_probability=0.5, augmentation="r2d2")
    assert torch.equal(masks([0, 1], collator=other), both)
    assert not torch.equal(masks([0, 1], collator=PairCollator(processor, mask_probability=0.5, seed=1)), both)
    assert "masked_input_ids" not in PairCollator(processor)([DrawnRecord(records[0], 0)])
    processor.tokenizer.mask_token = None
    with pytest.raises(ValueError, match=r"the vocabulary of the checkpoint must have \[MASK\]"):
        PairCollator(processor, mask_probability=0.5)


def test_a_plan_counts_teacher_and_queues():
    model, task = model_of(mlm_alpha=0.4), AfterR2D2ForPreTraining.task
    memory = model.memory
    kept = [*memory.teacher.parameters(), memory.queue.images, memory.queue.texts, memory.queue.ids]
    assert task.kept_memory(model, memory.settings) == sum(tensor.nbytes for tensor in kept)
    assert task.kept_memory(model, AfterR2D2Settings(**WITHOUT_ANY)) == 0
