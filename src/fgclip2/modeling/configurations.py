"""Parts that the configurations of all families share: kinds of texts, checked sizes, no names of code elsewhere."""

from typing import Any

from transformers.configuration_utils import PretrainedConfig

# What a text is to the model -> the walk (position table and head) that it is encoded by.
WALK_OF_ROLE = {"caption": "short", "long_caption": "long", "region_phrase": "box"}
WALK_TYPES = ("short", "long", "box")

_REMOTE_CODE_FIELDS = ("auto_map", "custom_pipelines")

# Far more than any model has; to make the layers of a damaged or hostile configuration could take hours.
MAX_LAYERS = 1000


def check_sizes(config: PretrainedConfig, names: tuple[str, ...]) -> None:
    """Raise a `ValueError` unless the named sizes that a configuration has are positive integers."""
    for name in names:
        value = getattr(config, name, 1)
        if type(value) is not int or value < 1:
            raise ValueError(f"`{name}` must be a positive integer, got {value!r:.80}")
    layers = getattr(config, "num_hidden_layers", 1)
    if layers > MAX_LAYERS:
        raise ValueError(f"`num_hidden_layers` must be at most {MAX_LAYERS}, got {layers}")


class TwoTowerConfig(PretrainedConfig):
    """Configuration of a model with a text and a vision tower."""

    @staticmethod
    def _make_tower(name: str, config_class: type[Any], tower: Any) -> Any:
        """Return the configuration of a tower that was given as one, as a dict of its fields, or left out."""
        if tower is None or isinstance(tower, dict):
            return config_class(**(tower or {}))
        if not isinstance(tower, PretrainedConfig):
            raise ValueError(f"`{name}` must be a configuration or a dict of its fields, got {tower!r:.80}")
        return tower

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        # Code that lies beside a checkpoint is named for those who load it as remote code (then the class carries an
        # auto class). Kept by anybody else, the names would go into folders that don't have these files.
        if cls._auto_class is None:
            config_dict = {name: value for name, value in config_dict.items() if name not in _REMOTE_CODE_FIELDS}
        return super().from_dict(config_dict, **kwargs)
