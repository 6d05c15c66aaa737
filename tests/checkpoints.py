"""Checkpoint folders for the tests, as users have them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fgclip2 import FGClip2Model, FGClip2Processor

GOLDEN_MODEL = Path(__file__).parent / "golden" / "model"
GEMMA_TOKENIZER = Path(__file__).parent / "tokenization" / "gemma_small" / "saved_by_transformers_4_57"

# What an official folder has beside its weights, to the best of what is publicly known of it.
OFFICIAL_AUTO_MAP = {
    "AutoConfig": "configuration_fgclip2.Fgclip2Config",
    "AutoModelForCausalLM": "modeling_fgclip2.Fgclip2Model",
}
OFFICIAL_PREPROCESSOR = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "Siglip2ImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "max_num_patches": 256,
    "patch_size": 16,
    "processor_class": "Siglip2Processor",
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
}


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def write_official_folder(folder: Path) -> Path:
    """The golden checkpoint with what surrounds one on the hub; its code files must never run."""
    folder.mkdir(parents=True)
    vocab_size = len(json.loads((GEMMA_TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    config = json.loads((GOLDEN_MODEL / "config.json").read_text())
    config["text_config"]["vocab_size"] = vocab_size
    write_json(folder / "config.json", {**config, "auto_map": OFFICIAL_AUTO_MAP})

    weights = load_file(GOLDEN_MODEL / "model.safetensors")
    name = "text_model.embeddings.token_embedding.weight"
    rows, width = weights[name].shape
    more = torch.randn(vocab_size - rows, width, generator=torch.Generator().manual_seed(0))
    weights[name] = torch.cat([weights[name], more])  # golden token ids keep their embeddings
    save_file(weights, folder / "model.safetensors", {"format": "pt"})

    write_json(folder / "preprocessor_config.json", OFFICIAL_PREPROCESSOR)
    for path in GEMMA_TOKENIZER.iterdir():
        shutil.copyfile(path, folder / path.name)
    tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(folder / "tokenizer_config.json", {**tokenizer_config, "processor_class": "Fgclip2Processor"})
    for name in ("configuration_fgclip2.py", "modeling_fgclip2.py"):
        (folder / name).write_text("raise RuntimeError('the code of an official folder ran')\n")
    return folder


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.fixture(scope="session")
def official_folder(tmp_path_factory) -> Path:
    """Don't write into it."""
    return write_official_folder(tmp_path_factory.mktemp("checkpoints") / "official")


@pytest.fixture(scope="session")
def saved_folder(official_folder, tmp_path_factory) -> Path:
    """The same checkpoint, loaded and saved by this package. Don't write into it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "saved"
    FGClip2Model.from_pretrained(official_folder).save_pretrained(folder)
    FGClip2Processor.from_pretrained(official_folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def exported_folder(official_folder, tmp_path_factory) -> Path:
    """The same checkpoint with this package's code. Don't write into it."""
    from fgclip2.hub import export_checkpoint

    model = FGClip2Model.from_pretrained(official_folder)
    processor = FGClip2Processor.from_pretrained(official_folder)
    return export_checkpoint(model, processor, tmp_path_factory.mktemp("checkpoints") / "exported")
