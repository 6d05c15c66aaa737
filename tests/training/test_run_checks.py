"""The plan refuses what the run would refuse."""

import pytest

from fgclip2.training.plan import plan_run
from fgclip2.training.settings import DataSettings, ModelSettings, RunSettings

from ..checkpoints import official_r2d2_folder  # noqa: F401
from .test_trainer import arguments


@pytest.mark.parametrize(
    ("checkpoint", "objective"), [("official_r2d2_folder", "retrieval"), ("saved_folder", "ranking")]
)
@pytest.mark.parametrize("name", ["text_chunk_size", "gradient_cache_chunk_size"])
def test_the_plan_takes_no_chunks_of_models_that_compare_tokens(checkpoint, objective, name, tmp_path, request):
    model = ModelSettings(str(request.getfixturevalue(checkpoint)))
    args = arguments(tmp_path, objective=objective, **{name: 2})
    with pytest.raises(ValueError, match=f"`{name}` must be None.* for .*, got 2: take gradient_checkpointing"):
        plan_run(RunSettings(model, DataSettings(), args))
