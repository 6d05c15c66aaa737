"""Folders of ONNX graphs, made once for all tests; making one takes seconds for each layer."""

import os

import pytest
import torch
from filelock import FileLock

from fgclip2 import FGClip2Config, FGClip2Model, FGClip2Processor
from fgclip2.assets import embedded_checkpoint
from fgclip2.hub import export_onnx
from fgclip2.hub.onnx.folder import fingerprint_and_name
from tests.calibrations import level_calibration


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
    """Graphs of the model for all workers, here and in tests/onnx_runtime. Don't write into them."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of the workers of this run
    folder = shared / "graphs" / "图"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(shared / "graphs.lock"):
        if not folder.exists():
            fingerprint, name = fingerprint_and_name(model, processor)
            calibration = level_calibration(fingerprint, name, processor.image_processor.max_num_patches)
            precisions = ["fp32", "int8", "int8-fast"]
            export_onnx(model, processor, folder, precisions, 64, compared_items=6, calibration=calibration)
    return folder
