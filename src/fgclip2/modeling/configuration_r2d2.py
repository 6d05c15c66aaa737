"""Configuration of R2D2: CLIP's image tower, a BERT, and two cross encoders that compare what comes out of them."""

from typing import Any

from transformers.configuration_utils import PretrainedConfig

from .configurations import MAX_LAYERS, TwoTowerConfig, check_sizes

_VISION_LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}

# Sizes of the published checkpoints: R2D2 with ViT-B/16 and with ViT-L/14, and PRD2, which has no cross encoders.
PRESETS: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {"vision_config": _VISION_LARGE},
    "prd2": {"vision_config": _VISION_LARGE, "cross_config": {"num_hidden_layers": 0}},
}

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "max_position_embeddings",
    "type_vocab_size",
    "num_channels",
    "image_size",
    "patch_size",
    "embed_dim",
    "max_length",
)


class R2D2VisionConfig(PretrainedConfig):
    """Configuration of the vision tower. The defaults are those of ViT-B/16.

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

    model_type = "r2d2_vision_model"
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
        check_sizes(self, (*_SIZES, "num_hidden_layers"))
        super().__init__(**kwargs)


class R2D2TextConfig(PretrainedConfig):
    """Configuration of the text tower. The defaults are those of the published checkpoints.

    Args:
        vocab_size: Number of token embeddings.
        hidden_size: Width of the tower.
        intermediate_size: Width of the MLPs.
        num_hidden_layers: Number of encoder layers, at most 1,000.
        num_attention_heads: Number of attention heads; divides `hidden_size`.
        max_position_embeddings: Rows of the position table.
        type_vocab_size: Rows of the table of token types, of which the first is used.
        hidden_act: Activation of the MLPs.
        layer_norm_eps: Epsilon of the layer norms.
        hidden_dropout_prob: Dropout behind the embeddings and the layers' projections while training.
        attention_probs_dropout_prob: Dropout on attention weights while training.
        pad_token_id: Token whose embedding gets no gradient. What is padding, the attention mask says.
    """

    model_type = "r2d2_text_model"
    base_config_key = "text_config"

    def __init__(
        self,
        vocab_size: int = 21128,
        hidden_size: int = 768,
        intermediate_size: int = 3072,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-12,
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        pad_token_id: int | None = 0,
        **kwargs: Any,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        check_sizes(self, (*_SIZES, "num_hidden_layers"))
        # transformers 4 sets it in its base class, transformers 5 leaves it to us.
        super().__init__(pad_token_id=pad_token_id, **kwargs)
        self.pad_token_id = pad_token_id


class R2D2CrossConfig(PretrainedConfig):
    """Configuration of both cross encoders. The defaults are those of the published checkpoints.

    Args:
        hidden_size: Width, which is that of the text tower.
        intermediate_size: Width of the MLPs.
        num_hidden_layers: Number of layers, at most 1,000; 0: a model without cross encoders, as PRD2 is.
        num_attention_heads: Number of attention heads; divides `hidden_size`.
        hidden_act: Activation of the MLPs.
        layer_norm_eps: Epsilon of the layer norms.
        hidden_dropout_prob: Dropout behind the layers' projections while training.
        attention_probs_dropout_prob: Dropout on attention weights while training.
    """

    model_type = "r2d2_cross_model"
    base_config_key = "cross_config"

    def __init__(
        self,
        hidden_size: int = 768,
        intermediate_size: int = 3072,
        num_hidden_layers: int = 6,
        num_attention_heads: int = 12,
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-12,
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        **kwargs: Any,
    ):
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        # First, for `check_sizes` compares it, and of other configurations it must be positive.
        if type(num_hidden_layers) is not int or not 0 <= num_hidden_layers <= MAX_LAYERS:
            raise ValueError(
                f"`num_hidden_layers` of the cross encoders must be an integer from 0 to {MAX_LAYERS}, got "
                f"{num_hidden_layers!r:.80}"
            )
        check_sizes(self, _SIZES)
        super().__init__(**kwargs)


class R2D2Config(TwoTowerConfig):
    """Configuration of [`R2D2Model`]: one of the vision tower, one of the text tower, one of the cross encoders.

    Args:
        vision_config: [`R2D2VisionConfig`], a dict of its fields, or `None` for its defaults.
        text_config: [`R2D2TextConfig`], a dict of its fields, or `None` for its defaults.
        cross_config: [`R2D2CrossConfig`], a dict of its fields, or `None` for its defaults.
        embed_dim: Width of the embedding space.
        max_length: Tokens that a text has at most, special tokens included.
        temp_init: Temperature of the cosines at the start.
        initializer_range: Standard deviation of the initial weights.

    Raises:
        ValueError: A size is not allowed, or the cross encoders are not as wide as the text tower.

    Example:
        >>> from fgclip2 import R2D2Config
        >>> R2D2Config.from_preset("large").vision_config.patch_size
        14
    """

    model_type = "r2d2"
    sub_configs = {
        "vision_config": R2D2VisionConfig,
        "text_config": R2D2TextConfig,
        "cross_config": R2D2CrossConfig,
    }

    def __init__(
        self,
        vision_config: R2D2VisionConfig | dict[str, Any] | None = None,
        text_config: R2D2TextConfig | dict[str, Any] | None = None,
        cross_config: R2D2CrossConfig | dict[str, Any] | None = None,
        embed_dim: int = 768,
        max_length: int = 64,
        temp_init: float = 0.07,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ):
        self.vision_config = self._make_tower("vision_config", R2D2VisionConfig, vision_config)
        self.text_config = self._make_tower("text_config", R2D2TextConfig, text_config)
        self.cross_config = self._make_tower("cross_config", R2D2CrossConfig, cross_config)
        self.embed_dim = embed_dim
        self.temp_init = temp_init
        self.initializer_range = initializer_range
        super().__init__(**kwargs)
        self.max_length = max_length  # last: the base class of transformers 4 has a default for it
        check_sizes(self, _SIZES)
        if max_length > self.text_config.max_position_embeddings:
            raise ValueError(
                f"`max_length` must be at most {self.text_config.max_position_embeddings}, the "
                f"`max_position_embeddings` of the text tower, got {max_length}"
            )
        if self.has_cross_encoders and self.cross_config.hidden_size != self.text_config.hidden_size:
            raise ValueError(
                f"`cross_config.hidden_size` must be {self.text_config.hidden_size}, the width of the text tower whose "
                f"tokens the cross encoders take, got {self.cross_config.hidden_size}"
            )

    @property
    def has_cross_encoders(self) -> bool:
        """Tell if the model compares pairs by cross encoders; PRD2 does not."""
        return self.cross_config.num_hidden_layers > 0

    def _get_generation_parameters(self) -> dict[str, Any]:
        # Transformers refuses to save `max_length`, which it takes for one of text generation.
        return {}

    @classmethod
    def from_preset(cls, name: str) -> "R2D2Config":
        """Return the configuration of a published size.

        Args:
            name: `"base"` (ViT-B/16, 336,505,349 parameters), `"large"` (ViT-L/14, 556,638,213), or `"prd2"` (ViT-L/14
                without cross encoders, 406,825,217).

        Raises:
            ValueError: `name` is no preset.
        """
        if name not in PRESETS:
            raise ValueError(f"`name` must be one of {', '.join(map(repr, PRESETS))}, got {name!r}")
        return cls(**PRESETS[name])


__all__ = ["PRESETS", "R2D2Config", "R2D2CrossConfig", "R2D2TextConfig", "R2D2VisionConfig"]
