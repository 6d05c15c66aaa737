"""What importing the package changes in transformers, and what it leaves alone; each in a process of its own."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor
from transformers.utils import logging

from fgclip2 import Embedder, FGClip2Model, embedded_checkpoint
from fgclip2.modeling import loading
from tests.interpreters import run_python

# As a release of transformers that has an `fgclip2` of its own, with the same names of classes.
NATIVE = """
import sys, types
from transformers.models.auto import configuration_auto, image_processing_auto
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin
native = types.ModuleType("transformers.models.fgclip2")
for name, base in (("Config", PretrainedConfig), ("Model", PreTrainedModel), ("Processor", ProcessorMixin)):
    members = {"model_type": "fgclip2", "__module__": "transformers.models.fgclip2"}
    setattr(native, f"FGClip2{name}", type(f"FGClip2{name}", (base,), members))
sys.modules[native.__name__] = native
configuration_auto.CONFIG_MAPPING_NAMES["fgclip2"] = "FGClip2Config"
from transformers.models.auto import modeling_auto, processing_auto
modeling_auto.MODEL_MAPPING_NAMES["fgclip2"] = "FGClip2Model"
processing_auto.PROCESSOR_MAPPING_NAMES["fgclip2"] = "FGClip2Processor"
from transformers import AutoConfig, AutoModel, AutoProcessor, CONFIG_MAPPING
assert CONFIG_MAPPING["fgclip2"] is native.FGClip2Config
"""
LOAD = """
folder = sys.argv[1]
loaded = [auto.from_pretrained(folder) for auto in (AutoConfig, AutoModel, AutoProcessor)]
print([type(part).__module__ for part in (*loaded, loaded[2].tokenizer, loaded[2].image_processor)])
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return run_python("-c", code, embedded_checkpoint(), env={**os.environ, **environment})


def test_our_classes_take_over_from_native_ones_with_one_line():
    done = run(f"{NATIVE}\nimport fgclip2\n{LOAD}")
    parts = ("configuration", "modeling", "processing", "tokenization", "image_processing")
    assert done.stdout.strip() == str([f"fgclip2.modeling.{part}_fgclip2" for part in parts]), done.stderr
    lines = [line for line in done.stderr.splitlines() if "FGCLIP2_NO_REGISTER" in line]
    assert len(lines) == 1
    assert lines[0].startswith("transformers has a model 'fgclip2' of its own")


def test_there_is_nothing_to_say_without_native_classes():
    done = run("import fgclip2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_registered_if_the_user_says_so():
    code = """
import copy, sys
from transformers import AutoImageProcessor, AutoModel, AutoProcessor, AutoTokenizer, CONFIG_MAPPING
from transformers import PreTrainedTokenizerFast
from transformers.image_processing_base import ImageProcessingMixin
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.pipelines.zero_shot_image_classification import ZeroShotImageClassificationPipeline
mappings = (CONFIG_MAPPING, MODEL_MAPPING, TOKENIZER_MAPPING, IMAGE_PROCESSOR_MAPPING, PROCESSOR_MAPPING)
import fgclip2
assert fgclip2.FGClip2Model.from_pretrained(sys.argv[1]).config.model_type == "fgclip2"
patched = ("__new__" in vars(cls) for cls in (ZeroShotImageClassificationPipeline, PreTrainedTokenizerFast))
patched = [*patched, hasattr(ImageProcessingMixin.from_dict, "of_fgclip2")]
print([dict(mapping._extra_content) for mapping in mappings], *patched)
"""
    done = run(code, FGCLIP2_NO_REGISTER="1")
    expected = "[{}, {}, {}, {}, {}] False False False"
    assert done.stdout.strip() == expected, done.stderr
    native = run(
        f"{NATIVE}\nimport fgclip2\nprint(CONFIG_MAPPING['fgclip2'] is native.FGClip2Config)", FGCLIP2_NO_REGISTER="1"
    )
    assert (native.stdout, native.stderr) == ("True\n", "")


def test_what_others_have_changed_goes_on_to_be_called_and_a_reload_changes_nothing():
    code = """
import importlib, sys
from tokenizers import Tokenizer, models
from transformers import AutoProcessor, PreTrainedTokenizerFast
made = []
def new(cls, *args, **kwargs):
    made.append(cls.__name__)
    return object.__new__(cls)
PreTrainedTokenizerFast.__new__ = new
import fgclip2
from fgclip2 import _registration
ours = PreTrainedTokenizerFast.__new__
importlib.reload(_registration).register()
assert PreTrainedTokenizerFast.__new__ is ours is not new
PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
AutoProcessor.from_pretrained(sys.argv[1])
print(made)
"""
    done = run(code)
    assert (done.stdout, done.stderr) == ("['TokenizersBackend', 'FGClip2Tokenizer']\n", "")


@pytest.fixture
def bars():
    """Progress bars of transformers are on, whatever ran before."""
    before = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    yield
    if not before:
        logging.disable_progress_bar()


def test_small_checkpoints_load_without_a_progress_bar(bars, tmp_path, capfd):
    FGClip2Model.from_pretrained(embedded_checkpoint())
    assert "Loading weights" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()
    (tmp_path / "config.json").write_bytes(Path(embedded_checkpoint(), "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(Exception, match=r"(?i)header|safetensors"):
        FGClip2Model.from_pretrained(tmp_path)
    assert logging.is_progress_bar_enabled()


def test_large_checkpoints_load_with_a_progress_bar(bars, monkeypatch, capfd):
    monkeypatch.setattr(loading, "BYTES_WORTH_A_PROGRESS_BAR", 0)
    FGClip2Model.from_pretrained(embedded_checkpoint())
    assert "Loading weights" in capfd.readouterr().err


@torch.no_grad()
def test_the_embedded_checkpoint_gives_the_same_numbers_by_auto_classes(photo):
    """Its weights are stored in half precision, which transformers 5 would compute in too if the config said so."""
    embedder = Embedder.from_pretrained(device="cpu")
    model = AutoModel.from_pretrained(embedded_checkpoint()).eval()
    texts = ["a red apple", "一只狗在草地上跑"]
    outputs = model(**AutoProcessor.from_pretrained(embedded_checkpoint())(text=texts, images=[photo]))
    vectors = {"image_embeds": embedder.encode_images([photo]), "text_embeds": embedder.encode_texts(texts)}
    for name, expected in vectors.items():
        assert abs(outputs[name].float().numpy() - expected).max() < 1e-5
    scale, bias = embedder.score_scale_and_bias
    expected = scale * embedder.similarity(*vectors.values()) + bias
    assert abs(outputs.logits_per_image.float().numpy() - expected).max() < 1e-3
