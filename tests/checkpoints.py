"""Checkpoint folders for the tests, as users have them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizerFast

from fgclip2 import FGClip2ForImageTextMatching, FGClip2Model, FGClip2Processor, R2D2Processor
from fgclip2.hub import convert_checkpoint, export_checkpoint
from fgclip2.hub.convert_r2d2 import read_tokenizer
from fgclip2.modeling.auto import find_family, has_ranking_stage
from fgclip2.modeling.image_processing_r2d2 import R2D2ImageProcessor
from tests import golden_of_r2d2
from tests.golden_of_r2d2 import GOLDEN_R2D2
from tests.golden_of_v1 import GOLDEN_V1
from tests.tokenization.clip_vocabulary import write_tiny_vocabulary

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

OFFICIAL_FGCLIP_PREPROCESSOR = {
    "crop_size": {"height": 40, "width": 40},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 40},
}


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def add_tokens(weights: dict[str, torch.Tensor], vocab_size: int) -> None:
    """Give the tokens that the golden vocabulary lacks embeddings too; golden token ids keep theirs."""
    name = "text_model.embeddings.token_embedding.weight"
    rows, width = weights[name].shape
    more = torch.randn(vocab_size - rows, width, generator=torch.Generator().manual_seed(0))
    weights[name] = torch.cat([weights[name], more])


def write_official_folder(folder: Path) -> Path:
    """The golden checkpoint with what surrounds one on the hub; its code files must never run."""
    folder.mkdir(parents=True)
    vocab_size = len(json.loads((GEMMA_TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    config = json.loads((GOLDEN_MODEL / "config.json").read_text())
    config["text_config"]["vocab_size"] = vocab_size
    write_json(folder / "config.json", {**config, "auto_map": OFFICIAL_AUTO_MAP})

    weights = load_file(GOLDEN_MODEL / "model.safetensors")
    add_tokens(weights, vocab_size)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})

    write_json(folder / "preprocessor_config.json", OFFICIAL_PREPROCESSOR)
    for path in GEMMA_TOKENIZER.iterdir():
        shutil.copyfile(path, folder / path.name)
    tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(folder / "tokenizer_config.json", {**tokenizer_config, "processor_class": "Fgclip2Processor"})
    for name in ("configuration_fgclip2.py", "modeling_fgclip2.py"):
        (folder / name).write_text("raise RuntimeError('the code of an official folder ran')\n")
    return folder


def write_official_fgclip_folder(folder: Path) -> Path:
    """The same of the first FG-CLIP, whose official folders call themselves CLIP and name CLIP's processor."""
    write_tiny_vocabulary(folder)
    CLIPTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    vocab_size = len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
    config = json.loads((GOLDEN_V1 / "model" / "config.json").read_text())
    # The ids of OpenAI's first configurations, which the official code overwrites.
    config["text_config"] |= {"vocab_size": vocab_size, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    write_json(folder / "config.json", config)
    weights = load_file(GOLDEN_V1 / "model" / "model.safetensors")
    add_tokens(weights, vocab_size)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "preprocessor_config.json", OFFICIAL_FGCLIP_PREPROCESSOR)
    for name in ("modeling_fgclip.py", "modeling_clip.py"):
        (folder / name).write_text("raise RuntimeError('the code of an official folder ran')\n")
    return folder


def write_clip_folder(folder: Path) -> Path:
    """Stock CLIP with the golden weights of the first FG-CLIP, without what CLIP lacks."""
    write_official_fgclip_folder(folder)
    for path in folder.glob("*.py"):
        path.unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {name: value for name, value in config.items() if name != "auto_map"}
    write_json(folder / "config.json", {**config, "architectures": ["CLIPModel"]})
    weights = load_file(folder / "model.safetensors")
    new = ("_ori.weight", "_res.weight", "text_filip_projection.weight", "_finegraind", "_hardneg")
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith(new)}
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]  # which older releases stored
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.fixture(scope="session")
def official_folder(tmp_path_factory) -> Path:
    """Don't write into it."""
    return write_official_folder(tmp_path_factory.mktemp("checkpoints") / "official")


@pytest.fixture(scope="session")
def official_r2d2_folder(tmp_path_factory) -> Path:
    """What a released R2D2 pickle is converted to: there is no other official folder. Don't write into it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "official_r2d2"
    model = golden_of_r2d2.model()
    model.save_pretrained(folder)
    # Not by conversion: this fixture serves releases of torch too that it refuses to read pickles with.
    tokenizer = read_tokenizer(GOLDEN_R2D2 / "vocab.txt", model.config)
    image_processor = R2D2ImageProcessor(size=model.config.vision_config.image_size)
    R2D2Processor(image_processor, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def exported_r2d2_folder(official_r2d2_folder, tmp_path_factory) -> Path:
    """Don't write into it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "exported_r2d2"
    return export_checkpoint(*load(official_r2d2_folder), folder, license="apache-2.0")


def load(folder: Path) -> tuple[Any, Any]:
    """Return the model, with its ranking stage if it has one, and the processor of a folder of any family."""
    family = find_family(folder)
    family = family.with_ranking_stage if has_ranking_stage(family, folder) else family
    return family.model.from_pretrained(folder), family.processor.from_pretrained(folder)


@pytest.fixture(scope="session")
def saved_folder(official_folder, tmp_path_factory) -> Path:
    """The same checkpoint, loaded and saved by this package. Don't write into it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "saved"
    for part in load(official_folder):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def exported_folder(official_folder, tmp_path_factory) -> Path:
    """The same checkpoint with this package's code. Don't write into it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "exported"
    return export_checkpoint(*load(official_folder), folder, license="apache-2.0")


@pytest.fixture(scope="session")
def official_stage_folder(official_folder, tmp_path_factory) -> Path:
    """The same dual encoder with a ranking stage of random weights, which reorders. Don't write into it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "official_stage"
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = FGClip2ForImageTextMatching.from_dual_encoder(FGClip2Model.from_pretrained(official_folder), sizes)
    torch.nn.init.normal_(model.cross_encoder.head.weight)  # from zero, which would leave the order
    model.save_pretrained(folder)
    FGClip2Processor.from_pretrained(official_folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def exported_stage_folder(official_stage_folder, tmp_path_factory) -> Path:
    """Don't write into it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "exported_stage"
    return export_checkpoint(*load(official_stage_folder), folder, license="apache-2.0")


@pytest.fixture(scope="session")
def official_fgclip_folder(tmp_path_factory) -> Path:
    """Don't write into it."""
    return write_official_fgclip_folder(tmp_path_factory.mktemp("checkpoints") / "official_fgclip")


@pytest.fixture(scope="session")
def converted_fgclip_folder(official_fgclip_folder, tmp_path_factory) -> Path:
    """Don't write into it."""
    return convert_checkpoint(official_fgclip_folder, tmp_path_factory.mktemp("checkpoints") / "converted_fgclip")


@pytest.fixture(scope="session")
def exported_fgclip_folder(official_fgclip_folder, tmp_path_factory) -> Path:
    """Don't write into it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "exported_fgclip"
    return export_checkpoint(*load(official_fgclip_folder), folder, license="apache-2.0")
