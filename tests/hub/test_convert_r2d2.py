"""Released R2D2 checkpoints, which are pickles, become folders of safetensors; what may run code is refused."""

import json
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from fgclip2 import R2D2Config, R2D2Model, R2D2Processor
from fgclip2.cli.main import app
from fgclip2.hub import convert_r2d2
from fgclip2.hub.convert_r2d2 import preset_of
from tests import golden_of_r2d2
from tests.golden_of_r2d2 import GOLDEN_R2D2

VOCABULARY = GOLDEN_R2D2 / "vocab.txt"


class RunsCode:
    def __reduce__(self):
        return print, ("the pickle ran",)


def write_checkpoint(path, extra=None, **changes):
    """A released checkpoint: the weights under "model", and what training left beside them."""
    weights = {**golden_of_r2d2.weights(), **changes}
    weights = {name: value for name, value in weights.items() if value is not None}
    torch.save({"model": weights, "epoch": 3, "config": {"batch_size": 32}, **(extra or {})}, path)
    return path


def test_a_released_checkpoint_becomes_a_folder(tmp_path):
    queue = torch.zeros(20, 8)
    source = write_checkpoint(tmp_path / "r2d2.pth", image_queue=queue, extra={"optimizer": {"state": {0: queue}}})
    left_out = convert_r2d2(source, tmp_path / "r2d2", VOCABULARY, golden_of_r2d2.config())
    positions = sorted(name for name in golden_of_r2d2.weights() if name.endswith("position_ids"))
    assert left_out == sorted(["image_queue", *positions])
    model, info = R2D2Model.from_pretrained(tmp_path / "r2d2", output_loading_info=True)
    assert not any(info.values())
    for name, tensor in golden_of_r2d2.model().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert model.config.vision_config.num_attention_heads == 4
    captions = golden_of_r2d2.results()["captions"]
    processor = R2D2Processor.from_pretrained(tmp_path / "r2d2")
    ids = processor(text=captions, padding="max_length")["input_ids"]
    assert torch.equal(ids, golden_of_r2d2.tensors("inputs")["input_ids"])
    assert processor.image_processor.size == {"height": 32, "width": 32}
    card = ModelCard.load(tmp_path / "r2d2" / "README.md")
    assert card.data.license == "unknown"
    assert "- `image_queue`\n" in card.text


def test_by_the_configuration_of_a_file(tmp_path):
    golden_of_r2d2.config().save_pretrained(tmp_path / "sizes")
    source = write_checkpoint(tmp_path / "r2d2.pth")
    convert_r2d2(source, tmp_path / "out", VOCABULARY, tmp_path / "sizes" / "config.json")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["R2D2Model"]


@pytest.mark.parametrize("preset", ["base", "large", "prd2"])
def test_published_sizes_are_recognised(preset):
    keys = json.loads((GOLDEN_R2D2 / "official_keys.json").read_text())[preset]
    found = preset_of({name: tuple(shape) for name, shape in keys.items()}, GOLDEN_R2D2)
    assert found.to_dict() == R2D2Config.from_preset(preset).to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"itm_head.bias": None}, r"has 1 tensors that don't fit .*: itm_head.bias: missing, expected \(2,\)"),
        ({"temp": torch.tensor(float("nan"))}, "has weights that are not finite, e.g. temp"),
        ({"text_proj.bias": torch.zeros(3)}, r"text_proj.bias: \(3,\), expected \(20,\)"),
    ],
)
def test_weights_that_do_not_fit(changes, message, tmp_path):
    source = write_checkpoint(tmp_path / "r2d2.pth", **changes)
    with pytest.raises(ValueError, match=message):
        convert_r2d2(source, tmp_path / "out", VOCABULARY, golden_of_r2d2.config())
    assert [path.name for path in tmp_path.iterdir()] == ["r2d2.pth"]


def test_what_runs_code_or_is_no_pickle_is_refused(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "r2d2.pth", extra={"args": RunsCode()})
    with pytest.raises(ValueError, match="can't be read as weights alone"):
        convert_r2d2(source, tmp_path / "out", VOCABULARY, golden_of_r2d2.config())
    assert "the pickle ran" not in capsys.readouterr().out
    for content in (b"", b"no pickle"):
        source.write_bytes(content)
        with pytest.raises(ValueError, match="can't be read as weights alone"):
            convert_r2d2(source, tmp_path / "out", VOCABULARY, golden_of_r2d2.config())
    torch.save([1], source)
    with pytest.raises(ValueError, match="must have tensors by their names, alone or under 'model'"):
        convert_r2d2(source, tmp_path / "out", VOCABULARY, golden_of_r2d2.config())


def test_wrong_arguments(tmp_path):
    source = write_checkpoint(tmp_path / "r2d2.pth")
    with pytest.raises(ValueError, match=r"has the sizes of no preset \(base, large, prd2\), .*\(32, 3, 8, 8\): pass"):
        convert_r2d2(source, tmp_path / "out", VOCABULARY)
    with pytest.raises(ValueError, match=r"`config` must be one of base, large, prd2, or the path"):
        convert_r2d2(source, tmp_path / "out", VOCABULARY, "huge")
    with pytest.raises(FileNotFoundError, match="there is no vocabulary"):
        convert_r2d2(source, tmp_path / "out", tmp_path / "vocab.txt", golden_of_r2d2.config())
    shutil.copyfile(VOCABULARY, tmp_path / "vocab.txt")
    with (tmp_path / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("more\n")
    with pytest.raises(ValueError, match="has 85 tokens, and the model 84"):
        convert_r2d2(source, tmp_path / "out", tmp_path / "vocab.txt", golden_of_r2d2.config())


def test_by_the_command(tmp_path):
    golden_of_r2d2.config().save_pretrained(tmp_path / "sizes")
    source = str(write_checkpoint(tmp_path / "r2d2.pth"))
    command = ["convert", source, str(tmp_path / "out"), "--json"]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    assert "pass --vocabulary vocab.txt" in refused.stderr
    options = ["--vocabulary", str(VOCABULARY), "--config", str(tmp_path / "sizes" / "config.json")]
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["left_out"]) == 4
    refused = CliRunner().invoke(app, ["convert", str(tmp_path / "out"), str(tmp_path / "again"), *options])
    assert "are for a .pth file of R2D2" in refused.stderr
