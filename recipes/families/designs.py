"""The two designs at one size: FG-CLIP and FG-CLIP 2 with one tokenizer and equal parameters outside the embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fgclip2.assets import embedded_checkpoint
from fgclip2.modeling.configuration_fgclip import FGClipConfig
from fgclip2.modeling.configuration_fgclip2 import FGClip2Config
from fgclip2.modeling.image_processing_fgclip import FGClipImageProcessor
from fgclip2.modeling.processing_fgclip import FGClipProcessor
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor
from fgclip2.modeling.tokenization_fgclip import FGClipTokenizer
from fgclip2.training import FGClip2ForTraining, FGClipForTraining

from ..scenes.trainee import set_region_scales
from ..scenes.validation import SCENE_PATCHES

CHECKPOINT = embedded_checkpoint()  # its tokenizer and its sizes are used, not its weights
SIDE = 160  # of FG-CLIP's squares, in pixels: as many patches as FG-CLIP 2 has
# FG-CLIP 2's pooling head and its dense head are a layer each: FG-CLIP, which has neither, gets two layers more.
MORE_VISION_LAYERS = 2
# Token and position tables, by the ends of their names.
EMBEDDINGS = ("token_embedding.weight", "position_embedding.weight", "position_embedding_ori.weight")
EMBEDDINGS += ("position_embedding_res.weight",)


@dataclass(frozen=True)
class Design:
    """A family as it is compared.

    Args:
        title: As people write it.
        objective: Preset, as published.
        max_num_patches: Of an image; `None`: the family has squares of one size.
        model: Makes the training model, with random weights.
        processor: Makes its processor.
    """

    title: str
    objective: str
    max_num_patches: int | None
    model: Callable[[], Any]
    processor: Callable[[], Any]


def fgclip_model() -> FGClipForTraining:
    """FG-CLIP with the layers, widths, vocabulary and text lengths of the small FG-CLIP 2."""
    text, vision = (getattr(FGClip2Config.from_pretrained(CHECKPOINT), f"{name}_config") for name in ("text", "vision"))
    shared = ("hidden_size", "intermediate_size", "num_attention_heads")
    of_texts = ("num_hidden_layers", "vocab_size", "max_position_embeddings", "longtext_len", "keep_len")
    tokens = ("pad_token_id", "bos_token_id", "eos_token_id")
    config = FGClipConfig(
        text_config={name: getattr(text, name) for name in (*shared, *of_texts, *tokens)},
        vision_config={
            **{name: getattr(vision, name) for name in (*shared, "patch_size")},
            "num_hidden_layers": vision.num_hidden_layers + MORE_VISION_LAYERS,
            "image_size": SIDE,
        },
        projection_dim=vision.hidden_size,
    )
    return FGClipForTraining._from_config(config, attn_implementation="eager")


def fgclip_processor() -> FGClipProcessor:
    return FGClipProcessor(FGClipImageProcessor(SIDE), FGClipTokenizer.from_pretrained(CHECKPOINT))


def fgclip2_model() -> FGClip2ForTraining:
    """Return the small FG-CLIP 2, whose region scales begin where FG-CLIP's do.

    Those released, 100, are for towers that know what things are; FG-CLIP's are the start of CLIP.
    """
    config = FGClip2Config.from_pretrained(CHECKPOINT)
    model = FGClip2ForTraining._from_config(config, attn_implementation="eager")
    set_region_scales(model, FGClipConfig().logit_scale_init_value)
    return model


def fgclip2_processor() -> FGClip2Processor:
    return FGClip2Processor.from_pretrained(CHECKPOINT)


# In the order of the table, whose differences are of the second from the first.
DESIGNS = {
    "fgclip": Design("FG-CLIP", "fgclip", None, fgclip_model, fgclip_processor),
    "fgclip2": Design("FG-CLIP 2", "released", SCENE_PATCHES, fgclip2_model, fgclip2_processor),
}


def parameters_outside_embeddings(model: Any) -> int:
    """Return the number of parameters that are in no token or position table."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.endswith(EMBEDDINGS))
