"""Load a folder in an interpreter of its own, as others will, and write the vectors that come out.

The text of this file is handed to a new interpreter, see [`verify_folder`]; it imports nothing of this package.

    python -c "$(cat fresh_process.py)" LIBRARY FOLDER PICTURE TEXTS.json OUTPUT.safetensors
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file


def by_transformers(folder: str, picture: Image.Image, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return vectors of a picture and of texts: by `AutoProcessor`, and the same by transformers' own classes."""
    from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoProcessor, AutoTokenizer

    model = AutoModel.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    image_vectors = model.get_image_features(**processor(images=[picture]))
    text_vectors = model.get_text_features(**processor(text=texts))

    stock = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    stock_ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    normalize = torch.nn.functional.normalize
    difference = (normalize(stock.get_text_features(**stock_ids)) - normalize(text_vectors)).abs().max()
    if difference > 1e-4:
        raise SystemExit(f"AutoTokenizer without the code of the folder gives vectors that are {difference} off")
    AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)(picture, return_tensors="pt")
    return image_vectors, text_vectors


def by_sentence_transformers(folder: str, picture: Image.Image, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return vectors of a picture and of texts."""
    from sentence_transformers import SentenceTransformer

    options = {"trust_remote_code": True, "device": "cpu", "model_kwargs": {"dtype": "float32"}}
    model = SentenceTransformer(folder, **options)
    return model.encode([picture], convert_to_tensor=True), model.encode(texts, convert_to_tensor=True)


def main() -> None:
    library, folder, picture, texts, output = sys.argv[1:]
    sys.modules["fgclip2"] = None  # type: ignore[assignment]  # as where it is not installed
    compute = {"transformers": by_transformers, "sentence_transformers": by_sentence_transformers}[library]
    with Image.open(picture) as image, torch.no_grad():
        vectors = compute(folder, image.convert("RGB"), json.loads(Path(texts).read_text(encoding="utf-8")))
    normalized = [torch.nn.functional.normalize(rows.float(), dim=-1) for rows in vectors]
    save_file(dict(zip(("images", "texts"), normalized, strict=True)), output)


if __name__ == "__main__":
    main()
