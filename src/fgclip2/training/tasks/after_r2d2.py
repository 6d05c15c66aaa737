"""R2D2 in training after its description: with a teacher, its queue, and masked texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...distributed import gather_rows, rank
from ...modeling.configuration_r2d2 import R2D2Config, R2D2TextConfig
from ...modeling.layers import activation_of
from ...modeling.modeling_r2d2 import R2D2Model
from ..checkpoints import load_state, save_state
from ..losses.after_r2d2 import (
    NOT_MASKED,
    feature_guided_distillation_loss,
    masked_language_loss,
    relational_distillation_loss,
    target_guided_distillation_loss,
)
from ..losses.ranking import PairRows, matching_loss
from ..momentum import MomentumTeacher, PairQueue
from .pretraining import AfterR2D2Settings, AfterR2D2Task
from .r2d2 import FROZEN, PARTS, EncodedPairs, R2D2ForImageTextRetrieval

STATE_FILE = "after_r2d2.safetensors"  # in checkpoints
_HEAD = "mlm_head"
_PARAMETERS_OF_HEAD = ("dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias", "bias")


class AfterR2D2Memory:
    """What a run after R2D2's description keeps beside the weights: its teacher, and the queue that TgD contrasts with.

    Args:
        model: The student; the teacher begins as its copy.
        settings: Of the run.
    """

    def __init__(self, model: AfterR2D2ForPreTraining, settings: AfterR2D2Settings):
        parts = dict(model.named_children())
        self.settings = settings
        self.teacher = MomentumTeacher({name: parts[name] for name in settings.of_teacher}, settings.momentum)
        size = settings.queue_size if settings.tgd_weight else 0
        self.queue = PairQueue(size, model.embedding_size, settings.queue_decay, model.device)
        self.epoch = 0.0  # that the run has got to
        self._head = model.mlm_head

    @property
    def alpha_share(self) -> float:
        """Return the part of `alpha` and `mlm_alpha` that counts by now."""
        return min(1.0, self.epoch / self.settings.alpha_epochs) if self.settings.alpha_epochs else 1.0

    def end_step(self, epoch: float) -> None:
        """Let the teacher follow; after each step of the optimizer, with the epoch that the run has got to."""
        self.teacher.follow()
        self.epoch = epoch

    @torch.no_grad()
    def encode(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, ids: Tensor
    ) -> tuple[Tensor, PairRows]:
        """Return the teacher's image tokens and embeddings of this rank's pairs, by whole texts."""
        image_tokens = self.teacher["visual_encoder"](pixel_values).last_hidden_state
        text_tokens = self.teacher["text_encoder"](input_ids, attention_mask).last_hidden_state
        images = F.normalize(self.teacher["vision_proj"](image_tokens[:, 0]).float(), dim=-1)  # (B, D)
        texts = F.normalize(self.teacher["text_proj"](text_tokens[:, 0]).float(), dim=-1)
        return image_tokens, PairRows(images, texts, ids)

    @torch.no_grad()
    def tell_masked(self, image_tokens: Tensor, masked_ids: Tensor, attention_mask: Tensor, masked: Tensor) -> Tensor:
        """Return the teacher's logits (masked, V) of the masked tokens, `masked` (B, T) saying which these are."""
        text_encoder: Any = self.teacher["text_encoder"]
        text_tokens = text_encoder(masked_ids, attention_mask).last_hidden_state
        joint = self.teacher["text_joint_layer"](text_tokens, attention_mask, image_tokens, None).last_hidden_state
        return self.teacher[_HEAD](joint[masked], text_encoder.get_input_embeddings().weight)

    def save(self, folder: str | Path) -> None:
        """Write all of it, and the head of MLM, which the weights of a checkpoint are without, into a folder.

        It is the same on all ranks, of which the first writes.
        """
        if rank() == 0:
            save_state(self._state(), Path(folder) / STATE_FILE)

    def load(self, folder: str | Path) -> None:
        """Read what `save` wrote.

        Raises:
            ValueError: There is no such file, or it is of a run with other settings.
        """
        path = Path(folder) / STATE_FILE
        if not path.is_file():
            raise ValueError(f"{path} is missing: the run was not one of the objective 'after-r2d2'")
        state, own = load_state(path), self._state()
        shapes = [{name: tensor.shape for name, tensor in its["tensors"].items()} for its in (own, state)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{path} is of another teacher or queue: go on with the `queue_size`, `mlm_alpha` and terms that the "
                "run began with"
            )
        for name, tensor in own["tensors"].items():
            tensor.copy_(state["tensors"][name])
        self.queue.pointer, self.epoch = state["pointer"], state["epoch"]

    def _state(self) -> dict[str, Any]:
        queue, head = self.queue, {f"{_HEAD}.{name}": its for name, its in self._head.state_dict().items()}
        teacher = {f"teacher.{name}": its for name, its in self.teacher.state_dict().items()}
        queues = {"image_queue": queue.images, "text_queue": queue.texts, "id_queue": queue.ids}
        return {"tensors": {**teacher, **queues, **head}, "pointer": queue.pointer, "epoch": self.epoch}


class MaskedLanguageHead(nn.Module):
    """BERT's head for masked tokens; its last matrix is that of the word embeddings."""

    def __init__(self, config: R2D2TextConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation_fn = activation_of(config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, tokens: Tensor, word_embeddings: Tensor) -> Tensor:
        """Return logits (..., V) of tokens (..., D) by word embeddings (V, D)."""
        hidden = self.LayerNorm(self.activation_fn(self.dense(tokens)))
        return F.linear(hidden, word_embeddings, self.bias)


class AfterR2D2ForPreTraining(R2D2ForImageTextRetrieval):
    """[`R2D2Model`] in training after R2D2's description; all of it is trained, the vision tower too.

    Checkpoints are those of `R2D2Model`: the head of masked tokens is new in each run, and not saved with the model.

    Example:
        >>> model = AfterR2D2ForPreTraining.from_pretrained(path).train()
        >>> memory = model.start(AfterR2D2Settings(queue_size=1024))
        >>> model(**batch)["loss"].backward()
        >>> optimizer.step()
        >>> memory.end_step(epoch=0.1)
    """

    task = AfterR2D2Task()
    default_objective = "after-r2d2"
    frozen = ("visual_encoder.post_layernorm.", *FROZEN[1:])
    trains_vision = True
    parts = {**PARTS, "language head": (_HEAD,)}
    heads = (*R2D2ForImageTextRetrieval.heads, _HEAD)

    _keys_to_ignore_on_load_missing = [rf"^{_HEAD}\."]
    _keys_to_ignore_on_save = [f"{_HEAD}.{name}" for name in _PARAMETERS_OF_HEAD]

    def __init__(self, config: R2D2Config):
        super().__init__(config)
        self.mlm_head = MaskedLanguageHead(config.text_config)
        self.memory: AfterR2D2Memory | None = None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MaskedLanguageHead):
            nn.init.zeros_(module.bias)

    @classmethod
    def from_model(cls, model: R2D2Model) -> AfterR2D2ForPreTraining:
        """Make a training model of a plain one; the parameters are shared, not copied, and the head of MLM is new."""
        training = super().from_model(model)
        training.mlm_head.to_empty(device=model.device).apply(training._init_weights)
        return training

    def start(self, settings: AfterR2D2Settings) -> AfterR2D2Memory:
        """Begin a run: make the teacher, a copy of the weights as they are, and an empty queue."""
        self.memory = AfterR2D2Memory(self, settings)
        return self.memory

    def unused_parameters(self, settings: AfterR2D2Settings) -> list[str]:
        """Return the head of MLM where that has no weight."""
        return [] if settings.mlm_weight else [_HEAD]

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        ids: Tensor,
        masked_input_ids: Tensor | None = None,
        masked_labels: Tensor | None = None,
        negative_image: Tensor | None = None,
        negative_text: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch by the settings of [`start`]; all ranks have to call this.

        While training, what the teacher makes of the batch goes into the queue afterwards.

        Args:
            pixel_values, input_ids, attention_mask, ids, negative_image, negative_text: As in
                [`R2D2ForImageTextRetrieval`].
            masked_input_ids, masked_labels: Integer, shape (B, T), from [`mask_tokens`], where `fgd_weight` or
                `mlm_weight` is above 0: all losses are then of the masked texts.

        Returns:
            Scalars `gcpr`, `fgr`, those of `tgd`, `fgd` and `mlm` that have weight, and `loss`, the weighted sum.

        Raises:
            ValueError: As in [`R2D2ForImageTextRetrieval`]; or [`start`] was not called, masked texts are missing or of
                another shape, or the queue holds fewer pairs than a step has.
        """
        memory = self.memory
        if memory is None:
            raise ValueError("the run has no teacher and no queue yet: call `start` with its settings first")
        settings, read = memory.settings, input_ids
        if settings.masks_texts:
            read, masked_labels = _checked_masks(masked_input_ids, masked_labels, input_ids)
        negatives = {"negative_image": negative_image, "negative_text": negative_text}
        pairs = self._encode_pairs(pixel_values, read, attention_mask, ids, negatives)
        image_tokens, text_tokens, masks, labels = self._pairs_to_compare(pairs, **negatives)
        of_texts, of_images = self.get_joint_tokens(image_tokens, text_tokens, masks)
        logits = self.itm_head(of_texts[:, 0]), self.itm_head_i(of_images[:, 0])
        losses = {"gcpr": self._contrast(pairs), "fgr": matching_loss(*logits, labels, form="fgr")}
        teacher_image_tokens = None
        if settings.of_teacher:
            teacher_image_tokens, of_teacher = memory.encode(pixel_values, input_ids, attention_mask, ids)
            losses |= self._distill(memory, pairs, of_teacher)
        if settings.mlm_weight:
            assert masked_labels is not None
            masked, by_teacher = masked_labels != NOT_MASKED, None  # (B, T)
            # Only tokens that are asked for: logits of a whole vocabulary for every token would be too many.
            joint_tokens = of_texts[: len(ids), : read.shape[1]][masked]  # (masked, D)
            if teacher_image_tokens is not None and settings.mlm_alpha:
                by_teacher = memory.tell_masked(teacher_image_tokens, read, attention_mask, masked)
            losses["mlm"] = masked_language_loss(
                self.mlm_head(joint_tokens, self.get_input_embeddings().weight),
                masked_labels[masked],
                by_teacher,
                settings.mlm_alpha * memory.alpha_share,
            )
        weights = {name: getattr(settings, f"{name}_weight", 1.0) for name in losses}
        return {**losses, "loss": torch.stack([weights[name] * value for name, value in losses.items()]).sum()}

    def _distill(self, memory: AfterR2D2Memory, pairs: EncodedPairs, teacher: PairRows) -> dict[str, Tensor]:
        """Return TgD and FgD, as far as they have weight, by what the teacher makes of this rank's pairs."""
        settings, losses = memory.settings, {}
        every = PairRows(*(gather_rows(rows, pairs.counts) for rows in teacher))
        if settings.tgd_weight:
            candidates = PairRows(*(torch.cat(both) for both in zip(every, memory.queue.filled(), strict=True)))
            alpha = settings.alpha * memory.alpha_share
            losses["tgd"] = target_guided_distillation_loss(pairs.own, teacher, candidates, self.temp, alpha)
            if self.training:
                memory.queue.push(every)
        if settings.fgd_weight and settings.fgd_form == "cosine":
            losses["fgd"] = feature_guided_distillation_loss(pairs.own.texts, teacher.texts)
        elif settings.fgd_weight:
            losses["fgd"] = relational_distillation_loss(pairs.own.texts, teacher.texts, every.images, self.temp)
        return losses


def _checked_masks(masked_ids: Tensor | None, labels: Tensor | None, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    for name, value in {"masked_input_ids": masked_ids, "masked_labels": labels}.items():
        if value is None or value.shape != input_ids.shape:
            found = "None" if value is None else f"shape {tuple(value.shape)}"
            raise ValueError(
                f"`{name}` must have the shape of input_ids, {tuple(input_ids.shape)}, where `fgd_weight` or "
                f"`mlm_weight` is above 0 (fgclip2.training.masking.mask_tokens makes it), got {found}"
            )
    assert masked_ids is not None
    assert labels is not None
    return masked_ids, labels


__all__ = ["AfterR2D2ForPreTraining", "AfterR2D2Memory", "AfterR2D2Settings"]
