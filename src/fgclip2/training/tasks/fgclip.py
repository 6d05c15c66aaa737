"""FG-CLIP, the first version, in training: its model with one forward for all embeddings, and what other files ask."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...modeling.configuration_fgclip import FGClipConfig
from ...modeling.modeling_fgclip import SCALES, FGClipModel
from ..estimates import (
    FLOAT32,
    Activations,
    StepContents,
    text_activations,
    tower_activations,
    working_memory,
)
from ..objective import ObjectiveSettings
from .embeddings import EmbeddingTask
from .rows import embed_regions, encode_texts, normalize_rows

# Parts of the parameters by the beginnings of their names, in the order in which a plan lists them.
PARTS = {
    "vision embeddings": ("vision_model.embeddings", "vision_model.pre_layrnorm"),
    "vision encoder": ("vision_model.encoder", "vision_model.post_layernorm"),
    "image head": ("visual_projection",),
    "text embeddings": ("text_model.embeddings",),
    "text encoder": ("text_model.encoder", "text_model.final_layer_norm"),
    "text heads": ("text_projection", "text_filip_projection"),
    "scales": SCALES,
}


class FGClipForTraining(FGClipModel):
    """[`FGClipModel`] with one forward for all embeddings.

    Its checkpoints are those of `FGClipModel`. All towers run inside one forward, as DDP and FSDP need it, and each
    parameter gets a gradient even on a rank without captions, regions or images, so that no rank waits for another.

    While training, texts are encoded `text_chunk_size` at a time, and again for the gradient; 0: all at once.

    Example:
        >>> model = FGClipForTraining.from_pretrained(path)
        >>> losses = FGClip2Objective("fgclip")(model(**batch), batch)
    """

    default_objective = "fgclip"
    task = EmbeddingTask()
    text_chunk_size = 0
    # Where in the model its parts are, for freezing, learning rates and the plan.
    parts = PARTS
    heads = (*PARTS["image head"], *PARTS["text heads"])
    scales = SCALES
    towers = {  # embeddings, and the list of encoder layers above them
        "vision": ("vision_model.embeddings", "vision_model.encoder.layers"),
        "text": ("text_model.embeddings", "text_model.encoder.layers"),
    }

    def __init__(self, config: FGClipConfig):
        super().__init__(config)
        # Shape (1,): FSDP2 refuses parameters without dimensions, which the scales are in checkpoints.
        for name in SCALES:
            setattr(self, name, nn.Parameter(torch.full((1,), config.logit_scale_init_value)))
        self.register_load_state_dict_pre_hook(_scales_as_rows)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, **kwargs: Any) -> Any:
        """Load as [`FGClipModel`] does; the scales of shape () become (1,)."""
        wants_info = kwargs.pop("output_loading_info", False)
        plain, info = FGClipModel.from_pretrained(
            pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
        )
        model = cls.from_model(plain)
        return (model, info) if wants_info else model

    @classmethod
    def from_model(cls, model: FGClipModel) -> FGClipForTraining:
        """Make a training model of a plain one; the parameters are shared, not copied."""
        with torch.device("meta"):
            training = cls(model.config)  # type: ignore[arg-type]
        training.load_state_dict(model.state_dict(keep_vars=True), assign=True)
        return training.train(model.training)

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike, is_main_process: bool = True, state_dict: Any = None, **kwargs: Any
    ) -> None:
        """Save a folder that loads as [`FGClipModel`], the scales of shape (). Arguments as in `PreTrainedModel`."""
        state = dict(self.state_dict() if state_dict is None else state_dict)
        state.update({name: state[name].reshape(()) for name in SCALES if name in state})
        super().save_pretrained(save_directory, is_main_process, state, **kwargs)

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        short_input_ids: Tensor | None = None,
        long_input_ids: Tensor | None = None,
        boxes: Tensor | None = None,
        region_index: Tensor | None = None,
        region_input_ids: Tensor | None = None,
        hard_index: Tensor | None = None,
        hard_input_ids: Tensor | None = None,
        **unused: Any,
    ) -> dict[str, Tensor]:
        """Embed a batch of the collator. What is `None` is not computed; that has to be so on all ranks.

        Texts need no padding but to equal lengths within each argument.

        Args:
            pixel_values: Shape (B, 3, S, S).
            short_input_ids: Shape (S, T), short captions of at most 77 tokens.
            long_input_ids: Shape (L, T), long captions of at most 248 tokens.
            boxes: Float, shape (B, R, 4), (x1, y1, x2, y2) as fractions of width and height, padded with zeros.
            region_index: Integer, shape (K, 2), (image, box) of each region.
            region_input_ids: Shape (K, T), the regions' texts of at most 77 tokens.
            hard_index: Integer, shape (H, 2), (image, box) of each region with hard negatives.
            hard_input_ids: Shape (H, 1 + N, T), of at most 77 tokens: the true text, then the hard negatives.
            unused: Other keys of the batch, which the objective reads.

        Returns:
            What [`FGClip2Objective`] takes: L2-normalised embeddings and scales.
        """
        images = len(pixel_values)
        if not images:  # every parameter needs a gradient, if only of zero: one black image, whose rows are cut off
            pixel_values = pixel_values.new_zeros(1, *pixel_values.shape[1:])
        vision = self.vision_model(pixel_values, output_hidden_states=True)
        embeddings = {"image_embeds": self.visual_projection(vision.pooler_output)[:images]}
        for name, walk_type, input_ids in (
            ("short_text_embeds", "short", short_input_ids),
            ("long_text_embeds", "long", long_input_ids),
            ("region_text_embeds", "box", region_input_ids),
            ("hard_text_embeds", "box", None if hard_input_ids is None else hard_input_ids.flatten(0, 1)),
        ):
            if input_ids is not None:
                encode = partial(self.get_text_features, attention_mask=None, walk_type=walk_type)
                embeddings[name] = encode_texts(encode, input_ids, self.text_chunk_size if self.training else 0)
        if boxes is not None:
            # From the layer before the last on, images and their patches go different ways.
            patches = self.vision_model.finish_patches(vision.hidden_states[-2])
            dense = self.visual_projection(patches).float()  # (B, N, D)
            indices = {"region_embeds": region_index, "hard_region_embeds": hard_index}
            embeddings.update(embed_regions(dense, self.get_patch_grids(pixel_values), boxes, indices))
        outputs = normalize_rows(embeddings, hard_input_ids)
        # Not the parameters themselves: outside this forward FSDP has them in pieces.
        return outputs | {name: getattr(self, name) * 1.0 for name in SCALES}

    def unused_parameters(self, settings: ObjectiveSettings) -> list[str]:
        """Return the names of what an objective gives no gradient to: DDP would wait for it.

        Raises:
            ValueError: The objective shifts logits by a bias, which this model does not have.
        """
        uses_captions = settings.short_weight > 0 or settings.long_weight > 0
        if uses_captions and settings.caption_loss == "sigmoid":
            raise ValueError(
                "`caption_loss` must be 'info_nce' for FG-CLIP, whose logits have no bias, got 'sigmoid': take the "
                "objective 'fgclip'"
            )
        uses_region_texts = settings.uses_regions or settings.uses_hard_negatives
        positions = "text_model.embeddings.position_embedding"
        unused = []
        if not settings.region_weight:
            unused.append("logit_scale_finegraind")
        if not settings.uses_hard_negatives:
            unused.append("logit_scale_hardneg")
        if not settings.long_weight:
            unused += ["text_filip_projection", f"{positions}_ori", f"{positions}_res"]
        distills = settings.distillation_weight > 0  # of short captions, which are always embedded, and of images
        if not settings.short_weight and not uses_region_texts and not distills:
            unused += ["text_projection", positions]
        if not uses_captions:
            unused.append("logit_scale")
            if not distills:  # patches do not attend to each other in the last layer
                last = f"vision_model.encoder.layers.{len(self.vision_model.encoder.layers) - 1}.self_attn"
                unused += [f"{last}.q_proj", f"{last}.k_proj"]
        return unused

    def count_patches(self, processor: Any, height: int, width: int, max_num_patches: int | str | None) -> int:
        """Return how many patches an image becomes, which is the same for all."""
        vision = self.config.vision_config
        return (vision.image_size // vision.patch_size) ** 2

    @staticmethod
    def activation_memory(
        config: FGClipConfig,
        contents: StepContents,
        mixed: bool = False,
        checkpointing: bool = False,
        vision_layers: int | None = None,
        text_layers: int | None = None,
        text_chunk_size: int = 0,
    ) -> dict[str, Activations]:
        """Return bytes of the activations of a step: of the `vision` tower with its head, and of the `text` tower.

        Args:
            config: Configuration of the model.
            contents: Of one process.
            mixed, checkpointing: As in [`tower_activations`].
            vision_layers, text_layers: Layers that keep activations; `None`: all.
            text_chunk_size: Texts that are encoded at once; 0: all.
        """
        low = 2 if mixed else FLOAT32
        vision, text, length = config.vision_config, config.text_config, 1 + contents.patches
        tokens = contents.images * length
        embeddings = tokens * (low * vision.num_channels * vision.patch_size**2 + 2 * FLOAT32 * vision.hidden_size)
        layers = vision.num_hidden_layers if vision_layers is None else vision_layers
        if contents.regions and layers:
            layers += 1  # the last, once more for the patches
        tower = (vision, tokens, layers, mixed, checkpointing, length)
        return {
            "vision": Activations(embeddings + tower_activations(*tower), working_memory(*tower)),
            "text": text_activations(text, contents, text_layers, mixed, checkpointing, text_chunk_size),
        }


def _scales_as_rows(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Let a state dict with scales of shape () fit parameters of shape (1,)."""
    for name in SCALES:
        if (value := state_dict.get(prefix + name)) is not None and not value.ndim:
            state_dict[prefix + name] = value.detach().reshape(1)
