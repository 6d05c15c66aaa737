"""Load a folder in an interpreter of its own, as others will, and write the vectors that come out.

The text of this file is handed to a new interpreter, see [`verify_folder`]; it imports nothing of this package.

    python -c "$(cat fresh_process.py)" LIBRARY FOLDER PICTURE TEXTS.json OUTPUT.safetensors
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

# By precision of graphs, "" where there are none: vectors of a picture, and of texts.
Vectors = dict[str, tuple[np.ndarray, np.ndarray]]


def check_close(what: str, found: np.ndarray, expected: np.ndarray, allowed: float) -> None:
    """End the process unless two arrays have one shape and differ by at most `allowed`; NaN is a difference."""
    if found.shape != expected.shape:
        raise SystemExit(f"{what} have the shape {found.shape}, with the code of the folder {expected.shape}")
    difference = np.abs(found - expected).max()
    if not difference <= allowed:
        raise SystemExit(f"{what} are {difference} off, and {allowed} is allowed")


def by_transformers(folder: str, picture: Image.Image, texts: list[str]) -> Vectors:
    """Return vectors by `AutoProcessor`, which transformers' own tokenizer and image processor must give too."""
    import torch
    from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoProcessor, AutoTokenizer

    model = AutoModel.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    stock_model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    image_processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    stock_ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        image_vectors = model.get_image_features(**processor(images=[picture])).numpy()
        text_vectors = model.get_text_features(**processor(text=texts)).numpy()
        stock_vectors = stock_model.get_text_features(**stock_ids).numpy()
    what = "vectors of texts by AutoTokenizer without the code of the folder"
    check_close(what, normalized(stock_vectors), normalized(text_vectors), 1e-4)

    # It knows no "auto"; ours takes the budget that it has.
    budget = getattr(image_processor, "max_num_patches", None)
    pixels = processor(images=[picture], **({} if budget is None else {"max_num_patches": budget}))["pixel_values"]
    stock_pixels = image_processor(picture, return_tensors="pt")["pixel_values"]
    # Two levels of 255: what another library that resizes makes of it.
    allowed = 2.1 / 255 / min(image_processor.image_std)
    what = "pixels by AutoImageProcessor without the code of the folder"
    check_close(what, np.asarray(stock_pixels), np.asarray(pixels), allowed)
    return {"": (image_vectors, text_vectors)}


def by_sentence_transformers(folder: str, picture: Image.Image, texts: list[str]) -> Vectors:
    """Return what `SentenceTransformer.encode` gives."""
    from sentence_transformers import SentenceTransformer

    options = {"trust_remote_code": True, "device": "cpu", "model_kwargs": {"dtype": "float32"}}
    model = SentenceTransformer(folder, **options)
    return {"": (model.encode([picture]), model.encode(texts))}


def by_fgclip2_onnx(folder: str, picture: Image.Image, texts: list[str]) -> Vectors:
    """Return what the graphs in the folder `onnx` give, without importing torch or transformers."""
    from fgclip2_onnx import OnnxEmbedder

    graphs = Path(folder, "onnx")
    vectors = {}
    for precision in json.loads((graphs / "fgclip2_onnx.json").read_text(encoding="utf-8"))["precisions"]:
        embedder = OnnxEmbedder.from_pretrained(graphs, precision)
        vectors[precision] = embedder.encode_images([picture]), embedder.encode_texts(texts)
    if imported := sys.modules.keys() & {"torch", "transformers"}:
        raise SystemExit(f"graphs are to run without {' and '.join(sorted(imported))}, which fgclip2_onnx imported")
    return vectors


def normalized(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def main() -> None:
    library, folder, picture, texts, output = sys.argv[1:]
    sys.modules["fgclip2"] = None  # type: ignore[assignment]  # as where it is not installed
    compute = {
        "transformers": by_transformers,
        "sentence_transformers": by_sentence_transformers,
        "fgclip2_onnx": by_fgclip2_onnx,
    }[library]
    with Image.open(picture) as image:
        vectors = compute(folder, image.convert("RGB"), json.loads(Path(texts).read_text(encoding="utf-8")))
    arrays = {
        f"{precision} {kind}": normalized(rows)
        for precision, both in vectors.items()
        for kind, rows in zip(("images", "texts"), both, strict=True)
    }
    save_file(arrays, output)


if __name__ == "__main__":
    main()
