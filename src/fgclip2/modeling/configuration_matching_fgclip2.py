"""Configuration of FG-CLIP 2 with a ranking stage."""

from typing import Any

from transformers.configuration_utils import PretrainedConfig

from .configuration_fgclip2 import FGClip2Config, FGClip2TextConfig, FGClip2VisionConfig
from .configurations import check_sizes

_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


class FGClip2CrossConfig(PretrainedConfig):
    """Configuration of the cross encoder that compares the tokens of a text with the patches of an image.

    Args:
        hidden_size: Width of the layers; it need not be that of the towers.
        intermediate_size: Width of the MLPs.
        num_hidden_layers: Number of layers, at most 1,000.
        num_attention_heads: Number of attention heads; divides `hidden_size`.
        hidden_act: Activation of the MLPs.
        layer_norm_eps: Epsilon of the layer norms.
        attention_dropout: Dropout on attention weights while training.
    """

    model_type = "fgclip2_cross_encoder"
    base_config_key = "cross_config"

    def __init__(
        self,
        hidden_size: int = 768,
        intermediate_size: int = 3072,
        num_hidden_layers: int = 4,
        num_attention_heads: int = 12,
        hidden_act: str = "gelu_pytorch_tanh",
        layer_norm_eps: float = 1e-6,
        attention_dropout: float = 0.0,
        **kwargs: Any,
    ):
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.attention_dropout = attention_dropout
        check_sizes(self, _SIZES)
        super().__init__(**kwargs)


class FGClip2MatchingConfig(FGClip2Config):
    """Configuration of [`FGClip2ForImageTextMatching`]: that of the dual encoder, and the cross encoder's.

    The model type is that of the dual encoder, which its folders are too; `architectures` names the class.

    Args:
        text_config, vision_config, initializer_factor: As in [`FGClip2Config`].
        cross_config: [`FGClip2CrossConfig`], a dict of its fields, or `None` for four layers as the text tower's.

    Example:
        >>> from fgclip2 import FGClip2MatchingConfig
        >>> FGClip2MatchingConfig(cross_config={"num_hidden_layers": 2}).cross_config.num_hidden_layers
        2
    """

    sub_configs = {
        "text_config": FGClip2TextConfig,
        "vision_config": FGClip2VisionConfig,
        "cross_config": FGClip2CrossConfig,
    }

    def __init__(
        self,
        text_config: FGClip2TextConfig | dict[str, Any] | None = None,
        vision_config: FGClip2VisionConfig | dict[str, Any] | None = None,
        cross_config: FGClip2CrossConfig | dict[str, Any] | None = None,
        initializer_factor: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(text_config, vision_config, initializer_factor, **kwargs)
        if cross_config is None:
            sizes = ("hidden_size", "intermediate_size", "num_attention_heads")
            cross_config = {name: getattr(self.text_config, name) for name in sizes}
        self.cross_config = self._make_tower("cross_config", FGClip2CrossConfig, cross_config)


__all__ = ["FGClip2CrossConfig", "FGClip2MatchingConfig"]
