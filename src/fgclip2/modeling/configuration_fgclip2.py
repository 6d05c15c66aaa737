"""Configuration of FG-CLIP 2."""

from typing import Any

from transformers.configuration_utils import PretrainedConfig

from .configurations import WALK_OF_ROLE, WALK_TYPES, TwoTowerConfig, check_sizes

# Sizes of the published checkpoints (width, MLP width, layers, heads), equal in both towers.
PRESETS: dict[str, dict[str, int]] = {
    "base": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "large": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    "so400m": {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16},
}

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "longtext_len",
    "projection_size",
    "num_channels",
    "num_patches",
    "patch_size",
)


class FGClip2TextConfig(PretrainedConfig):
    """Configuration of the text tower. The defaults are those of the base checkpoint.

    Args:
        vocab_size: Number of token embeddings (256,000 in the official checkpoints, Gemma's vocabulary).
        hidden_size: Width of the tower.
        intermediate_size: Width of the MLPs.
        num_hidden_layers: Number of encoder layers, at most 1,000.
        num_attention_heads: Number of attention heads; divides `hidden_size`.
        max_position_embeddings: Positions of the walks `short` and `box`.
        longtext_len: Positions of the walk `long`; its texts are padded to exactly this length.
        keep_len: Leading rows of the long position table that come from `position_embedding_ori`.
        projection_size: Width of the embedding space, equal to the vision width; `None`: `hidden_size`.
        hidden_act: Activation of the MLPs.
        layer_norm_eps: Epsilon of the layer norms.
        attention_dropout: Dropout on attention weights while training.
        pad_token_id, bos_token_id, eos_token_id: Special tokens; the model itself reads none of them.
    """

    model_type = "fgclip2_text_model"
    base_config_key = "text_config"

    def __init__(
        self,
        vocab_size: int = 256000,
        hidden_size: int = 768,
        intermediate_size: int = 3072,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        max_position_embeddings: int = 64,
        longtext_len: int = 196,
        keep_len: int = 20,
        projection_size: int | None = None,
        hidden_act: str = "gelu_pytorch_tanh",
        layer_norm_eps: float = 1e-6,
        attention_dropout: float = 0.0,
        pad_token_id: int | None = 0,
        bos_token_id: int | None = 2,
        eos_token_id: int | None = 1,
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
        self.projection_size = hidden_size if projection_size is None else projection_size
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.attention_dropout = attention_dropout
        check_sizes(self, _SIZES)
        # transformers 4 sets these in its base class, transformers 5 leaves them to us.
        super().__init__(pad_token_id=pad_token_id, bos_token_id=bos_token_id, eos_token_id=eos_token_id, **kwargs)
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id


class FGClip2VisionConfig(PretrainedConfig):
    """Configuration of the vision tower. The defaults are those of the base checkpoint.

    Args:
        hidden_size: Width of the tower and of the embedding space.
        intermediate_size: Width of the MLPs.
        num_hidden_layers: Number of encoder layers, at most 1,000.
        num_attention_heads: Number of attention heads; divides `hidden_size`.
        num_channels: Channels of the images.
        num_patches: Entries of the position table, a square number; the table is resized to each image's grid.
        patch_size: Side of a patch in pixels.
        hidden_act: Activation of the MLPs.
        layer_norm_eps: Epsilon of the layer norms.
        attention_dropout: Dropout on attention weights while training.
    """

    model_type = "fgclip2_vision_model"
    base_config_key = "vision_config"

    def __init__(
        self,
        hidden_size: int = 768,
        intermediate_size: int = 3072,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        num_channels: int = 3,
        num_patches: int = 256,
        patch_size: int = 16,
        hidden_act: str = "gelu_pytorch_tanh",
        layer_norm_eps: float = 1e-6,
        attention_dropout: float = 0.0,
        **kwargs: Any,
    ):
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_channels = num_channels
        self.num_patches = num_patches
        self.patch_size = patch_size
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.attention_dropout = attention_dropout
        check_sizes(self, _SIZES)
        super().__init__(**kwargs)


class FGClip2Config(TwoTowerConfig):
    """Configuration of [`FGClip2Model`]: one text and one vision configuration.

    Args:
        text_config: [`FGClip2TextConfig`], a dict of its fields, or `None` for its defaults.
        vision_config: [`FGClip2VisionConfig`], a dict of its fields, or `None` for its defaults.
        initializer_factor: Scale of the initial weights.

    Example:
        >>> from fgclip2 import FGClip2Config
        >>> FGClip2Config.from_preset("large").vision_config.hidden_size
        1024
    """

    model_type = "fgclip2"
    sub_configs = {"text_config": FGClip2TextConfig, "vision_config": FGClip2VisionConfig}

    def __init__(
        self,
        text_config: FGClip2TextConfig | dict[str, Any] | None = None,
        vision_config: FGClip2VisionConfig | dict[str, Any] | None = None,
        initializer_factor: float = 1.0,
        **kwargs: Any,
    ):
        self.text_config = self._make_tower("text_config", FGClip2TextConfig, text_config)
        self.vision_config = self._make_tower("vision_config", FGClip2VisionConfig, vision_config)
        self.initializer_factor = initializer_factor
        super().__init__(**kwargs)

    @classmethod
    def from_preset(cls, name: str) -> "FGClip2Config":
        """Return the configuration of a published size.

        Args:
            name: `"base"` (383,803,394 parameters), `"large"` (896,622,594) or `"so400m"` (1,154,017,410).

        Raises:
            ValueError: `name` is no preset.
        """
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; allowed: {', '.join(PRESETS)}")
        return cls(text_config=dict(PRESETS[name]), vision_config=dict(PRESETS[name]))


__all__ = ["PRESETS", "WALK_OF_ROLE", "WALK_TYPES", "FGClip2Config", "FGClip2TextConfig", "FGClip2VisionConfig"]
