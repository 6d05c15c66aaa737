"""Losses after R2D2's description: what its paper adds to the released fine-tuning, and released no code of.

The names are the paper's. The formulas follow what is known of it and, where that ends, the models that it builds on,
ALBEF and BLIP (github.com/salesforce).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .arithmetic import cosines, zero_of
from .ranking import PairRows

NOT_MASKED = -100  # label of a token that is not to be told; what torch's cross-entropy leaves out


def soft_targets(equal: Tensor, teacher_logits: Tensor, alpha: float) -> Tensor:
    """Mix what is known to belong together with what a teacher takes for it.

    Args:
        equal: Boolean, shape (N, M), with one `True` in each row at least.
        teacher_logits: Shape (N, M).
        alpha: Share of the teacher, from 0 to 1.

    Returns:
        Shape (N, M), without gradient; each row sums to 1.
    """
    known = equal / equal.sum(1, keepdim=True)
    return alpha * teacher_logits.detach().softmax(1) + (1 - alpha) * known


def target_guided_distillation_loss(
    student: PairRows, teacher: PairRows, candidates: PairRows, temperature: Tensor, alpha: float
) -> Tensor:
    """Contrast a student's pairs with candidates of a teacher, which has a share in the targets (TgD).

    Args:
        student: This rank's pairs, N of them.
        teacher: The same pairs by the teacher.
        candidates: Pairs by the teacher, M of them: this step's of all ranks, then those of a queue.
        temperature: One element, by which cosines are divided.
        alpha: Share of the teacher in the targets.

    Returns:
        Scalar: the mean over rows of both cross-entropies, halved. Gradients reach the student and the temperature.
    """
    equal = student.ids[:, None] == candidates.ids  # (N, M)
    losses = []
    for own, by_teacher, others in (
        (student.images, teacher.images, candidates.texts),
        (student.texts, teacher.texts, candidates.images),
    ):
        targets = soft_targets(equal, cosines(by_teacher, others) / temperature, alpha)
        losses.append(F.cross_entropy(cosines(own, others.detach()) / temperature, targets))
    return torch.stack(losses).mean()


def feature_guided_distillation_loss(student_texts: Tensor, teacher_texts: Tensor) -> Tensor:
    """Draw a student's vectors of masked texts to a teacher's of the whole texts (FgD): one minus their mean cosine.

    Args:
        student_texts, teacher_texts: Shape (N, D), row i of both being text i; need not be normalised.

    Returns:
        Scalar. Gradients reach the student only.
    """
    return 1 - F.cosine_similarity(student_texts.float(), teacher_texts.detach().float(), dim=-1).mean()


def relational_distillation_loss(
    student_texts: Tensor, teacher_texts: Tensor, teacher_images: Tensor, temperature: Tensor
) -> Tensor:
    """Let a student's masked texts find among images what a teacher's whole texts find: another form of FgD.

    Args:
        student_texts, teacher_texts: As in [`feature_guided_distillation_loss`].
        teacher_images: Shape (M, D), by the teacher; need not be normalised.
        temperature: One element, by which cosines are divided.

    Returns:
        Scalar: the mean cross-entropy. Gradients reach the student and the temperature.
    """
    rows = (student_texts, teacher_texts.detach(), teacher_images.detach())
    students, teachers, images = (F.normalize(its.float(), dim=-1) for its in rows)
    found = (cosines(teachers, images) / temperature).detach().softmax(1)  # (N, M)
    return F.cross_entropy(cosines(students, images) / temperature, found)


def masked_language_loss(
    logits: Tensor, labels: Tensor, teacher_logits: Tensor | None = None, alpha: float = 0.0
) -> Tensor:
    """Tell the tokens that a text lost to masks (MLM).

    Args:
        logits: Shape (..., V), of each token of the vocabulary.
        labels: Integer, shape (...): the token, or `NOT_MASKED` where none is asked for.
        teacher_logits: Shape (..., V), of a teacher for the same masked texts; `None`: the token is all that counts.
        alpha: Share of the teacher in the targets.

    Returns:
        Scalar: the mean over the masked tokens; a zero that keeps the graph if there are none.
    """
    masked = labels != NOT_MASKED
    if not bool(masked.any()):
        return zero_of(logits)
    logits, labels = logits[masked].float(), labels[masked]  # (masked, V), (masked,)
    loss = F.cross_entropy(logits, labels)
    if teacher_logits is None:
        return loss
    by_teacher = teacher_logits[masked].detach().float().softmax(-1)
    return (1 - alpha) * loss + alpha * F.cross_entropy(logits, by_teacher)
