"""Released R2D2 checkpoints, which are pickles, become folders of safetensors; what may run code is refused."""

import json

import pytest
import torch
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from fgclip2 import R2D2Config, R2D2Model, R2D2Processor
from fgclip2.cli.main import app
from fgclip2.hub import convert_r2d2
from fgclip2.hub.convert_r2d2 import SAFE_TORCH, preset_of, read_tokenizer, read_weights
from tests import golden_of_r2d2
from tests.golden_of_r2d2 import GOLDEN_R2D2

VOCABULARY = GOLDEN_R2D2 / "vocab.txt"
reads_pickles = pytest.mark.skipif(
    torch.__version__ < SAFE_TORCH, reason=f"torch before {SAFE_TORCH} does not read pickles safely (CVE-2026-24747)"
)


class RunsCode:
    def __reduce__(self):
        return print, ("the pickle ran",)


def write_checkpoint(path, extra=None, **changes):
    """A released checkpoint: the weights under "model", and what training left beside them."""
    weights = {**golden_of_r2d2.weights(), **changes}
    weights = {name: value for name, value in weights.items() if value is not None}
    torch.save({"model": weights, "epoch": 3, "config": {"batch_size": 32}, **(extra or {})}, path)
    return path


@reads_pickles
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


@reads_pickles
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
        (
            {"text_proj.bias": torch.zeros(20).to_sparse()},
            r"text_proj.bias must be a dense .*, got .*, torch.sparse_coo",
        ),
        ({"text_proj.bias": torch.zeros(20, dtype=torch.complex64)}, r"text_proj.bias must be .*, got torch.complex64"),
        ({"text_proj.bias": torch.zeros(20).long()}, r"text_proj.bias must be a dense .*, got torch.int64"),
        ({"text_proj.bias": torch.zeros(20, device="meta")}, r"text_proj.bias must be a dense .*, on meta"),
    ],
)
@reads_pickles
def test_weights_that_do_not_fit(changes, message, tmp_path):
    source = write_checkpoint(tmp_path / "r2d2.pth", **changes)
    with pytest.raises(ValueError, match=message):
        convert_r2d2(source, tmp_path / "out", VOCABULARY, golden_of_r2d2.config())
    assert [path.name for path in tmp_path.iterdir()] == ["r2d2.pth"]


@reads_pickles
def test_what_runs_code_is_refused(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "r2d2.pth", extra={"args": RunsCode()})
    with pytest.raises(ValueError, match=r"has objects other than tensors and plain containers \(.*\)") as refused:
        convert_r2d2(source, tmp_path / "out", VOCABULARY, golden_of_r2d2.config())
    assert "builtins.print" in str(refused.value)
    assert "weights_only" not in str(refused.value)  # torch's message advises to set it to False
    assert "\x1b" not in str(refused.value)
    assert "the pickle ran" not in capsys.readouterr().out


@reads_pickles
@pytest.mark.parametrize(
    "content",
    [b"", b"no pickle", b"<!DOCTYPE html><title>Quota exceeded</title>", b"\x80\x02}q", b"PK\x05\x06" + bytes(18)],
)
def test_what_is_no_pickle_is_refused(content, tmp_path):
    (tmp_path / "r2d2.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"r2d2.pth is damaged, or no file of torch.save \(an HTML page"):
        read_weights(tmp_path / "r2d2.pth")


@reads_pickles
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "must have tensors by their names, alone or under 'model', got none"),
        ({"model": [1]}, "must have tensors by their names, alone or under 'model', got none"),
        ({"model": {"temp": 1.0}}, "must have tensors by their names, alone or under 'model', got none"),
        ({"model": {0: torch.zeros(2)}}, "must have tensors by their names, got one by 0"),
    ],
)
def test_other_content_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "r2d2.pth")
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path / "r2d2.pth")


def test_an_older_torch_reads_no_pickle(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.9.1+cpu"))
    message = r"pickles are read by torch 2.10 or newer \(CVE-2026-24747\), this is 2.9.1\+cpu: upgrade"
    with pytest.raises(ImportError, match=message):
        read_weights(tmp_path / "r2d2.pth")


@reads_pickles
def test_tensors_that_share_memory(tmp_path):
    both = torch.arange(4.0)
    source = write_checkpoint(tmp_path / "r2d2.pth", **{"itm_head.bias": both[:2], "itm_head_i.bias": both[1:3]})
    convert_r2d2(source, tmp_path / "out", VOCABULARY, golden_of_r2d2.config())
    state = R2D2Model.from_pretrained(tmp_path / "out").state_dict()
    assert state["itm_head.bias"].tolist() == [0, 1]
    assert state["itm_head_i.bias"].tolist() == [1, 2]


@reads_pickles
def test_names_of_the_pickle_cannot_change_the_card(tmp_path):
    source = write_checkpoint(tmp_path / "r2d2.pth", **{"a`\n# Licence: MIT\u202e": torch.zeros(1)})
    convert_r2d2(source, tmp_path / "out", VOCABULARY, golden_of_r2d2.config())
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "- `a'\\n# Licence: MIT\\u202e`\n" in card


@reads_pickles
def test_wrong_arguments(tmp_path):
    source = write_checkpoint(tmp_path / "r2d2.pth")
    with pytest.raises(ValueError, match=r"has the sizes of no preset \(base, large, prd2\), .*\(32, 3, 8, 8\): pass"):
        convert_r2d2(source, tmp_path / "out", VOCABULARY)
    with pytest.raises(ValueError, match=r"`config` must be one of base, large, prd2, or the path"):
        convert_r2d2(source, tmp_path / "out", VOCABULARY, "huge")
    with pytest.raises(FileNotFoundError, match="there is no vocabulary"):
        convert_r2d2(source, tmp_path / "out", tmp_path / "vocab.txt", golden_of_r2d2.config())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda lines: [*lines, "more"], "85 tokens, up to id 84"),
        (lambda lines: lines[:-1], "83 tokens, up to id 82"),
        (lambda lines: [*lines[:-1], lines[-2]], "83 tokens, up to id 83"),
    ],
)
def test_the_vocabulary_of_another_model(change, found, tmp_path):
    lines = VOCABULARY.read_text(encoding="utf-8").splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join(change(lines)) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"has {found}, and the model 84: it is the vocabulary of another"):
        read_tokenizer(tmp_path / "vocab.txt", golden_of_r2d2.config())


@reads_pickles
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
    refused = CliRunner().invoke(app, ["convert", str(tmp_path / "typo.pth"), *options])
    assert refused.exit_code == 1
    assert "there is no" in refused.stderr
    assert "typo.pth" in refused.stderr
