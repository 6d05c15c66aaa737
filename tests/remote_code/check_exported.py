"""Load an exported folder as a user without this package does, and write what comes out.

Run by the tests in interpreters of their own, among them of other transformers releases:

    python check_exported.py FOLDER OUTPUT.safetensors {remote-code,package,package-and-remote-code}
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

TEXTS = ["A black cat on the window", "一只黑猫趴在窗台上"]
LABELS = ["cat", "红苹果", "dog"]
CLASSES = ("AutoModel", "AutoModelForCausalLM", "AutoModelForZeroShotImageClassification")


def images() -> list[Image.Image]:
    y, x = np.mgrid[0:120, 0:160]
    picture = Image.fromarray(np.stack([x, y * 2, (x + y) % 256], -1).astype(np.uint8))
    return [picture, picture.rotate(90, expand=True)]


@torch.no_grad()
def compute(model, processor, tokenizer, image_processor) -> dict[str, torch.Tensor]:
    """What each way in gives: token ids and features per walk, pixels, image, dense and region features, logits."""
    if model.config.model_type == "r2d2":
        return compute_r2d2(model, processor, tokenizer, image_processor)
    outputs = {}
    for walk in ("short", "long", "box"):
        ids = tokenizer(TEXTS, walk_type=walk, return_tensors="pt")["input_ids"]
        outputs[f"ids_{walk}"] = ids
        outputs[f"text_{walk}"] = model.get_text_features(ids, walk_type=walk)
    pixels = image_processor(images(), return_tensors="pt")
    outputs |= dict(pixels)
    outputs["image"] = model.get_image_features(**pixels)
    outputs["dense"] = model.get_image_dense_feature(**pixels)
    boxes = [[[0, 0, 80, 60], [10, 20, 150, 110]], [[5, 5, 100, 150]]]
    inputs = processor(images=images(), boxes=boxes)
    outputs["regions"] = torch.cat(model.get_image_region_features(**inputs))
    outputs["logits"] = model(**processor(text=TEXTS, images=images())).logits_per_image
    if hasattr(model, "rank_scores"):  # with a ranking stage
        tokens = model.get_text_tokens(outputs["ids_short"])
        outputs["scores"] = model.rank_scores(model.get_image_tokens(**pixels), tokens)
    return outputs


def compute_r2d2(model, processor, tokenizer, image_processor) -> dict[str, torch.Tensor]:
    """The same of R2D2, which has one text head, no regions, and scores of pairs."""
    texts, pixels = tokenizer(TEXTS, return_tensors="pt"), image_processor(images(), return_tensors="pt")
    outputs = {**texts, **pixels}
    outputs["text"], outputs["image"] = model.get_text_features(**texts), model.get_image_features(**pixels)
    forward = model(**processor(text=TEXTS, images=images()))
    outputs["logits"] = forward.logits_per_image
    outputs["scores"] = model.rank_scores(forward.image_tokens, forward.text_tokens, texts["attention_mask"])
    return outputs


def compute_pipelines(folder: str, **kwargs) -> dict[str, torch.Tensor]:
    from transformers import pipeline

    classify = pipeline("zero-shot-image-classification", model=folder, **kwargs)
    scores = {row["label"]: row["score"] for row in classify(images()[0], candidate_labels=LABELS)}
    extract = pipeline("image-feature-extraction", model=folder, **kwargs)
    return {
        "pipeline_scores": torch.tensor([scores[label] for label in LABELS]),
        "pipeline_features": torch.tensor(extract(images()[0])),
    }


def check_origin(loaded: object, way: str) -> None:
    cls = type(loaded)
    assert cls.__name__.startswith(("FGClip", "R2D2")), cls
    origins = {"remote-code": "transformers_modules.", "package": "fgclip2."}
    # Where both could run, transformers decides for each Auto class; the code is the same.
    assert cls.__module__.startswith(origins.get(way, tuple(origins.values()))), cls


def load_all(folder: str, way: str, **kwargs) -> tuple:
    import transformers
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    models = [getattr(transformers, name).from_pretrained(folder, **kwargs).eval() for name in CLASSES]
    processor = transformers.AutoProcessor.from_pretrained(folder, **kwargs)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **kwargs)
    image_processor = AutoImageProcessor.from_pretrained(folder, **kwargs)
    for loaded in (*models, processor, tokenizer, image_processor, processor.tokenizer, processor.image_processor):
        check_origin(loaded, way)
    first, *others = (model.state_dict() for model in models)
    for other in others:
        assert all(torch.equal(tensor, other[name]) for name, tensor in first.items())
    return models[0], processor, tokenizer, image_processor


def main() -> None:
    folder, output, way = sys.argv[1:]
    if way == "remote-code":
        sys.modules["fgclip2"] = None  # so that importing it fails, wherever it is installed
    else:
        import fgclip2  # noqa: F401
    kwargs = {} if way == "package" else {"trust_remote_code": True}
    model, processor, tokenizer, image_processor = load_all(folder, way, **kwargs)
    outputs = compute(model, processor, tokenizer, image_processor) | compute_pipelines(folder, **kwargs)

    # Saved again and loaded again, all is as before: code and names of classes travel along.
    resaved = str(Path(output).with_suffix("")) + "-resaved"
    model.save_pretrained(resaved)
    processor.save_pretrained(resaved)
    again = compute(*load_all(resaved, way, **kwargs))
    for name, tensor in again.items():
        assert torch.equal(tensor, outputs[name]), name
    save_file({name: tensor.contiguous() for name, tensor in outputs.items()}, output)


if __name__ == "__main__":
    main()
