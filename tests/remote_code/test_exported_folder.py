"""An exported folder, loaded by interpreters of their own: without this package, with it, and on other releases."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from tests.checkpoints import load
from tests.interpreters import run_python
from tests.remote_code import check_stock
from tests.remote_code.check_exported import LABELS, compute, images

CHECK = Path(__file__).parent / "check_exported.py"
# scripts/compat.py names the interpreters of its environments here; this package is not installed in them.
OTHER_PYTHONS = [path for path in os.environ.get("FGCLIP2_REMOTE_CODE_PYTHONS", "").split(os.pathsep) if path]


def run(python: str, *arguments: str | Path, cache: Path, cwd: Path | None = None, may_ask: bool = False) -> None:
    """Run an interpreter with an empty cache of the hub, offline, and show what it printed if it fails.

    Args:
        may_ask: Whether transformers may ask if the folder's code is to be run.
    """
    hidden = {"PYTHONPATH", "HF_HOME", "HF_HUB_CACHE", "HF_MODULES_CACHE", "TRANSFORMERS_CACHE"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    if python == sys.executable:
        process = run_python(*arguments, env=environment, cwd=cwd)
    else:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.run([python, *arguments], env=environment, cwd=cwd, text=True, check=False, **pipes)
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-6000:]
    # Asked without a terminal, transformers takes the answer for "no" and goes on.
    assert may_ask or "Do you wish to run the custom code" not in process.stdout


class Exported(NamedTuple):
    family: str
    folder: Path
    expected: dict[str, torch.Tensor]  # what the package itself computes from the checkpoint that was exported


@pytest.fixture(scope="module")
def exported(request) -> Exported:
    suffix = "folder" if request.param == "fgclip2" else f"{request.param}_folder"
    model, processor = load(request.getfixturevalue(f"official_{suffix}"))
    model.eval()
    outputs = compute(model, processor, processor.tokenizer, processor.image_processor)
    assert ("scores" in outputs) == (request.param in ("r2d2", "stage"))
    with torch.no_grad():
        texts = [f"This is a photo of {label}." for label in LABELS]
        inputs = processor(text=texts, images=images()[:1])
        forward = model(**inputs)
    logits = forward.logits_per_image[0]
    outputs["pipeline_scores"] = logits.sigmoid() if model.score_function == "sigmoid" else logits.softmax(-1)
    outputs["pipeline_features"] = forward.image_embeds
    return Exported(request.param, request.getfixturevalue(f"exported_{suffix}"), outputs)


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        if tensor.is_floating_point() and name != "pixel_values":
            torch.testing.assert_close(
                actual[name], tensor, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
        else:
            assert torch.equal(actual[name], tensor), name


# One way of the other families by default: how a folder is exported does not depend on the family.
MORE = {"marks": pytest.mark.slow}


@pytest.mark.parametrize(
    ("exported", "way"),
    [
        ("fgclip2", "remote-code"),
        ("fgclip2", "package"),
        ("fgclip2", "package-and-remote-code"),
        ("fgclip", "remote-code"),
        ("r2d2", "remote-code"),
        *(pytest.param("stage", way, **MORE) for way in ("remote-code", "package", "package-and-remote-code")),
        pytest.param("r2d2", "package", **MORE),
        pytest.param("r2d2", "package-and-remote-code", **MORE),
        pytest.param("fgclip", "package", **MORE),
        pytest.param("fgclip", "package-and-remote-code", **MORE),
    ],
    indirect=["exported"],
)
def test_in_a_fresh_interpreter(exported, way, tmp_path):
    output = tmp_path / "outputs.safetensors"
    run(sys.executable, CHECK, exported.folder, output, way, cache=tmp_path / "cache")
    expected = dict(exported.expected)
    if exported.family == "stage" and way != "remote-code":
        del expected["scores"]  # by the package's own AutoModel such a folder is its dual encoder
    assert_same(load_file(output), expected)


@pytest.mark.parametrize("exported", ["fgclip2", "fgclip", "r2d2", "stage"], indirect=True)
@pytest.mark.parametrize("python", OTHER_PYTHONS)
def test_in_other_environments(python, exported, tmp_path):
    output = tmp_path / "outputs.safetensors"
    run(python, CHECK, exported.folder, output, "remote-code", cache=tmp_path / "cache")
    assert_same(load_file(output), exported.expected)


@pytest.fixture(scope="module")
def stock(exported_folder, exported_fgclip_folder, exported_r2d2_folder) -> tuple[list[Path], dict[str, torch.Tensor]]:
    """Exported folders of all families, and what this package's own classes make of them."""
    folders, outputs = [exported_folder, exported_fgclip_folder, exported_r2d2_folder], {}
    for number, folder in enumerate(folders):
        model, processor = load(folder)
        found = check_stock.compute(model.eval(), processor.tokenizer, processor.image_processor)
        # SigLIP 2's budget, where ours chooses one by the size of each image.
        if model.config.model_type == "fgclip2":
            pixels = processor.image_processor(check_stock.images(), max_num_patches=256, return_tensors="pt")
            found |= {f"{name} 0": tensor for name, tensor in pixels.items()}
            found["image 0"] = model.get_image_features(**pixels).detach()
        outputs |= {f"{number} {name}": tensor for name, tensor in found.items()}
    return folders, outputs


def assert_stock_classes_agree(python: str, stock: tuple[list[Path], dict[str, torch.Tensor]], tmp_path: Path) -> None:
    folders, expected = stock
    output = tmp_path / "stock.safetensors"
    # Transformers 5 asks for the sake of the configuration, and goes on without it.
    run(python, check_stock.__file__, output, *folders, cache=tmp_path / "cache", may_ask=True)
    actual = load_file(output)
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        if name.startswith(
            ("1 pixel_values", "2 pixel_values")
        ):  # CLIP's processor: releases differ by one level of 255 here and there
            difference = (actual[name] - tensor).abs()
            assert difference.max() < 0.016, name  # a level is 1 / 255 / 0.26 at most
            assert (difference > 1e-5).float().mean() < 0.03, name
        elif tensor.is_floating_point() and not name.startswith("0 pixel_values"):
            allowed = 0.02 if name.startswith(("1 image", "2 image")) else 1e-5  # of those pixels
            message = f"{name}: {{}}".format
            torch.testing.assert_close(actual[name], tensor, rtol=0, atol=allowed, msg=message)
        else:
            assert torch.equal(actual[name], tensor), name


def test_stock_classes_read_the_same(stock, tmp_path):
    assert_stock_classes_agree(sys.executable, stock, tmp_path)


@pytest.mark.parametrize("python", OTHER_PYTHONS)
def test_stock_classes_read_the_same_in_other_environments(python, stock, tmp_path):
    assert_stock_classes_agree(python, stock, tmp_path)


@pytest.mark.parametrize("exported", ["fgclip2", pytest.param("fgclip", **MORE)], indirect=True)
def test_from_the_cache_of_the_hub(exported, tmp_path):
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "hub" / "models--acme--tiny"
    shutil.copytree(exported.folder, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    output = tmp_path / "outputs.safetensors"
    run(sys.executable, CHECK, "acme/tiny", output, "remote-code", cache=tmp_path / "cache", cwd=tmp_path)
    assert_same(load_file(output), exported.expected)


def snippets(folder: Path, language: str) -> str:
    english, chinese = (folder / "README.md").read_text(encoding="utf-8").split("## 中文")
    return "\n".join(re.findall(r"```python\n(.*?)```", {"en": english, "zh": chinese}[language], re.DOTALL))


@pytest.mark.parametrize(
    ("exported", "language"),
    [
        ("fgclip2", "en"),
        ("fgclip2", "zh"),
        *(pytest.param(family, language, **MORE) for family in ("fgclip", "r2d2") for language in ("en", "zh")),
    ],
    indirect=["exported"],
)
def test_snippets_of_the_model_card(exported, language, tmp_path):
    width = exported.expected["image"].shape[1]
    parts = f"similarity.shape == (2, 2) and caption_features.shape == (1, {width})"
    checks = f"""
assert probabilities.shape == (1, 2) and (0 < probabilities).all() and (probabilities < 1).all()
assert {"scores_of_pairs.shape == (2,)" if exported.family == "r2d2" else parts}
assert len(scores) == 2 and all(0 < row["score"] < 1 for row in scores)
"""
    if exported.family != "fgclip2":
        checks += "assert abs(probabilities.sum() - 1) < 1e-5 and abs(sum(row['score'] for row in scores) - 1) < 1e-5\n"
    code = "import sys; sys.modules['fgclip2'] = None\n" + snippets(exported.folder, language) + checks
    run(sys.executable, "-c", code, cache=tmp_path / "cache", cwd=exported.folder)


@pytest.mark.parametrize("exported", ["fgclip2", "fgclip", "r2d2"], indirect=True)
def test_snippets_of_both_languages_do_the_same(exported):
    def without_words(code: str) -> str:
        return re.sub(r'"[^"]*"|#.*', "", code)

    assert without_words(snippets(exported.folder, "en")) == without_words(snippets(exported.folder, "zh"))


@pytest.mark.parametrize(
    ("exported", "languages", "facts"),
    [
        (
            "fgclip2",
            ["en", "zh"],
            [
                "A bilingual (English and Chinese) image-text model of the FG-CLIP 2 architecture",
                "the same pixels for a `max_num_patches` that is an integer",
                "`max_num_patches` 为整数时像素也相同",
            ],
        ),
        (
            "fgclip",
            ["en"],
            [
                "squares of 40 pixels, whatever their aspect ratio. Texts should be English",
                "is said in every call, and pixels within one level of 255",
                "像素相差不超过 255 级中的一级",
            ],
        ),
        (
            "r2d2",
            ["zh"],
            ["Texts should be Chinese; they have up to 24 tokens", "pixels within one level of 255"],
        ),
    ],
    indirect=["exported"],
)
def test_model_card_has_the_fields_of_the_hub(exported, languages, facts):
    card = ModelCard.load(exported.folder / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.language == languages
    assert exported.family in card.data.tags
    assert card.data.pipeline_tag == "zero-shot-image-classification"
    assert "revision=" in card.text
    assert all(fact in card.text for fact in facts)
    weights = load_file(exported.folder / "model.safetensors").values()
    assert card.text.count(f"{sum(tensor.numel() for tensor in weights):,}") == 2  # once in each language
