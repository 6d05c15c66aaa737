"""The model that the second stage trains: the package's whole objective on scenes, with the first stage's losses."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgclip2.drawings.concepts import ConceptTable
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.modeling_fgclip2 import TRAINING_SCALES
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer
from fgclip2.training import FGClip2ForTraining, FGClip2Objective

from ..embedded_checkpoint.losses import Trainee
from .settings import SceneSettings

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / ".cache" / "embedded_checkpoint" / "export"  # of the first stage


class SceneTrainee(Trainee):
    """The training model, its objective, and one proxy per training concept, which starts as the concept's name.

    Args:
        model: With the region scales that training starts with.
        proxies: Shape (concepts, D).
        settings: Of the run.
    """

    def __init__(self, model: FGClip2ForTraining, proxies: Tensor, settings: SceneSettings):
        super().__init__(model, len(proxies), settings.loss_weights, settings.region_images)
        self.proxies = nn.Parameter(proxies)
        self.objective = FGClip2Objective("released", **settings.objective)

    def forward(self, batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """Named losses of a batch of [`SceneBatches`], unweighted, and their weighted sum `loss`."""
        singles, scenes = batch["singles"], batch["scenes"]
        texts = self.encode_texts(singles)
        of_singles = self.single_losses(singles, texts)
        of_singles["region_single"] = of_singles.pop("region")
        outputs = self.model(**scenes)
        of_scenes = self.objective(outputs, scenes)
        regions = outputs["region_embeds"]
        losses = {
            **of_singles,
            "scene": self.contrast(regions, texts["box"], scenes["region_is_positive"], scenes["region_is_counted"]),
            "scene_proxy": self.classify(regions, scenes["region_concepts"]),
            "objective": of_scenes.pop("loss"),
        }
        loss = sum(self.weights[name] * value for name, value in losses.items())
        return {"loss": loss, **losses, **of_scenes}


def check_checkpoint(folder: Path) -> None:
    """Raise a `FileNotFoundError` that says how to make the first stage's checkpoint, unless it is there."""
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"{folder} has no model.safetensors; run: python -m recipes.embedded_checkpoint.train")


def load_start(folder: Path, region_scale: float) -> FGClip2ForTraining:
    """The model to start from, with the scales of its region losses (as logarithms).

    Eager attention, for with so few patches the fused kernels' backward pass is slower on a CPU.
    """
    model = FGClip2ForTraining.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    set_region_scales(model, region_scale)
    return model


@torch.no_grad()
def set_region_scales(model: FGClip2ForTraining, region_scale: float) -> None:
    """Give both scales of the region losses this value, a logarithm."""
    for name in TRAINING_SCALES:
        getattr(model, name).fill_(region_scale)


@torch.no_grad()
def proxies_of_names(model: FGClip2ForTraining, tokenizer: FGClip2Tokenizer, table: ConceptTable) -> Tensor:
    """The mean embedding of each training concept's names in both languages, of the length of random vectors."""
    embeds = []
    for language in LANGUAGES:
        names = [table[int(concept_id)].name(language) for concept_id in table.train_ids]
        ids = tokenizer(names, return_tensors="pt")["input_ids"]
        embeds += [F.normalize(model.get_text_features(ids, walk_type=walk), dim=-1) for walk in ("short", "box")]
    mean = F.normalize(torch.stack(embeds).mean(0), dim=-1)
    return mean * mean.shape[1] ** 0.5
