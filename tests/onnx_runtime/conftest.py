"""An exported folder and its model, as tests/hub/onnx has them."""

import pytest

pytest.importorskip("onnxruntime", reason='needs the extra: pip install "fgclip2[onnx]"')

from tests.checkpoints import converted_fgclip_folder, official_fgclip_folder
from tests.hub.onnx.conftest import exported, model, processor

__all__ = ["converted_fgclip_folder", "exported", "model", "official_fgclip_folder", "processor"]
