"""Folders of ONNX graphs, made once for all tests; making one takes seconds for each layer."""

import pytest
import torch

from fgclip2 import FGClip2Config, FGClip2Model, FGClip2Processor
from fgclip2.assets import embedded_checkpoint
from fgclip2.hub import export_onnx


@pytest.fixture(scope="session")
def processor():
    return FGClip2Processor.from_pretrained(embedded_checkpoint())


@pytest.fixture(scope="session")
def model() -> FGClip2Model:
    """A random model of one layer in each tower, with the vocabulary of the embedded checkpoint."""
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
    torch.manual_seed(0)
    config = FGClip2Config(
        text_config={"hidden_size": 64, "projection_size": 96, "vocab_size": 6000, **sizes},
        vision_config={"hidden_size": 96, "num_patches": 64, **sizes},
    )
    model = FGClip2Model(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and "logit" not in name:  # which start at zero, where a lost one would not show
                parameter.normal_(std=0.1)
    return model


@pytest.fixture(scope="session")
def exported(model, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "图"
    return export_onnx(model, processor, folder, ["fp32", "int8", "int8-fast"], square_side=64, compared_items=6)
