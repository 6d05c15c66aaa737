"""The measures that settings are chosen by: scenes of the validation split, and the first stage's photo protocol.

Free language is measured by the validation patterns and synonyms, from text to image by the automatic head.
"""

from __future__ import annotations

from pathlib import Path

from fgclip2 import FGClip2Embedder
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.scene_sets import build_scene_set
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.image_processing_fgclip2 import FGClip2ImageProcessor
from fgclip2.modeling.modeling_fgclip2 import FGClip2Model
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer

from ..embedded_checkpoint.validation import validate
from .evaluate import Scenes, evaluate_model
from .free_language import free_captions, scene_facts

SCENE_PATCHES = 100
PHOTO_PATCHES = 36
_SEED = 1  # of the scenes, as `evaluate.py` has it


class SceneValidation:
    """Measures a model on the first `count` validation scenes and on the photo protocol, in percent."""

    def __init__(self, cache: Path, tokenizer: FGClip2Tokenizer, count: int):
        table = load_concepts(cache)
        self.cache, self.tokenizer = cache, tokenizer
        self.processor = FGClip2Processor(FGClip2ImageProcessor(max_num_patches=SCENE_PATCHES), tokenizer)
        free = free_captions(
            scene_facts(cache, table, "validation", count, _SEED), table, tokenizer, "validation", _SEED
        )
        self.scenes = Scenes(build_scene_set(cache, table, "validation", count, _SEED), table, free)

    def __call__(self, model: FGClip2Model) -> dict[str, float]:
        photo = validate(model, self.tokenizer, self.cache, (PHOTO_PATCHES,))
        was_training = model.training
        by_language = evaluate_model(FGClip2Embedder(model, self.processor), self.scenes, [SCENE_PATCHES])
        model.train(was_training)
        measures = {f"photo_{name.split('_')[0]}": value for name, value in photo.items()}
        for language in LANGUAGES:
            for task, value in scene_measures(by_language[str(SCENE_PATCHES)][language]).items():
                measures[f"{task}_{language}"] = value
        return measures


def scene_measures(results: dict) -> dict[str, float]:
    """The headline numbers of one language's results of `evaluate_model`, in percent."""
    return {
        **{walk: results["captions"][walk]["image_to_text"]["recall@1"]["percent"] for walk in ("long", "short")},
        "box": results["box_names"]["recall@1"]["percent"],
        "hard": results["hard_negatives"]["beats_all"]["percent"],
        **{
            wording: heads["auto"]["text_to_image"]["recall@1"]["percent"]
            for wording, heads in results["free_language"].items()
        },
    }
