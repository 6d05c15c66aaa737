"""What export_checkpoint writes, and when it refuses; loading it is tested in tests/remote_code."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from fgclip2 import FGClip2Embedder, FGClip2Model, FGClip2Processor
from fgclip2.calibration import CALIBRATION_FILE
from fgclip2.hub import export, export_checkpoint
from fgclip2.hub.card import UNKNOWN, stated_license
from fgclip2.hub.onnx.folder import fingerprint_and_name
from tests.calibrations import level_calibration
from tests.checkpoints import load, read_tensors


@pytest.fixture(scope="module")
def loaded(official_folder) -> tuple[FGClip2Model, FGClip2Processor]:
    return load(official_folder)


@pytest.fixture(scope="module", params=["fgclip2", "fgclip"])
def exported(request) -> tuple[str, Path]:
    """The model type of a family, and an exported folder of it."""
    name = "exported_folder" if request.param == "fgclip2" else f"exported_{request.param}_folder"
    return request.param, request.getfixturevalue(name)


def test_files(exported):
    family, folder = exported
    files = {
        "README.md",
        "config.json",
        "config_sentence_transformers.json",
        f"configuration_{family}.py",
        "configurations.py",
        f"image_processing_{family}.py",
        "image_processors.py",
        "inputs.py",
        "layers.py",
        "loading.py",
        "model.safetensors",
        f"modeling_{family}.py",
        "modules.json",
        "pixels.py",
        "preprocessor_config.json",
        f"processing_{family}.py",
        "processor_config.json",
        "processors.py",
        "text_tokenizer.py",
        f"tokenization_{family}.py",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "weights.py",
    }
    files |= {"pipeline_fgclip2.py"} if family == "fgclip2" else set()
    assert {path.name for path in folder.iterdir()} == files
    assert not any(path.is_symlink() for path in folder.iterdir())


def classes_named(value: object) -> list[str]:
    """Every "file.Class" in a JSON value."""
    if isinstance(value, dict):
        return [name for item in value.values() for name in classes_named(item)]
    if isinstance(value, list):
        return [name for item in value for name in classes_named(item)]
    return [value] if isinstance(value, str) and "_fgclip" in value else []


def test_every_class_that_the_json_files_name_is_in_its_file(exported):
    family, folder = exported
    named = [name for path in folder.glob("*.json") for name in classes_named(json.loads(path.read_text()))]
    kinds = ["Config", "ImageProcessor", "Model", "Processor", "Tokenizer"]
    prefix = {"fgclip2": "FGClip2", "fgclip": "FGClip"}[family]
    kinds += ["ZeroShotImageClassificationPipeline"] if family == "fgclip2" else []  # transformers' own is right
    assert {name.rpartition(".")[2] for name in named} == {prefix + kind for kind in kinds}
    for name in named:
        module, _, class_name = name.rpartition(".")
        tree = ast.parse((folder / f"{module}.py").read_text(encoding="utf-8"))
        assert class_name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def test_code_files_import_only_each_other_and_what_users_have(exported):
    _, folder = exported
    allowed = {"transformers", "torch", "numpy", "PIL", "tokenizers"}
    files = {path.stem for path in folder.glob("*.py")}
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1, ast.unparse(node)
                assert node.module in files, ast.unparse(node)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                roots = {name.partition(".")[0] for name in names}
                assert roots <= allowed | set(__import__("sys").stdlib_module_names), ast.unparse(node)


def test_weights_are_bitwise_those_of_the_model(exported, official_folder, official_fgclip_folder):
    family, folder = exported
    official, _ = load(official_folder if family == "fgclip2" else official_fgclip_folder)
    tensors = load_file(folder / "model.safetensors")
    state = official.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in state.items())


def test_bfloat16_stays(official_folder, loaded, tmp_path):
    model = FGClip2Model.from_pretrained(official_folder, dtype=torch.bfloat16)
    export_checkpoint(model, loaded[1], tmp_path / "half")
    assert {tensor.dtype for tensor in read_tensors(tmp_path / "half").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_scales_of_the_training_losses_are_left_out(official_folder, loaded, tmp_path):
    class InTraining(FGClip2Model):
        def __init__(self, config):
            super().__init__(config)
            self.logit_scale_finegraind = torch.nn.Parameter(torch.zeros(1))

    model = InTraining(loaded[0].config)
    export_checkpoint(model, loaded[1], tmp_path / "out")
    assert read_tensors(tmp_path / "out").keys() == loaded[0].state_dict().keys()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["FGClip2Model"]


def test_the_model_in_memory_stays_as_it_was(official_folder, loaded, tmp_path):
    model = FGClip2Model.from_pretrained(official_folder)
    export_checkpoint(model, loaded[1], tmp_path / "out")
    assert not hasattr(model.config, "auto_map")
    model.save_pretrained(tmp_path / "plain")
    assert "auto_map" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    assert not list((tmp_path / "plain").glob("*.py"))


def test_license_reaches_the_card(loaded, tmp_path):
    export_checkpoint(*loaded, tmp_path / "out", license="cc-by-4.0")
    assert "license: cc-by-4.0\n" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_licence_is_that_of_the_checkpoints_own_card(official_folder, loaded, tmp_path):
    def license_of_export(model, name: str) -> str:
        return stated_license(export_checkpoint(model, loaded[1], tmp_path / name))

    assert license_of_export(loaded[0], "无卡片") == UNKNOWN
    folder = shutil.copytree(official_folder, tmp_path / "模型")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# 模型\n", encoding="utf-8")
    model = FGClip2Model.from_pretrained(folder)
    assert license_of_export(model, "有卡片") == "cc-by-nc-4.0"
    shutil.rmtree(folder)
    assert license_of_export(model, "已删除") == UNKNOWN


def test_graphs_go_beside_the_weights_and_onto_the_card(loaded, tmp_path, monkeypatch):
    def write_graphs(model, processor, folder, precisions, calibration):
        assert (model, processor, folder.name) == (*loaded, "onnx")
        folder.mkdir()
        (folder / "precisions").write_text(" ".join(precisions))

    monkeypatch.setattr(export, "export_onnx", write_graphs)
    folder = export_checkpoint(*loaded, tmp_path / "图", onnx=["fp32", "int8", "fp32"])
    assert (folder / "onnx" / "precisions").read_text() == "fp32 int8"
    english, chinese = (folder / "README.md").read_text(encoding="utf-8").split("## 中文")
    assert "ONNX graphs (fp32, int8)" in english
    assert "ONNX 计算图（fp32, int8）" in chinese
    for text in (english, chinese):
        assert 'OnnxEmbedder.from_pretrained("onnx", precision="fp32")' in text
    plain = export_checkpoint(*loaded, tmp_path / "无图")
    assert "onnx" not in (plain / "README.md").read_text(encoding="utf-8")


def test_a_calibration_goes_along_with_its_own_weights(loaded, official_folder, tmp_path):
    fingerprint, name = fingerprint_and_name(*loaded)
    calibration = level_calibration(fingerprint, name, loaded[1].image_processor.max_num_patches)
    folder = export_checkpoint(*loaded, tmp_path / "校准", calibration=calibration)
    embedder = FGClip2Embedder.from_pretrained(folder, device="cpu")
    assert embedder.calibration == calibration
    assert not (export_checkpoint(*loaded, tmp_path / "无") / CALIBRATION_FILE).exists()
    other = level_calibration("0" * 64, "别的", None)
    with pytest.raises(ValueError, match=r"is of the model '别的' \(fingerprint 00000000\), not of"):
        export_checkpoint(*loaded, tmp_path / "错", calibration=other)
    assert not (tmp_path / "错").exists()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (
            {"license": "Apache 2.0"},
            "`license` must be an identifier of the hub such as 'apache-2.0'.*got 'Apache 2.0'",
        ),
        ({"license": ""}, "`license` must be"),
        ({"base_model": "我的/模型"}, "`base_model` must be ids of the hub.*got '我的/模型'"),
        ({"datasets": ["acme/a", "a b"]}, "`datasets` must be ids of the hub.*got 'a b'"),
    ],
)
def test_a_card_that_the_hub_would_refuse(facts, message, loaded, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_checkpoint(*loaded, tmp_path / "out", **facts)
    assert list(tmp_path.iterdir()) == []


def test_facts_and_results_reach_the_card(loaded, tmp_path):
    scores = [
        ("lit-cn", "retrieval", "zh", "text_to_image/recall@1", 0.5),
        ("缩略", "matching", "en", "accuracy", 0.25),
    ]
    facts = {"base_model": "qihoo360/fg-clip2-base", "datasets": ["acme/pairs"], "results": scores}
    card = ModelCard.load(export_checkpoint(*loaded, tmp_path / "模型", "cc-by-4.0", **facts) / "README.md")
    assert (card.data.base_model, card.data.datasets) == ("qihoo360/fg-clip2-base", ["acme/pairs"])
    assert card.data.model_name == "模型"
    first, second = card.data.eval_results
    assert (first.dataset_type, first.metric_type, first.metric_value) == ("lit-cn", "text_to_image/recall@1", 0.5)
    assert (second.task_type, second.dataset_name) == ("matching", "缩略 (en)")
    assert card.text.count("| lit-cn | text_to_image/recall@1 | 50.0 |") == 2  # once in each language
    assert stated_license(tmp_path / "模型") == "cc-by-4.0"


@pytest.mark.parametrize(
    "card",
    [
        None,
        "",
        "no front matter\nlicense: mit-0\n",
        "---\nlicense: [a, b]\n---\n",
        "---\nlicense: Apache 2.0\n---\n",
        "---\nlicense: [a\n---\n",
        "---\n- license\n---\n",
        "---\n",
    ],
)
def test_a_card_without_a_licence(card, tmp_path):
    if card is not None:
        (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert stated_license(tmp_path) == UNKNOWN


@pytest.mark.parametrize(
    "front_matter", ["license: mit  # as in LICENSE\n", "tags: [a]\r\nlicense: 'mit'\r\n", '"license": mit\n']
)
def test_a_licence_as_yaml_has_it(front_matter, tmp_path):
    (tmp_path / "README.md").write_bytes(f"---\n{front_matter}---\n# 模型\n".encode())
    assert stated_license(tmp_path) == "mit"


def test_an_empty_folder_is_filled(loaded, tmp_path):
    (tmp_path / "空").mkdir()
    assert export_checkpoint(*loaded, tmp_path / "空") == tmp_path / "空"
    assert (tmp_path / "空" / "config.json").is_file()


def test_a_folder_in_use_is_refused(loaded, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not an empty folder"):
        export_checkpoint(*loaded, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_failure_leaves_nothing(loaded, tmp_path, monkeypatch):
    def fail(folder, family):
        assert (folder / "model.safetensors").is_file()
        raise OSError("no space left on device")

    monkeypatch.setattr(export, "write_code", fail)
    with pytest.raises(OSError, match="no space"):
        export_checkpoint(*loaded, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_other_models_are_refused(loaded, official_fgclip_folder, tmp_path):
    with pytest.raises(ValueError, match=r"must be an FGClip2Model.*, or an FGClipModel.*, got FGClip2VisionModel"):
        export_checkpoint(loaded[0].vision_model, loaded[1], tmp_path / "out")
    with pytest.raises(ValueError, match="got FGClip2Model and FGClipProcessor"):
        export_checkpoint(loaded[0], load(official_fgclip_folder)[1], tmp_path / "out")


def test_adapters_that_are_not_merged_are_refused(official_folder, loaded, tmp_path):
    peft = pytest.importorskip("peft")
    model = FGClip2Model.from_pretrained(official_folder)
    # By peft itself: model.add_adapter of a transformers release may want a peft that is not published yet.
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["q_proj"]), model)
    with pytest.raises(ValueError, match="merge_and_unload"):
        export_checkpoint(model, loaded[1], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
