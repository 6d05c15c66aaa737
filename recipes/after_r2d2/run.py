"""Short runs of R2D2 after its description, from random weights on bundled drawings: does each term train?

    python -m recipes.after_r2d2.run --output recipes/after_r2d2/results

Each arm is a run of the package's trainer, and has a JSON file; those that are there are not run again. Printed is a
table of all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fgclip2 import R2D2Config, R2D2ImageProcessor, R2D2Model, R2D2Processor, R2D2Tokenizer
from fgclip2.assets import demo_images
from fgclip2.data.records import Record, RecordDataset
from fgclip2.files import read_json, replacing
from fgclip2.languages import LANGUAGES
from fgclip2.training import FGClip2Trainer, FGClip2TrainingArguments
from fgclip2.training.pair_collator import PairCollator
from fgclip2.training.sampler import DrawnRecord

MASKED = 0.3  # of the tokens
SIDE = 32  # pixels of an image, of which each thing has a half
THINGS = 12
HELD_OUT = 5  # one of so many pairs of things is held out
WEIGHTS = ("tgd_weight", "fgd_weight", "mlm_weight")
ARMS = {  # weights that differ from 1
    "none": dict.fromkeys(WEIGHTS, 0.0),
    "tgd": {"fgd_weight": 0.0, "mlm_weight": 0.0},
    "fgd": {"tgd_weight": 0.0, "mlm_weight": 0.0},
    "mlm": {"tgd_weight": 0.0, "fgd_weight": 0.0},
    "all": {},
}
# What the defaults of the lineage, made for 100,000s of steps, have in place of for these few.
SHORT = {"queue_size": 256, "momentum": 0.9}
SETTINGS = {"max_steps": 120, "per_device_train_batch_size": 16, "learning_rate": 5e-4, "seed": 0}
MEAN_OF = 10  # logged steps at the beginning and at the end


class TwoThings(RecordDataset):
    """Images of two things side by side, and a Chinese sentence that names both: "左边是一只狗，右边是一朵花".

    Args:
        pairs: Names of the left and the right thing.
        drawings: Name -> its drawings.
    """

    def __init__(self, pairs: list[tuple[str, str]], drawings: dict[str, list[Image.Image]]):
        self.records = []
        for left, right in pairs:
            for number in range(len(drawings[left])):
                image = Image.new("RGB", (SIDE, SIDE), "white")
                image.paste(drawings[left][number], (0, SIDE // 4))
                image.paste(drawings[right][-1 - number], (SIDE // 2, SIDE // 4))
                text = f"左边是{left}，右边是{right}"
                self.records.append(Record(image, text, None, "zh", (), f"{left}-{right}:{number}"))
        self.languages = np.full(len(self.records), LANGUAGES.index("zh"), dtype=np.uint8)

    def _read(self, index: int) -> Record:
        return self.records[index]

    def _source(self, index: int) -> str:
        return self.records[index].source


def make_data() -> tuple[TwoThings, TwoThings, list[str]]:
    """Return training pairs, held-out pairs of the same things, and the vocabulary."""
    pictures = json.loads((demo_images() / "manifest.json").read_text(encoding="utf-8"))["pictures"]
    drawings: dict[str, list[Image.Image]] = {}
    for row in pictures:
        if row["kind"] == "thing" and (row["name_zh"] in drawings or len(drawings) < THINGS):
            with Image.open(demo_images() / row["file"]) as opened:
                half = opened.convert("RGB").resize((SIDE // 2, SIDE // 2))
            drawings.setdefault(row["name_zh"], []).append(half)
    pairs = list(permutations(drawings, 2))
    np.random.default_rng(0).shuffle(pairs)
    held_out = len(pairs) // HELD_OUT
    characters = sorted(set("".join(drawings)) | set("左边是，右"))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    train, test = ([tuple(pair) for pair in part] for part in (pairs[held_out:], pairs[:held_out]))
    return TwoThings(train, drawings), TwoThings(test, drawings), vocabulary


def make_start(vocabulary: list[str], folder: Path) -> tuple[R2D2Model, R2D2Processor]:
    """Return a small model of random weights, the same each time, and its processor."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"initializer_range": 0.1}  # about one over the root of the width, which is small
    without_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # of so few steps
    config = R2D2Config(
        vision_config={**sizes, "image_size": SIDE, "patch_size": 8},
        text_config={**sizes, **without_dropout, "vocab_size": len(vocabulary), "max_position_embeddings": 24},
        cross_config={**sizes, **without_dropout, "num_hidden_layers": 1},
        embed_dim=64,
        max_length=24,
        initializer_range=0.1,
    )
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    tokenizer = R2D2Tokenizer(vocab_file=str(folder / "vocab.txt"), short_length=24)
    return R2D2Model(config), R2D2Processor(R2D2ImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer)


@torch.no_grad()
def masked_distance(model: R2D2Model, processor: R2D2Processor, records: TwoThings) -> float:
    """Return one minus the mean cosine of a model's vectors of texts and of the same texts with masks."""
    collator = PairCollator(processor, mask_probability=MASKED)
    batch = collator([DrawnRecord(record, 0) for record in records])
    model.eval()
    whole, masked = (
        model.get_text_features(batch[name], batch["attention_mask"]) for name in ("input_ids", "masked_input_ids")
    )
    return 1 - torch.cosine_similarity(whole, masked).mean().item()


def run_arm(arm: str, folder: Path) -> dict[str, Any]:
    """Train one arm, and return what is kept of it."""
    train, held_out, vocabulary = make_data()
    model, processor = make_start(vocabulary, folder)
    settings = {**SHORT, "mask_probability": MASKED, **ARMS[arm]}
    arguments = FGClip2TrainingArguments(
        str(folder / "run"),
        objective="after-r2d2",
        objective_settings=settings,
        lr_scheduler_type="linear",
        warmup_steps=20,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **SETTINGS,
    )
    trainer = FGClip2Trainer(model, arguments, train, held_out, processor)
    before, cpu = trainer.evaluate(), time.process_time()
    trainer.train()
    cpu = time.process_time() - cpu
    after = trainer.evaluate() | {"eval_masked_distance": masked_distance(trainer.model, processor, held_out)}
    rows = [row for row in trainer.state.log_history if "gcpr_loss" in row]
    terms = [name for name in rows[0] if name.endswith("_loss")]
    return {
        "arm": arm,
        "settings": {**SETTINGS, "objective_settings": settings},
        "records": {"train": len(train), "held_out": len(held_out)},
        "cpu_seconds": round(cpu, 1),
        "losses": {
            name.removesuffix("_loss"): {
                "first": round(float(np.mean([row[name] for row in rows[:MEAN_OF]])), 4),
                "last": round(float(np.mean([row[name] for row in rows[-MEAN_OF:]])), 4),
            }
            for name in terms
        },
        "before": {name: round(before[f"eval_{name}"], 4) for name in ("r_mean", "gcpr_loss")},
        "after": {name: round(after[f"eval_{name}"], 4) for name in ("r_mean", "gcpr_loss", "masked_distance")},
    }


def table_row(result: dict[str, Any]) -> list[str]:
    """Return a row of the table: the arm, its losses at the beginning and at the end, and what was held out."""
    losses = {name: f"{its['first']:.2f} -> {its['last']:.2f}" for name, its in result["losses"].items()}
    recalls = (f"{result[when]['r_mean']:.1%}" for when in ("before", "after"))
    return [
        result["arm"],
        *(losses.get(name, "-") for name in ("gcpr", "tgd", "mlm")),
        " -> ".join(recalls),
        f"{result['after']['masked_distance']:.3f}",
        f"{result['cpu_seconds']:.0f}",
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run the arms that have no result yet, and print all."""
    parser = argparse.ArgumentParser(prog="python -m recipes.after_r2d2.run", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="Folder of the results.")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="Runs to make (default: all).")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    for arm in options.arms:
        file = options.output / f"{arm}.json"
        if not file.is_file():
            with tempfile.TemporaryDirectory() as folder:
                result = run_arm(arm, Path(folder))
            with replacing(file) as unfinished:
                unfinished.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print("|", " | ".join(table_row(read_json(file))), "|")


if __name__ == "__main__":
    main()
