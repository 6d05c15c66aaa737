"""Adapters of PEFT: loaded whole, from safetensors, or refused; this file is not exported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .._imports import require
from .modeling_fgclip2 import SCALES
from .weights import ADAPTER_CONFIG, check_adapter, find_file, hub_arguments_of

require("peft", "train")  # for its message
from peft import PeftConfig, PeftModel, PeftType  # noqa: E402

PREFIX = "base_model.model."  # of a PeftModel's state


class StrictLoraModel(PeftModel):
    """A PEFT model with the scales and the bias of the logits, of one adapter that fits it wholly.

    Folders without safetensors, and adapters that do not fit the model wholly, are refused, where PEFT warns or says
    nothing.
    """

    def __init__(self, model: nn.Module, peft_config: PeftConfig, adapter_name: str = "default", **kwargs: Any) -> None:
        super().__init__(model, peft_config, adapter_name, **kwargs)
        for parameter in scales_of(self).values():
            parameter.requires_grad_(not peft_config.inference_mode)

    def load_adapter(self, model_id: str | os.PathLike, adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        """Load weights into the adapter. Arguments as in `PeftModel`.

        Raises:
            ValueError: The adapter's name is a new one, the folder has no safetensors, or its tensors are not those of
                this model.
        """
        self._refuse_second_adapter(adapter_name)
        folder = adapter_folder(model_id, revision=kwargs.get("revision"))
        try:
            result = super().load_adapter(str(folder), adapter_name, *args, **kwargs)
        except (KeyError, RuntimeError) as error:  # a head is missing, or of another shape
            if isinstance(error, RuntimeError) and "size mismatch" not in str(error):
                raise
            first = str(error).splitlines()[-1].strip()
            raise ValueError(f"{model_id} does not fit the model: {first}") from error
        unexpected = [key for key in result.unexpected_keys if key.removeprefix(PREFIX) not in SCALES]
        if unexpected or result.missing_keys:
            raise ValueError(
                f"{model_id} does not fit the model: {len(unexpected)} tensors have no place in it "
                f"({', '.join(unexpected[:3])}), {len(result.missing_keys)} are missing "
                f"({', '.join(result.missing_keys[:3])}); load it on the model that it was trained on"
            )
        return result

    def add_adapter(self, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Refuse a second adapter: a model has one."""
        self._refuse_second_adapter(adapter_name)
        super().add_adapter(adapter_name, *args, **kwargs)

    def _refuse_second_adapter(self, adapter_name: str) -> None:
        if adapter_name not in self.peft_config:
            raise ValueError(
                f"adapter {adapter_name!r} would share the scales of the logits with {list(self.peft_config)}; "
                "allowed: one adapter. Load it with a model of its own"
            )


def adapter_folder(name_or_path: str | os.PathLike, **hub_arguments: Any) -> Path:
    """Find the folder of an adapter, downloading one from the hub: its configuration and safetensors, nothing else.

    Args:
        name_or_path: Folder or hub id.
        hub_arguments: `revision`, `token`, `cache_dir`, `local_files_only`, `subfolder`.

    Raises:
        ValueError: One of the two files is not there or is damaged, or the ranks are not those of the tensors.
        OSError: There is no such adapter.
    """
    hub_arguments = hub_arguments_of(hub_arguments)
    check_adapter(name_or_path, **hub_arguments)
    config = find_file(name_or_path, ADAPTER_CONFIG, **hub_arguments)
    assert config is not None  # checked above
    return config.parent


def lora_config_of(path: Path, name: str | os.PathLike) -> PeftConfig:
    """Read the configuration of an adapter in `path`, which messages call `name`."""
    config = PeftConfig.from_pretrained(str(path))
    if config.peft_type != PeftType.LORA:
        raise ValueError(f"{name} has an adapter of type {config.peft_type}; allowed: LORA")
    config.task_type = None  # by which PEFT would choose a class of its own
    return config


def merge_adapter(model: nn.Module, name: str | os.PathLike, **hub_arguments: Any) -> Any:
    """Add an adapter's matrices to the weights of its base model, in place, and return the plain model.

    Args:
        model: The base model, in float32: in a narrower type outputs differ by its rounding.
        name: Folder or hub id of the adapter.
        hub_arguments: As in [`adapter_folder`].

    Raises:
        ValueError: It is no LoRA adapter, is damaged, does not fit the model, or gives weights that are not finite.
    """
    path = adapter_folder(name, **hub_arguments)
    adapted = StrictLoraModel.from_pretrained(model, str(path), config=lora_config_of(path, name))
    return adapted.merge_and_unload(safe_merge=True)


def scales_of(model: PeftModel) -> dict[str, Tensor]:
    """Return those of [`SCALES`] that the base model has."""
    base = model.get_base_model()
    return {name: getattr(base, name) for name in SCALES if hasattr(base, name)}
