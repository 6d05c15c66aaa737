"""Folders of ONNX graphs: what is in them, and what a run time has to know, in one JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._imports import require
from ...assets import embedded_checkpoint
from ...calibration import CALIBRATION_FILE, Calibration
from ...checks import check_choice
from ...embedding.backends.onnx import MANIFEST
from ...embedding.fingerprint import checkpoint_fingerprint, model_fingerprint
from ...files import new_folder, sha256_of_file
from ...modeling.auto import FAMILIES, Family
from ...modeling.pixels import PIXEL_SETTINGS
from ...modeling.processors import TwoTowerProcessor
from . import graphs
from .precisions import NO_FAST_IMAGES, PRECISIONS, quantise
from .report import ITEMS, Comparison, write_report

FORMAT = 1  # of the folder; it grows when a run time that knows an older one would go wrong


def export_onnx(
    model: Any,
    processor: TwoTowerProcessor,
    folder: str | os.PathLike,
    precisions: Sequence[str] = ("fp32",),
    square_side: int | None = None,
    compared_items: int = ITEMS,
    calibration: Calibration | None = None,
) -> Path:
    """Write a checkpoint as ONNX graphs, with all that a run time without torch needs to give the same vectors.

    Texts are one graph for all heads, which takes embedded tokens: the table of tokens is a file of its own, to be
    memory-mapped. Images are a graph for vectors and one for vectors and dense maps, and FG-CLIP 2, whose images have
    any shape, has one more for plain squares. The graphs of a precision share one file of weights for texts and one for
    images. What the graphs give is compared with torch, and written into the folder.

    Args:
        model: An [`FGClip2Model`] or [`FGClipModel`], in any dtype; it stays as it is.
        processor: Its processor.
        folder: Where to write; new or empty.
        precisions: Names in `PRECISIONS`: `"fp32"`, `"fp16"`, `"int8"` (weights in 8 bit), `"int8-fast"` (texts only;
            images then are those of another precision that is asked for).
        square_side: Side in pixels of the plain squares; `None`: as many patches as the processor's budget (at most,
            for a square), and 256 where the budget is `"auto"`, as official checkpoints have it. Their vectors are
            others than those of images in their own shape: an index holds one kind of them.
        compared_items: Bundled images, and texts, to compare with torch; 0 compares and measures nothing.
        calibration: What `fgclip2 calibrate` made of this model and processor, to lie in the folder. Graphs in fp32 use
            it, of images in their own shape.

    Returns:
        The folder.

    Raises:
        ImportError: The extra `onnx` is not installed.
        ValueError: `folder` has something in it, `model` or `processor` is not of this package, a precision is unknown,
            `"int8-fast"` is asked for alone, squares can't have this side, the processor doesn't resize images, or the
            calibration is of other weights.

    Example:
        >>> from fgclip2 import FGClip2Model, FGClip2Processor
        >>> from fgclip2.hub import export_onnx
        >>> model, processor = FGClip2Model.from_pretrained(path), FGClip2Processor.from_pretrained(path)
        >>> export_onnx(model, processor, "fgclip2-onnx", precisions=["fp32", "int8"])
    """
    family = next((known for known in FAMILIES if isinstance(model, known.model)), None)
    if family is None or not isinstance(processor, family.processor):
        pairs = (f"an {known.model.__name__} and an {known.processor.__name__}" for known in FAMILIES)
        raise ValueError(
            f"`model` and `processor` must be {', or '.join(pairs)}, got {type(model).__name__} and "
            f"{type(processor).__name__}"
        )
    chosen = list(dict.fromkeys(precisions))
    for name in chosen:
        check_choice("precisions", name, PRECISIONS)
    if not any(PRECISIONS[name].for_images for name in chosen):
        raise ValueError(f"precisions={chosen} has none for images: add 'fp32' or 'int8'. {NO_FAST_IMAGES}")
    square_side = choose_square(processor, square_side)
    require("onnx", "onnx")
    require("onnxruntime", "onnx")
    if calibration is not None:
        calibration.require_model(*fingerprint_and_name(model, processor))
    texts, images = graphs.towers_of(model)
    with new_folder(folder) as staging:
        tables = {PRECISIONS[name].token_table for name in chosen}
        write_texts(staging, model, processor, tables)
        for dtype in dict.fromkeys(PRECISIONS[name].dtype for name in chosen):
            of_dtype = [name for name in chosen if PRECISIONS[name].dtype == dtype]
            write_graphs(staging, "text", of_dtype, graphs.trace(texts, dtype))
            of_dtype = [name for name in of_dtype if PRECISIONS[name].for_images]
            if of_dtype:
                squares = (square_side, model.config.vision_config.patch_size) if square_side else None
                write_graphs(staging, "image_dense", of_dtype, graphs.trace(images, dtype), squares)
        manifest = describe(model, processor, family, texts, square_side)
        manifest["precisions"] = {
            name: {
                "token_table": f"token_table.{PRECISIONS[name].token_table}.npy",
                "graphs": {path.stem: f"{name}/{path.name}" for path in sorted((staging / name).glob("*.onnx"))},
                # Else the vector of a text depends on the others in its batch.
                "one_by_one": PRECISIONS[name].one_by_one,
            }
            for name in chosen
        }
        manifest["files"] = {
            path.relative_to(staging).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
            for path in sorted(staging.rglob("*"))
            if path.is_file()
        }
        comparison = Comparison(model, processor, staging, manifest, compared_items)
        cosines = write_report(comparison, Path(folder).absolute().name)
        for name, precision in manifest["precisions"].items():
            precision["cosine"] = cosines.get(name)
        content = json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"
        (staging / MANIFEST).write_text(content, encoding="utf-8")
        if calibration is not None:  # no file of the manifest: its owner may add other pairs to it
            calibration.save(staging / CALIBRATION_FILE)
    return Path(folder)


def choose_square(processor: Any, side: int | None) -> int | None:
    """Return the side of plain squares, or `None` for a family whose images are squares anyhow.

    Raises:
        ValueError: The processor doesn't resize images, the family has no choice, or `side` is no positive multiple of
            the patch size.
    """
    if not processor.image_processor.do_resize:
        raise ValueError("the processor has do_resize=False, which run times of graphs don't know: set it to True")
    if processor.patch_budgets is None:
        if side is not None:
            raise ValueError(f"square_side={side}, but all images of this family are squares of one size: leave it out")
        return None
    settings = processor.image_processor
    if side is None:
        return graphs.default_square(settings.max_num_patches, settings.patch_size)
    if side < settings.patch_size or side % settings.patch_size:
        raise ValueError(f"square_side must be a positive multiple of {settings.patch_size} pixels, got {side}")
    return side


def write_graphs(
    folder: Path, name: str, precisions: Sequence[str], traced: Any, squares: tuple[int, int] | None = None
) -> None:
    """Write the graphs of one tower in several precisions.

    Args:
        folder: Gets a folder for each precision.
        name: `"text"` or `"image_dense"`, whose graphs of vectors alone are made of it.
        precisions: All of one dtype.
        traced: The tower in that dtype.
        squares: Side in pixels of plain squares and of patches, where there are to be graphs for them.
    """
    whole = traced.SerializeToString() if len(precisions) > 1 else b""
    for precision in precisions:
        graph_model = type(traced).FromString(whole) if whole else traced
        graph_model = quantise(graph_model, precision, is_image=name != "text")
        (folder / precision).mkdir(exist_ok=True)
        graphs.save(graph_model, folder / precision / f"{name}.onnx", f"{name.partition('_')[0]}.data")
        if name == "text":
            continue
        vectors = graphs.with_outputs(graph_model, ["image"])
        (folder / precision / "image.onnx").write_bytes(vectors.SerializeToString())
        if squares:
            plain = graphs.for_squares(vectors, *squares)
            (folder / precision / "image_square.onnx").write_bytes(plain.SerializeToString())


def write_texts(folder: Path, model: Any, processor: Any, dtypes: set[str]) -> None:
    """Write the tokenizer, the table of tokens in each of the dtypes, and the rows of positions."""
    processor.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    for name, rows in position_rows(model).items():
        np.save(folder / f"positions_{name}.npy", _array(rows))
    table = model.get_input_embeddings().weight
    for dtype in dtypes:
        np.save(folder / f"token_table.{dtype}.npy", _array(table).astype(dtype))


def position_rows(model: Any) -> dict[str, Tensor]:
    """Return what is added to the tokens of short and of long texts, (length, D) each."""
    embeddings = model.text_model.embeddings
    kept, stretched = embeddings.position_embedding_ori.weight, embeddings.position_embedding_res.weight
    long = torch.cat([kept[: embeddings.keep_len], stretched[embeddings.keep_len :]])
    return {"short": embeddings.position_embedding.weight, "long": long}


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def describe(model: Any, processor: Any, family: Family, texts: Any, square_side: int | None) -> dict[str, Any]:
    """Return what a run time has to know, but for files."""
    weights = model_fingerprint(model)
    tokenizer, settings = processor.tokenizer, processor.image_processor
    scale, bias = model.get_score_scale_and_bias()
    budgets = processor.patch_budgets
    roles = {
        role: {
            "output": output,
            "length": processor.text_length(role),
            "positions": f"positions_{'long' if role == 'long_caption' else 'short'}.npy",
        }
        for role, output in texts.output_of_role.items()
    }
    return {
        "format": FORMAT,
        "family": family.model_type,
        "title": family.title,
        "name": checkpoint_name(model),
        "revision": getattr(model.config, "_commit_hash", None),
        "fingerprint": checkpoint_fingerprint(weights, model.config, processor),
        "weights_fingerprint": weights,
        "embedding_size": model.embedding_size,
        "score": {
            "function": model.score_function,
            "scale": scale,
            "bias": bias,
            "region_scale": model.region_logit_scale,
        },
        "text": {
            "tokenizer": "tokenizer.json",
            "python_lowercase": tokenizer._prepare("A") == "a",
            "pad_id": tokenizer.pad_token_id,
            "eos_id": tokenizer.eos_token_id,
            # Where features are read at the last position, they depend on how far a text is padded.
            "pad_to_length": "end_index" not in texts.inputs,
            "needs_end_index": "end_index" in texts.inputs,
            # Texts of more tokens are long captions, where a text's length decides.
            "max_caption_tokens": processor.max_caption_tokens,
            "roles": roles,
        },
        "image": {
            "kind": "square" if budgets is None else "naflex",
            "patch_size": model.config.vision_config.patch_size,
            "max_num_patches": None if budgets is None else settings.max_num_patches,
            "patch_budgets": None if budgets is None else list(budgets),
            "size": [settings.size["height"], settings.size["width"]] if budgets is None else None,
            **{name: getattr(settings, name) for name in PIXEL_SETTINGS},
        },
        "image_square": {"size": [square_side, square_side]} if square_side else None,
    }


def fingerprint_and_name(model: Any, processor: Any) -> tuple[str, str]:
    """Return the fingerprint of a checkpoint, and what to call it."""
    return checkpoint_fingerprint(model_fingerprint(model), model.config, processor), checkpoint_name(model)


def checkpoint_name(model: Any) -> str:
    """Return what to call a checkpoint: its id on the hub, or the name of its folder, not where that lies."""
    source = getattr(model.config, "_name_or_path", None) or "unnamed"
    if not Path(source).is_dir():
        return source
    return "embedded" if Path(source).samefile(embedded_checkpoint()) else Path(source).absolute().name
