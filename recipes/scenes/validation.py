"""The measures that settings are chosen by: scenes of the validation split, and the first stage's photo protocol.

Free language is measured by the validation patterns and synonyms, from text to image by the automatic head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fgclip2 import Embedder
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.scene_sets import build_scene_set
from fgclip2.languages import LANGUAGES

from ..embedded_checkpoint.validation import validate
from .evaluate import Scenes, evaluate_model
from .free_language import free_captions, scene_facts

SCENE_PATCHES = 100
PHOTO_PATCHES = 36
_SEED = 1  # of the scenes, as `evaluate.py` has it


class SceneValidation:
    """Measures a model on the first `count` validation scenes and on the photo protocol, in percent.

    Args:
        cache: Folder of the data.
        processor: Of the model's family.
        count: How many scenes.
        scene_patches, photo_patches: Patch budgets; `None` for a family without.
        with_free_language: Also measure captions in free language, which are most of the texts.
    """

    def __init__(
        self,
        cache: Path,
        processor: Any,
        count: int,
        scene_patches: int | None = SCENE_PATCHES,
        photo_patches: int | None = PHOTO_PATCHES,
        with_free_language: bool = True,
    ):
        table = load_concepts(cache)
        self.cache, self.processor = cache, processor
        self.scene_patches, self.photo_patches = scene_patches, photo_patches
        free = {}
        if with_free_language:
            facts = scene_facts(cache, table, "validation", count, _SEED)
            free = free_captions(facts, table, processor.tokenizer, "validation", _SEED)
        self.scenes = Scenes(build_scene_set(cache, table, "validation", count, _SEED), table, free)

    def __call__(self, model: Any) -> dict[str, float]:
        photo = validate(model, self.processor, self.cache, (self.photo_patches,))
        was_training = model.training
        by_language = evaluate_model(Embedder(model, self.processor), self.scenes, [self.scene_patches])
        model.train(was_training)
        measures = {f"photo_{name.split('_')[0]}": value for name, value in photo.items()}
        for language in LANGUAGES:
            for task, value in scene_measures(by_language[str(self.scene_patches)][language]).items():
                measures[f"{task}_{language}"] = value
        return measures


def scene_measures(results: dict) -> dict[str, float]:
    """The headline numbers of one language's results of `evaluate_model`, in percent."""
    captions = {length: results["captions"][length]["image_to_text"] for length in ("long", "short")}
    return {
        **{length: captions[length]["recall@1"]["percent"] for length in captions},
        **{f"{length}@10": captions[length]["recall@10"]["percent"] for length in captions},
        "box": results["box_names"]["recall@1"]["percent"],
        "hard": results["hard_negatives"]["beats_all"]["percent"],
        **{
            wording: heads["auto"]["text_to_image"]["recall@1"]["percent"]
            for wording, heads in results["free_language"].items()
        },
    }
