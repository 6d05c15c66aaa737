"""Models that benchmarks run on: those of this package, other models of transformers, and any pair of functions."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..checkpoints import locate_checkpoint
from ..embedding import (
    Embedder,
    FGClip2Embedder,
    PairEmbedder,
    checkpoint_fingerprint,
    default_device,
    model_fingerprint,
    resolve_devices,
    resolve_dtype,
)
from ..embedding.pairs import ONE_HEAD
from ..modeling.auto import find_family
from ..modeling.configurations import WALK_OF_ROLE
from ..modeling.image_processing_fgclip2 import patch_budget
from ..modeling.interface import DualEncoderProcessor, Role
from ..modeling.tokenization_fgclip2 import FGClip2Tokenizer
from ..streams import chunks

UNTRAINED = "untrained"  # a control: the embedded checkpoint's sizes and vocabulary, random weights
TEXT_LENGTHS = {"chinese_clip": 52}  # as its authors evaluate it; its text tower would take 512
_TEXTS_AT_ONCE = 8192


class BenchmarkModel(Protocol):
    """A model as the benchmarks need it: an [`Embedder`], or two functions as a [`PairEmbedder`].

    Properties:
        name: What results call it.
        revision: Branch, tag or commit of the hub.
        fingerprint: Tells its weights, sizes, preprocessing and vocabulary from others; `None`: its embeddings are not
            kept on disk.

    For box classification by region features it also has `encode_regions`, for segmentation `stream_heatmaps`, both as
    [`Embedder`]'s, which takes `role` in place of `walk_type`.
    """

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str | None: ...

    @property
    def fingerprint(self) -> str | None: ...

    def encode_images(
        self,
        images: Any,
        max_num_patches: int | str | None = None,
        *,
        on_error: str,
        show_progress_bar: bool | None = None,
    ) -> Any:
        """Embed images: float32 (N, D), L2-normalised, and with `on_error="skip"` a list of [`Skipped`]."""

    def encode_texts(self, *args: Any, **options: Any) -> np.ndarray:
        """Embed texts: float32 (N, D), L2-normalised.

        The arguments are the texts, `walk_type` ("short", "long" or "box", what the texts are to the model; "auto" if
        left out) and by name `show_progress_bar`.
        """


def load_model(
    name: str | os.PathLike | None = None,
    device: Any = None,
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
) -> BenchmarkModel:
    """Load a model of FG-CLIP 2 or v1, SigLIP 2, SigLIP, CLIP, Chinese-CLIP, MetaCLIP 2 or what else has their methods.

    Args:
        name: Folder or hub id; `None`: the checkpoint inside the package; `"untrained"`: the same with random weights.
        device, dtype, revision: As in [`Embedder.from_pretrained`].

    Raises:
        OSError: There is no such checkpoint, or its weights are not safetensors.
        ValueError: It has no image and text features.
    """
    if name is None:
        return FGClip2Embedder.from_pretrained(None, device, dtype)
    if name == UNTRAINED:
        return untrained(FGClip2Embedder.from_pretrained(None, device, dtype))
    source, hub_arguments = locate_checkpoint(name, revision=revision)
    family = find_family(source, **hub_arguments)
    if family is None:
        return load_pair(name, device, dtype, revision)
    # For callers who pass `walk_type` to what this returns; the benchmarks themselves speak in roles to any family.
    kind = FGClip2Embedder if family is FGClip2Embedder.family else Embedder
    return kind.from_pretrained(name, device, dtype, revision)


def encode_texts(model: BenchmarkModel, texts: Sequence[str], role: Role) -> np.ndarray:
    """Embed texts of a role: float32 (N, D), L2-normalised.

    Models that aren't this package's know roles by the names that FG-CLIP 2's authors gave their text heads.
    """
    if isinstance(model, Embedder):
        return model.encode_texts(texts, role=role, show_progress_bar=False)
    return model.encode_texts(texts, WALK_OF_ROLE[role], show_progress_bar=False)


def caption_role(model: BenchmarkModel, role: Role) -> Role:
    """Return the role that captions have for a model: long ones are captions like others where one head takes both."""
    processor = getattr(model, "processor", None)
    has_one_head = isinstance(processor, DualEncoderProcessor) and "long_caption" not in processor.text_roles
    return "caption" if role == "long_caption" and has_one_head else role


def ignored_settings(model: BenchmarkModel) -> list[str]:
    """Return the settings of benchmarks that mean nothing to a model."""
    if not isinstance(model, Embedder):
        return list(getattr(model, "ignored_settings", ()))
    has_meaning = {
        "max_num_patches": model.processor.patch_budgets is not None,
        "walk_type": "long_caption" in model.processor.text_roles,
        "lower_case": isinstance(model.processor.tokenizer, FGClip2Tokenizer),  # others' texts are as they are read
    }
    return [setting for setting, means_something in has_meaning.items() if not means_something]


def run_on(model: BenchmarkModel) -> dict[str, str | None]:
    """Return the type of device and the dtype that a model runs on and in; `None` for functions that don't say."""
    module = getattr(model, "model", None)
    if module is None:
        return {"device": None, "dtype": None}
    weight = next(module.parameters())
    return {"device": weight.device.type, "dtype": str(weight.dtype).removeprefix("torch.")}


def text_use(model: BenchmarkModel, texts: Sequence[str], role: Role) -> dict[str, int] | None:
    """Count the texts, the tokens that count of each, and the texts of which the rest is cut off; `None` if unknown."""
    processor = getattr(model, "processor", None)
    if isinstance(processor, DualEncoderProcessor):
        length, count_tokens = processor.text_length(caption_role(model, role)), processor.count_tokens
    elif isinstance(model, PairEmbedder) and model.tokenizer is not None and model.text_length is not None:
        length = model.text_length

        def count_tokens(texts: Sequence[str]) -> list[int]:
            options = {"padding": False, "truncation": False, "return_attention_mask": False, "verbose": False}
            return [len(ids) for ids in model.tokenizer(texts, **options)["input_ids"]]
    else:
        return None
    cut = sum(tokens > length for some in chunks(texts, _TEXTS_AT_ONCE) for tokens in count_tokens(some))
    return {"count": len(texts), "tokens": length, "cut": cut}


def configuration_digest(model: BenchmarkModel) -> str | None:
    """Return what tells a model's weights, sizes, preprocessing and vocabulary from others, as they are now, if known.

    The fingerprint of an embedder is of when it was made; its processor may have been changed since.
    """
    if isinstance(model, Embedder):
        return checkpoint_fingerprint(model.weights_fingerprint, model.model.config, model.processor)
    return getattr(model, "configuration", None) or model.fingerprint


def untrained(embedder: Embedder, seed: int = 0) -> Embedder:
    """Return the control that has learned nothing: the same sizes, vocabulary and preprocessing, random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = type(embedder.model)(copy.deepcopy(embedder.model.config))
    return type(embedder)(model, embedder.processor, embedder.device, embedder.dtype, UNTRAINED)


def load_pair(
    name: str | os.PathLike, device: Any = None, dtype: str | torch.dtype = "auto", revision: str | None = None
) -> PairEmbedder:
    """Load a model of transformers that has `get_image_features` and `get_text_features`.

    An image has the size that the model was trained with; NaFlex models take a patch budget, `"auto"` as FG-CLIP 2.

    Raises:
        OSError: There is no such checkpoint, or its weights are not safetensors.
        ValueError: It has no image and text features, or is of a family that this package has.
    """
    run_device = resolve_devices(device, default_device())[0]
    source, hub_arguments = locate_checkpoint(name, revision=revision)
    family = find_family(source, **hub_arguments)
    if family is not None:  # transformers may take it for another: FG-CLIP would run as plain CLIP, on images cut
        raise ValueError(f"{name} is a {family.title} checkpoint, not one of transformers' own classes: use load_model")
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # no service of the hub is asked to convert a pickle
    options = {"dtype": resolve_dtype(dtype, run_device), "use_safetensors": True, **hub_arguments}
    try:
        model = AutoModel.from_pretrained(source, **options)
    except OSError as error:
        if "safetensors" not in str(error):
            raise
        raise OSError(
            f"{name} has no weights in safetensors, and others (pytorch_model.bin) are pickles, which may run code and "
            "are never read: name a revision that has them, or save the model anew with `save_pretrained` on a machine "
            "where you trust it"
        ) from error
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise ValueError(f"{name} is a {type(model).__name__}, which has no image and text features")
    return pair_of(model.eval().to(run_device), AutoProcessor.from_pretrained(source, **hub_arguments), str(name))


def pair_of(model: Any, processor: Any, name: str) -> PairEmbedder:
    """Make a [`PairEmbedder`] of a model and a processor of transformers."""
    is_siglip = model.config.model_type.startswith("siglip")
    takes_budget = "spatial_shapes" in processor.image_processor.model_input_names  # NaFlex
    text_length = TEXT_LENGTHS.get(model.config.model_type, model.config.text_config.max_position_embeddings)

    @torch.inference_mode()
    def features(method: Callable[..., Any], inputs: Any) -> Any:
        inputs = inputs.to(model.device)
        inputs = {key: value.to(model.dtype) if value.is_floating_point() else value for key, value in inputs.items()}
        outputs = method(**inputs)
        return outputs.pooler_output if isinstance(outputs, BaseModelOutputWithPooling) else outputs

    def of_one_size(batch: list[Image.Image], **budget: int) -> torch.Tensor:
        return features(model.get_image_features, processor.image_processor(batch, return_tensors="pt", **budget))

    def images(batch: list[Image.Image], max_num_patches: int | str | None) -> torch.Tensor:
        if not takes_budget or max_num_patches is None:
            return of_one_size(batch)
        if max_num_patches != "auto":
            return of_one_size(batch, max_num_patches=int(max_num_patches))
        patch_size = processor.image_processor.patch_size
        budgets = [patch_budget(image.height, image.width, patch_size) for image in batch]
        vectors: dict[int, torch.Tensor] = {}
        for budget in set(budgets):
            its = [index for index, each in enumerate(budgets) if each == budget]
            rows = of_one_size([batch[index] for index in its], max_num_patches=budget)
            vectors |= dict(zip(its, rows, strict=True))
        return torch.stack([vectors[index] for index in range(len(batch))])

    def texts(batch: list[str]) -> torch.Tensor:
        # SigLIP was trained on lower-cased texts, padded to one length and attended to with their padding.
        batch = [text.lower() for text in batch] if is_siglip else batch
        padding = "max_length" if is_siglip else True
        options = {"padding": padding, "truncation": True, "max_length": text_length, "return_tensors": "pt"}
        inputs = processor.tokenizer(batch, return_attention_mask=not is_siglip, **options)
        return features(model.get_text_features, inputs)

    revision = getattr(model.config, "_commit_hash", None)
    return PairEmbedder(
        images,
        texts,
        name,
        revision,
        checkpoint_fingerprint(model_fingerprint(model), model.config, processor),
        model,
        tokenizer=processor.tokenizer,
        text_length=text_length,
        ignored_settings=ONE_HEAD if takes_budget else (*ONE_HEAD, "max_num_patches"),
    )


def float64_device(model: BenchmarkModel) -> torch.device:
    """Return where to compare embeddings: the model's device if it has float64, which MPS has not, else the CPU."""
    module = getattr(model, "model", None)
    device = torch.device("cpu") if module is None else next(module.parameters()).device
    return torch.device("cpu") if device.type == "mps" else device
