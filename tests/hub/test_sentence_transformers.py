"""Folders that sentence-transformers loads: what is written, and, in an environment that has it, what it computes."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fgclip2 import Embedder, FGClip2Model, FGClip2Processor, FGClipModel
from fgclip2.hub import convert_checkpoint
from fgclip2.training import FGClip2Trainer, FGClip2TrainingArguments
from scripts.environments import ROOT, make_environment
from tests.hub.check_sentence_transformers import TEXTS

CHECK = Path(__file__).with_name("check_sentence_transformers.py")
FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")


@pytest.fixture(scope="module")
def folders(official_folder, exported_folder, tmp_path_factory) -> dict[str, Path]:
    """The same checkpoint as everything writes it that writes checkpoints."""
    written = tmp_path_factory.mktemp("sentence_transformers")
    embedder = Embedder.from_pretrained(official_folder, device="cpu")
    args = FGClip2TrainingArguments(str(written / "run"), use_cpu=True, report_to=[])
    trainer = FGClip2Trainer(FGClip2Model.from_pretrained(official_folder), args, processing_class=embedder.processor)
    trainer.save_model(str(written / "trained"))
    return {
        "exported": exported_folder,
        "saved": embedder.save_pretrained(written / "saved"),
        "converted": convert_checkpoint(official_folder, written / "converted"),
        "trained": written / "trained",
    }


def test_every_folder_says_how_to_load_it(folders, folders_of_fgclip, tmp_path):
    for folder in (*folders.values(), *folders_of_fgclip.values()):
        modules, settings, model = (json.loads((folder / name).read_text(encoding="utf-8")) for name in FILES)
        # Modules of the library itself: it would refuse others, or want to run them.
        assert [module["type"].partition(".")[0] for module in modules] == ["sentence_transformers"] * 2
        assert model["similarity_fn_name"] == "cosine"
        for modality in ("text", "image"):
            use = settings["modality_config"][modality]
            assert all(callable(getattr(cls, use["method"])) for cls in (FGClip2Model, FGClipModel))
            assert use["method_output_name"] == "pooler_output"
    FGClip2Processor.from_pretrained(folders["exported"]).save_pretrained(tmp_path)
    assert {name for name in FILES if (tmp_path / name).is_file()} == set(FILES)


@pytest.fixture(scope="module")
def folders_of_fgclip(exported_fgclip_folder, converted_fgclip_folder) -> dict[str, Path]:
    return {"exported": exported_fgclip_folder, "converted": converted_fgclip_folder}


@pytest.mark.slow
def test_sentence_transformers_computes_the_same(
    folders, folders_of_fgclip, photo, official_folder, official_fgclip_folder, tmp_path
):
    """The exported folders without this package, which can't be imported there; the others with it."""
    python = make_environment(ROOT / ".cache" / "sentence_transformers", ["sentence-transformers>=6.2"])
    picture = tmp_path / "图.png"
    photo.save(picture)
    expected = {}
    for official, same in ((official_folder, folders), (official_fgclip_folder, folders_of_fgclip)):
        embedder = Embedder.from_pretrained(official, device="cpu")
        images = embedder.encode_images([photo, photo.rotate(90, expand=True)])
        texts = embedder.encode_texts(TEXTS, role="caption")
        long = embedder.encode_texts(TEXTS, role="long_caption")
        vectors = {"texts": texts, "images": images, "paths": images[:1], "long": long, "similarity": texts @ images.T}
        expected |= dict.fromkeys(same.values(), vectors)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": ""}
    ways = {"remote-code": [folders["exported"], folders_of_fgclip["exported"]], "package": list(expected)}
    for way, chosen in ways.items():
        output = tmp_path / f"{way}.safetensors"
        if way == "package":
            environment["PYTHONPATH"] = str(ROOT / "src")
        done = subprocess.run(
            [python, CHECK, way, output, picture, *chosen], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        found = load_file(output)
        for folder in chosen:
            for name, vectors in expected[folder].items():
                np.testing.assert_allclose(found[f"{folder} {name}"], vectors, rtol=0, atol=1e-5, err_msg=str(folder))
    environment["PYTHONPATH"] = str(ROOT / "src")
    verify = "import sys; from fgclip2.hub import verify_folder; print(sorted(verify_folder(sys.argv[1])))"
    for folder in ways["remote-code"]:
        done = subprocess.run(
            [python, "-c", verify, folder], env=environment, capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == "['sentence_transformers', 'transformers']", done.stderr[-4000:]
