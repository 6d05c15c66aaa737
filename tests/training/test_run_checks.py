"""The plan refuses what the run would refuse."""

import pytest

from fgclip2.training.objective import TERMS
from fgclip2.training.plan import plan_run
from fgclip2.training.run_checks import check_evaluation
from fgclip2.training.settings import DataSettings, ModelSettings, RunSettings

from ..checkpoints import official_r2d2_folder  # noqa: F401
from .test_trainer import arguments, trainer


@pytest.mark.parametrize(
    ("checkpoint", "objective"), [("official_r2d2_folder", "retrieval"), ("saved_folder", "ranking")]
)
@pytest.mark.parametrize("name", ["text_chunk_size", "gradient_cache_chunk_size"])
def test_the_plan_takes_no_chunks_of_models_that_compare_tokens(checkpoint, objective, name, tmp_path, request):
    model = ModelSettings(str(request.getfixturevalue(checkpoint)))
    args = arguments(tmp_path, objective=objective, **{name: 2})
    with pytest.raises(ValueError, match=f"`{name}` must be None.* for .*, got 2: take gradient_checkpointing"):
        plan_run(RunSettings(model, DataSettings(), args))


def test_the_plan_refuses_a_metric_of_no_set(saved_folder, tmp_path, records_folder):
    file, images = str(records_folder / "records.json"), [str(records_folder / "images")]
    data = DataSettings([file], eval_data=[f"coco={file}", f"flickr={file}"], images_folder=images)
    best = {"eval_strategy": "steps", "save_strategy": "steps", "load_best_model_at_end": True}  # by eval_loss
    args = arguments(tmp_path, **best)
    with pytest.raises(ValueError, match="must be a number of one of the sets, eval_coco_… or eval_flickr_…"):
        plan_run(RunSettings(ModelSettings(str(saved_folder)), data, args))


@pytest.mark.parametrize("launched", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_the_plan_refuses_distillation_with_lora_over_divided_weights(saved_folder, tmp_path, monkeypatch, launched):
    args = arguments(tmp_path, objective_settings={"distillation_weight": 1.0})
    monkeypatch.setenv(launched, "true")
    with pytest.raises(ValueError, match=r"distillation_weight=1\.0 with LoRA does not go with FSDP or DeepSpeed"):
        plan_run(RunSettings(ModelSettings(str(saved_folder), lora=True), DataSettings(), args))


def test_the_plan_refuses_distillation_from_weights_that_one_process_has(saved_folder, tmp_path, monkeypatch):
    args = arguments(tmp_path, objective_settings={"distillation_weight": 1.0})
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "True")
    with pytest.raises(ValueError, match="which fsdp_cpu_ram_efficient_loading reads on one alone: set it to false"):
        plan_run(RunSettings(ModelSettings(str(saved_folder)), DataSettings(), args))


@pytest.mark.parametrize("metric", [None, "eval_coco_long_loss"])
def test_names_of_sets_share_no_numbers(tmp_path, records, metric):
    args = arguments(tmp_path, metric_for_best_model=metric)
    with pytest.raises(ValueError, match="got 'coco' and 'coco_long': eval_coco_long_loss would be a number of either"):
        check_evaluation(args, {"coco_long": records, "flickr": records, "coco": records}, TERMS)
    check_evaluation(args, dict.fromkeys(("coco", "coco-long", "cocos_long", "coco_zh"), records), TERMS)


def test_sets_named_when_they_are_evaluated_on_share_no_numbers(saved_folder, tmp_path, records):
    evaluated = trainer(saved_folder, tmp_path, records)
    with pytest.raises(ValueError, match="got '猫' and '猫_long': eval_猫_long_loss would be a number of either"):
        evaluated.evaluate({"猫": records, "猫_long": records})
    metrics = evaluated.evaluate({"猫": records, "猫-long": records})
    assert metrics["eval_猫_long_loss"] == metrics["eval_猫-long_long_loss"]
