"""The arguments of a run under the names that releases of transformers have for them."""

from dataclasses import fields

import pytest
from transformers import TrainingArguments

from fgclip2.training.arguments import FGClip2TrainingArguments

KNOWN = {field.name for field in fields(TrainingArguments)}


@pytest.mark.filterwarnings("error::FutureWarning")
@pytest.mark.parametrize("name", sorted({"gradient_checkpointing", "activation_checkpointing"} & KNOWN))
@pytest.mark.parametrize("kwargs", [None, {"use_reentrant": False}, '{"use_reentrant": false}'])
def test_both_names_of_gradient_checkpointing_mean_the_same_without_a_warning(name, kwargs):
    args = FGClip2TrainingArguments("unused", use_cpu=True, report_to=[], **{name: True, f"{name}_kwargs": kwargs})
    for known in {"gradient_checkpointing", "activation_checkpointing"} & KNOWN:
        assert getattr(args, known) is True
        assert getattr(args, f"{known}_kwargs") == (kwargs and {"use_reentrant": False})
    plain = FGClip2TrainingArguments("unused", use_cpu=True, report_to=[])
    assert plain.gradient_checkpointing is False
