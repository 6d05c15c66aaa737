"""Loading of checkpoints that may come from anywhere: safetensors only, compared with their configuration first."""

import math
import os
from pathlib import Path
from typing import Any, ClassVar

from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging

from .weights import (
    base_of_adapter,
    check_adapter,
    check_finite,
    differences,
    find_weights,
    hub_arguments_of,
    read_floats,
    read_headers,
    shapes_of,
)

BYTES_WORTH_A_PROGRESS_BAR = 256 * 2**20


class CheckedPreTrainedModel(PreTrainedModel):
    """Loading shared by the models of all families."""

    config_class: type[PretrainedConfig]

    # Weights that tell a family from another whose configuration looks alike: they are never made anew.
    _never_made: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, **kwargs: Any) -> Any:
        """Load from a folder or a hub id, in the official layout or ours; arguments as in `PreTrainedModel`.

        The headers of the weight files are compared with the configuration before memory is taken for either.

        Raises:
            OSError: There is no such checkpoint, or it has no safetensors; pickles are never read.
            ValueError: The weights are damaged, not finite, or not those of the configuration.
        """
        if kwargs.setdefault("use_safetensors", True) is not True:
            raise ValueError("`use_safetensors` must be True, got False: pickles may run code when loaded")
        # What the caller has in memory, or names a file of, is taken as it is, if it is finite.
        given = kwargs.keys() & {"state_dict", "gguf_file", "variant"}
        if pretrained_model_name_or_path is not None and not given:
            cls._check_weights(pretrained_model_name_or_path, kwargs)
        # Transformers 5 shows a progress bar for each load. That of a small folder is done before anybody reads it. The
        # switch is private; the public functions would also switch, and not restore, the bars of huggingface_hub.
        folder = Path(str(pretrained_model_name_or_path), kwargs.get("subfolder") or "")
        weights = list(folder.glob("*.safetensors"))
        shows_bars = logging.is_progress_bar_enabled()
        if weights and sum(file.stat().st_size for file in weights) < BYTES_WORTH_A_PROGRESS_BAR:
            logging._tqdm_active = False
        try:
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        finally:
            logging._tqdm_active = shows_bars
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info=True
        if given:
            check_finite(model.named_parameters(), pretrained_model_name_or_path)
        cls._advise(model, pretrained_model_name_or_path)
        return loaded

    @classmethod
    def _advise(cls, model: PreTrainedModel, source: object) -> None:
        """Warn of what a user of the loaded `model` has to know about the folder or hub id `source`."""

    @classmethod
    def _check_weights(cls, source: str | os.PathLike, kwargs: dict[str, Any]) -> None:
        """Compare the weight files with the configuration, and look at the values that will be loaded.

        Args:
            source, kwargs: Those of `from_pretrained`.
        """
        hub_arguments = hub_arguments_of(kwargs)
        base = base_of_adapter(source, **hub_arguments)
        source = source if base is None else base[0]
        config = kwargs.get("config")
        if not isinstance(config, PretrainedConfig):
            options = {**kwargs, "return_unused_kwargs": True}
            config, _ = cls.config_class.from_pretrained(options.pop("config", None) or source, **options)
        headers = read_headers(find_weights(source, **hub_arguments))
        found = {name.removeprefix(f"{cls.base_model_prefix}."): info.shape for name, (_, info) in headers.items()}
        if getattr(config, "quantization_config", None) or kwargs.get("quantization_config"):
            check_finite(read_floats(headers), source)
            return  # other shapes, which the library that quantised them checks
        missing = [name for name in cls._never_made if name not in found]
        if missing:
            raise ValueError(
                f"{source} is no checkpoint of {cls.__name__}, as it lacks {', '.join(missing)}: load it by the class "
                "that its config.json names"
            )
        expected = shapes_of(lambda: cls(config))
        wrong = differences({name: shape for name, shape in found.items() if name in expected}, expected)
        ignored = kwargs.get("ignore_mismatched_sizes")
        made = [
            name for name, shape in expected.items() if (found.get(name) != shape if ignored else name not in found)
        ]
        if sum(math.prod(expected[name]) for name in made) > sum(map(math.prod, found.values())):
            raise ValueError(
                f"{source} is no checkpoint of {cls.__name__}: it lacks {len(made)} weights, e.g. {made[0]}"
            )
        if len(wrong) > len(made):
            raise ValueError(f"{source} has {len(wrong)} tensors that don't fit its config: {'; '.join(wrong[:3])}")
        prefix = f"{cls.base_model_prefix}."
        loaded = {name: entry for name, entry in headers.items() if name.removeprefix(prefix) in expected}
        check_finite(read_floats(loaded), source)

    def load_adapter(self, peft_model_id: str | os.PathLike | None = None, *args: Any, **kwargs: Any) -> Any:
        """Load an adapter of PEFT as `PreTrainedModel` does, from safetensors only.

        Raises:
            ValueError: The adapter has no safetensors, or is damaged.
        """
        if peft_model_id is not None:
            of_base = getattr(kwargs.get("load_config"), "download_kwargs", {})
            options = {**of_base, **(kwargs.get("adapter_kwargs") or {}), **kwargs}
            check_adapter(peft_model_id, **hub_arguments_of(options))
            peft_model_id = os.fspath(peft_model_id)
        return super().load_adapter(peft_model_id, *args, **kwargs)

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        # transformers 5 searches this file's text for a call that 4.57 doesn't have.
        return True
