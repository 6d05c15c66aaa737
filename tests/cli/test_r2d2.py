"""Random weights of R2D2 go through every command: convert, embed, search, bench, train and export."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fgclip2 import Embedder, R2D2Model
from fgclip2.hub.convert_r2d2 import SAFE_TORCH
from tests import golden_of_r2d2
from tests.golden_of_r2d2 import GOLDEN_R2D2
from tests.training.pairs import make_pairs

from .conftest import Command

IMAGES = "IQR_IQM_ICR_ICM_images"
HERE = ("--use_cpu", "--report_to", "none", "--disable_tqdm", "true", "--dataloader_pin_memory", "false")


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__ < SAFE_TORCH, reason=f"torch before {SAFE_TORCH} does not read pickles safely")
def test_random_weights_go_through_every_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_pairs(Path("pairs"), 12)
    Path("pairs/images").rename(IMAGES)
    labelled = Path("pairs/labelled.jsonl").read_text(encoding="utf-8")
    matching = "".join(line + "\n" for line in labelled.splitlines() if json.loads(line)["label"])
    for name, lines in (("ICM/val/long_itm_val.json", labelled), ("ICR/val/long_itr_val.json", matching)):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_text(lines, encoding="utf-8")

    torch.manual_seed(0)
    config = golden_of_r2d2.config()
    torch.save({"model": R2D2Model(config).state_dict()}, "r2d2.pth")
    config.save_pretrained("sizes")
    Command(Path("r2d2"))(
        *("convert", "r2d2.pth", "r2d2", "--vocabulary", GOLDEN_R2D2 / "vocab.txt", "--config", "sizes/config.json"),
        model=False,
    )

    def use(folder: str) -> np.ndarray:
        """Embed, search in both stages and measure by a folder; return the vectors of the pictures."""
        run = Command(Path(folder))
        run("embed", IMAGES, "--output", f"{folder}.npy")
        found = run.json("search", IMAGES, "左边红球右边绿球", "--top-k", 3, "--rerank", "model", "--rebuild")
        assert len(json.dumps(found)) > 100
        run("bench", "run", "icr", ".", "--preset", "r2d2", "--output", f"results of {folder}")
        run("bench", "run", "icm", ".", "--preset", "r2d2", "--output", f"results of {folder}")
        results = list(Path(f"results of {folder}").glob("**/*.json"))
        assert len(results) == 2
        return np.load(f"{folder}.npy")

    before = use("r2d2")
    assert before.shape == (12, 20)
    data = ("--train_data", "pairs/pairs.jsonl", "--images_folder", IMAGES, "--output_dir", "trained")
    size = ("--per_device_train_batch_size", 6, "--max_steps", 4, "--learning_rate", 3e-3, "--save_strategy", "no")
    result = Command(Path("r2d2")).json("train", *data, *size, *HERE, "--image_augmentation", "r2d2")
    assert result["steps"] == 4
    after = use("trained")
    assert not np.allclose(after, before, atol=1e-3)
    Command(Path("trained"))("export", "exported", "--license", "apache-2.0")
    np.testing.assert_allclose(use("exported"), after, atol=1e-6)
    one, other = R2D2Model.from_pretrained("trained"), R2D2Model.from_pretrained("exported")
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
    assert Embedder.from_pretrained("exported", device="cpu").encode_texts(["红球"]).shape == (1, 20)
    assert (Path("exported") / "modeling_r2d2.py").is_file()
