"""An exported folder, loaded by interpreters of their own: without this package, with it, and on other releases."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from fgclip2 import FGClip2ImageProcessor, FGClip2Model, FGClip2Processor, FGClip2Tokenizer
from tests.remote_code.check_exported import LABELS, compute, images

CHECK = Path(__file__).parent / "check_exported.py"
# scripts/compat.py names the interpreters of its environments here; this package is not installed in them.
OTHER_PYTHONS = [path for path in os.environ.get("FGCLIP2_REMOTE_CODE_PYTHONS", "").split(os.pathsep) if path]


def run(arguments: list[str], cache: Path, cwd: Path | None = None) -> None:
    """Run Python with an empty cache of the hub, offline, and show what it printed if it fails."""
    hidden = {"PYTHONPATH", "HF_HOME", "HF_HUB_CACHE", "HF_MODULES_CACHE", "TRANSFORMERS_CACHE"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        arguments, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-6000:]
    # Asked without a terminal, transformers takes the answer for "no" and goes on.
    assert "Do you wish to run the custom code" not in process.stdout


@pytest.fixture(scope="module")
def expected(official_folder) -> dict[str, torch.Tensor]:
    """What the package itself computes from the checkpoint that was exported."""
    model = FGClip2Model.from_pretrained(official_folder).eval()
    processor = FGClip2Processor.from_pretrained(official_folder)
    tokenizer = FGClip2Tokenizer.from_pretrained(official_folder)
    outputs = compute(model, processor, tokenizer, FGClip2ImageProcessor())
    with torch.no_grad():
        texts = [f"This is a photo of {label}." for label in LABELS]
        inputs = processor(text=texts, images=images()[:1])
        forward = model(**inputs)
    outputs["pipeline_scores"] = forward.logits_per_image[0].sigmoid()
    outputs["pipeline_features"] = forward.image_embeds
    return outputs


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        if tensor.is_floating_point() and name != "pixel_values":
            torch.testing.assert_close(
                actual[name], tensor, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
        else:
            assert torch.equal(actual[name], tensor), name


@pytest.mark.parametrize("way", ["remote-code", "package", "package-and-remote-code"])
def test_in_a_fresh_interpreter(way, exported_folder, expected, tmp_path):
    output = tmp_path / "outputs.safetensors"
    run([sys.executable, str(CHECK), str(exported_folder), str(output), way], tmp_path / "cache")
    assert_same(load_file(output), expected)


@pytest.mark.parametrize("python", OTHER_PYTHONS)
def test_in_other_environments(python, exported_folder, expected, tmp_path):
    output = tmp_path / "outputs.safetensors"
    run([python, str(CHECK), str(exported_folder), str(output), "remote-code"], tmp_path / "cache")
    assert_same(load_file(output), expected)


def test_from_the_cache_of_the_hub(exported_folder, expected, tmp_path):
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "hub" / "models--acme--fgclip2-tiny"
    shutil.copytree(exported_folder, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    output = tmp_path / "outputs.safetensors"
    run([sys.executable, str(CHECK), "acme/fgclip2-tiny", str(output), "remote-code"], tmp_path / "cache", tmp_path)
    assert_same(load_file(output), expected)


def snippets(folder: Path, language: str) -> str:
    english, chinese = (folder / "README.md").read_text(encoding="utf-8").split("## 中文")
    return "\n".join(re.findall(r"```python\n(.*?)```", {"en": english, "zh": chinese}[language], re.DOTALL))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_snippets_of_the_model_card(language, exported_folder, tmp_path):
    checks = """
assert probabilities.shape == (1, 2) and (0 < probabilities).all() and (probabilities < 1).all()
assert similarity.shape == (2, 2) and caption_features.shape == (1, 32)
assert len(scores) == 2 and all(0 < row["score"] < 1 for row in scores)
"""
    code = "import sys; sys.modules['fgclip2'] = None\n" + snippets(exported_folder, language) + checks
    run([sys.executable, "-c", code], tmp_path / "cache", cwd=exported_folder)


def test_snippets_of_both_languages_do_the_same(exported_folder):
    def without_words(code: str) -> str:
        return re.sub(r'"[^"]*"|#.*', "", code)

    assert without_words(snippets(exported_folder, "en")) == without_words(snippets(exported_folder, "zh"))


def test_model_card_has_the_fields_of_the_hub(exported_folder):
    card = ModelCard.load(exported_folder / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.language == ["en", "zh"]
    assert card.data.pipeline_tag == "zero-shot-image-classification"
    assert "revision=" in card.text
