"""Cards of adapters and of trained checkpoints: ours, with what they were made of, without paths of this machine."""

from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from fgclip2 import FGClip2Processor, FGClip2Trainer, FGClip2TrainingArguments, embedded_checkpoint
from fgclip2.training import FGClip2ForTraining
from fgclip2.training.card import write_card

pytest.importorskip("peft")

from fgclip2.training.lora import add_lora, lora_config, save_lora


@pytest.fixture(scope="module")
def model():
    return FGClip2ForTraining.from_pretrained(embedded_checkpoint(), dtype=torch.float32)


@pytest.fixture
def adapted():
    base = FGClip2ForTraining.from_pretrained(embedded_checkpoint(), dtype=torch.float32)
    return add_lora(base, lora_config(rank=2, train_heads=False))


def read_card(folder: Path, *hidden: Path | str) -> ModelCard:
    text = (folder / "README.md").read_text(encoding="utf-8")
    for path in (*hidden, folder, embedded_checkpoint(), Path.cwd()):
        assert str(path) not in text
    card = ModelCard(text)
    assert card.data.language == ["en", "zh"]
    assert "## 中文" in text
    return card


def test_an_adapter_has_our_card(adapted, tmp_path):
    for _ in range(2):  # saved again, PEFT would add to it
        save_lora(adapted, tmp_path / "我的", data=["数据/对.csv", "/data/FineHARD"], license="cc-by-4.0")
    card = read_card(tmp_path / "我的", "/data")
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "peft"
    assert "base_model" not in card.data.to_dict()
    assert "# 我的" in card.text
    for line in (
        "- Base model: the checkpoint inside the package `fgclip2`",
        "- 基础模型：软件包 `fgclip2` 内置的检查点",
        "- Data: `对.csv`, `FineHARD`",
        "- Licence of the weights: cc-by-4.0",
    ):
        assert line in card.text


def test_a_base_of_the_hub_is_named_and_one_of_this_machine_only_by_its_folder(tmp_path):
    for number, (base, line) in enumerate(
        [
            ("qihoo360/fg-clip2-base", "- Base model: `qihoo360/fg-clip2-base`"),
            ("/home/someone/模型", "- Base model: a checkpoint in a folder `模型`"),
            (str(tmp_path), f"- Base model: a checkpoint in a folder `{tmp_path.name}`"),
            (None, "- Base model: not stated"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_card(folder, base, is_adapter=False)
        card = read_card(folder, "/home", tmp_path)
        assert line in card.text
        assert card.data.to_dict().get("base_model") == (base if number == 0 else None)
        assert "- Data: not stated" in card.text


def test_a_card_that_is_there_stays(adapted, tmp_path):
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    save_lora(adapted, tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("kind", ["adapter", "checkpoint"])
def test_the_trainer_writes_it(kind, adapted, model, tmp_path):
    args = FGClip2TrainingArguments(str(tmp_path / "run"), use_cpu=True, report_to=[])
    processor = FGClip2Processor.from_pretrained(embedded_checkpoint())
    trainer = FGClip2Trainer(adapted if kind == "adapter" else model, args, processing_class=processor)
    trainer.data_names = [str(tmp_path / "训练.jsonl")]
    trainer.save_model()
    trainer.create_model_card(model_name="other")  # as a push to the hub does
    card = read_card(tmp_path / "run", tmp_path)
    assert "- Data: `训练.jsonl`" in card.text
    assert ("adapter (LoRA)" in card.text) == (kind == "adapter")


def test_an_adapter_on_a_folder_of_this_machine_is_not_pushed(adapted, tmp_path):
    with pytest.raises(ValueError, match=r"which is no id of the hub: nobody else could load the adapter"):
        adapted.push_to_hub("someone/adapter")
    args = FGClip2TrainingArguments(str(tmp_path / "run"), use_cpu=True, report_to=[], push_to_hub=True)
    processor = FGClip2Processor.from_pretrained(embedded_checkpoint())
    with pytest.raises(ValueError, match=r"Start from the id, or publish the merged model"):
        FGClip2Trainer(adapted, args, processing_class=processor)
