"""Configuration of FG-CLIP, the first version."""

from typing import Any

from transformers.configuration_utils import PretrainedConfig

from .configurations import WALK_OF_ROLE, WALK_TYPES, TwoTowerConfig, check_sizes

# Sizes of the published checkpoints: those of OpenAI's ViT-B/16 at 224 and ViT-L/14 at 336 pixels.
PRESETS: dict[str, dict[str, Any]] = {
    "base": {
        "projection_dim": 512,
        "text_config": {
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
        },
        "vision_config": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 224,
            "patch_size": 16,
        },
    },
    "large": {
        "projection_dim": 768,
        "text_config": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        },
        "vision_config": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
        },
    },
}

OFFICIAL_MODEL_TYPE = "clip"  # what the official folders say, like those of stock CLIP
CLIP_VOCABULARY = 49408  # its last two tokens are the beginning and the end of a text

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "longtext_len",
    "keep_len",
    "num_channels",
    "image_size",
    "patch_size",
)


def from_official(config_dict: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of an official folder as this package has them, and all others as they are.

    Official folders call themselves CLIP. Many have the token ids of OpenAI's first configurations (`eos_token_id` 2),
    which the official code overwrites with the last ids of the vocabulary.
    """
    if config_dict.get("model_type") != OFFICIAL_MODEL_TYPE:
        return config_dict
    settings = {**config_dict, "model_type": FGClipConfig.model_type}
    for name, config_class in FGClipConfig.sub_configs.items():
        # transformers once wrote each tower twice.
        tower = {**(settings.get(name) or {}), **(settings.pop(f"{name}_dict", None) or {})}
        settings[name] = {**tower, "model_type": config_class.model_type}
    text = settings["text_config"]
    size = text.get("vocab_size", CLIP_VOCABULARY)
    if size == CLIP_VOCABULARY or text.get("eos_token_id") in (None, 2):
        text.update(bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1)
    return settings


class _OfficialFolders(PretrainedConfig):
    """Reads the configurations of official folders too."""

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        settings, unused = super().get_config_dict(*args, **kwargs)
        return from_official(settings), unused


class FGClipTextConfig(_OfficialFolders):
    """Configuration of the text tower. The defaults are those of the base checkpoint.

    Args:
        vocab_size: Number of token embeddings (CLIP's vocabulary in the official checkpoints).
        hidden_size: Width of the tower.
        intermediate_size: Width of the MLPs.
        num_hidden_layers: Number of encoder layers, at most 1,000.
        num_attention_heads: Number of attention heads; divides `hidden_size`.
        max_position_embeddings: Positions of the walks `short` and `box`, the most tokens that their texts have.
        longtext_len: Positions of the walk `long`.
        keep_len: Leading rows of the long position table that come from `position_embedding_ori`.
        hidden_act: Activation of the MLPs.
        layer_norm_eps: Epsilon of the layer norms.
        attention_dropout: Dropout on attention weights while training.
        pad_token_id, bos_token_id: Special tokens; the model itself reads neither.
        eos_token_id: Token at whose first position a text's features are read.
    """

    model_type = "fgclip_text_model"
    base_config_key = "text_config"

    def __init__(
        self,
        vocab_size: int = CLIP_VOCABULARY,
        hidden_size: int = 512,
        intermediate_size: int = 2048,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 8,
        max_position_embeddings: int = 77,
        longtext_len: int = 248,
        keep_len: int = 20,
        hidden_act: str = "quick_gelu",
        layer_norm_eps: float = 1e-5,
        attention_dropout: float = 0.0,
        pad_token_id: int | None = 49407,
        bos_token_id: int | None = 49406,
        eos_token_id: int | None = 49407,
        **kwargs: Any,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.longtext_len = longtext_len
        self.keep_len = keep_len
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.attention_dropout = attention_dropout
        check_sizes(self, _SIZES)
        # transformers 4 sets these in its base class, transformers 5 leaves them to us.
        super().__init__(pad_token_id=pad_token_id, bos_token_id=bos_token_id, eos_token_id=eos_token_id, **kwargs)
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id


class FGClipVisionConfig(_OfficialFolders):
    """Configuration of the vision tower. The defaults are those of the base checkpoint.

    Args:
        hidden_size: Width of the tower.
        intermediate_size: Width of the MLPs.
        num_hidden_layers: Number of encoder layers, at most 1,000.
        num_attention_heads: Number of attention heads; divides `hidden_size`.
        num_channels: Channels of the images.
        image_size: Side of the square images in pixels.
        patch_size: Side of a patch in pixels.
        hidden_act: Activation of the MLPs.
        layer_norm_eps: Epsilon of the layer norms.
        attention_dropout: Dropout on attention weights while training.
    """

    model_type = "fgclip_vision_model"
    base_config_key = "vision_config"

    def __init__(
        self,
        hidden_size: int = 768,
        intermediate_size: int = 3072,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        num_channels: int = 3,
        image_size: int = 224,
        patch_size: int = 16,
        hidden_act: str = "quick_gelu",
        layer_norm_eps: float = 1e-5,
        attention_dropout: float = 0.0,
        **kwargs: Any,
    ):
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_channels = num_channels
        self.image_size = image_size
        self.patch_size = patch_size
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.attention_dropout = attention_dropout
        check_sizes(self, _SIZES)
        super().__init__(**kwargs)


class FGClipConfig(_OfficialFolders, TwoTowerConfig):
    """Configuration of [`FGClipModel`]: one text and one vision configuration.

    Official folders, which call themselves CLIP, are read as they are.

    Args:
        text_config: [`FGClipTextConfig`], a dict of its fields, or `None` for its defaults.
        vision_config: [`FGClipVisionConfig`], a dict of its fields, or `None` for its defaults.
        projection_dim: Width of the embedding space.
        logit_scale_init_value: Logarithm of the scale of the cosines at the start, for all three scales.
        initializer_factor: Scale of the initial weights.

    Example:
        >>> from fgclip2 import FGClipConfig
        >>> FGClipConfig.from_preset("large").vision_config.image_size
        336
    """

    model_type = "fgclip"
    sub_configs = {"text_config": FGClipTextConfig, "vision_config": FGClipVisionConfig}

    def __init__(
        self,
        text_config: FGClipTextConfig | dict[str, Any] | None = None,
        vision_config: FGClipVisionConfig | dict[str, Any] | None = None,
        projection_dim: int = 512,
        logit_scale_init_value: float = 2.6592,
        initializer_factor: float = 1.0,
        **kwargs: Any,
    ):
        self.text_config = self._make_tower("text_config", FGClipTextConfig, text_config)
        self.vision_config = self._make_tower("vision_config", FGClipVisionConfig, vision_config)
        self.projection_dim = projection_dim
        self.logit_scale_init_value = logit_scale_init_value
        self.initializer_factor = initializer_factor
        check_sizes(self, _SIZES)
        super().__init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "FGClipConfig":
        return super().from_dict(from_official(config_dict), **kwargs)

    @classmethod
    def from_preset(cls, name: str) -> "FGClipConfig":
        """Return the configuration of a published size.

        Args:
            name: `"base"` (150,136,835 parameters) or `"large"` (428,914,947).

        Raises:
            ValueError: `name` is no preset.
        """
        if name not in PRESETS:
            raise ValueError(f"`name` must be one of {', '.join(map(repr, PRESETS))}, got {name!r}")
        return cls(**PRESETS[name])


__all__ = ["PRESETS", "WALK_OF_ROLE", "WALK_TYPES", "FGClipConfig", "FGClipTextConfig", "FGClipVisionConfig"]
