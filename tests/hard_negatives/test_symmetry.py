"""Whether a classifier that sees only the texts can tell the true one: it must not.

Phrases are drawn uniformly from a grammar over the lexicon, so what is measured is the generator alone.
"""

import random
import zlib
from functools import cache

import pytest
import torch

from fgclip2.hard_negatives import generate_hard_negatives, load_vocabulary

VOCABULARY = load_vocabulary()
FEATURES = 2**12
CHANCE = 1 / 11


@cache
def words(section: str, category: str, language: str) -> list:
    """Words of a category that can be in a phrase of that language, as singular nouns or adjectives."""
    found = [word for word in VOCABULARY.words if (word.category.section, word.category.name) == (section, category)]
    if language == "zh":
        return [word for word in found if word.zh]
    return [
        word for word in found if word.english_form("none" if section != "object" else "plural") and not word.number
    ]


def english_phrase(pick: random.Random) -> str:
    animal = pick.choice(words("object", pick.choice(["wild animals", "birds", "small animals"]), "en"))
    number = pick.choice(VOCABULARY.counts["en"])
    colour = pick.choice(words("attribute", "colour", "en")).en[0]
    material = pick.choice(words("attribute", "hard material", "en")).en[0]
    landmark = pick.choice(words("object", "furniture", "en")).en[0]
    place = pick.choice(["on", "under", "behind", "in front of", "next to", "above"])
    return f"{number} {colour} {animal.plural(animal.en[0])} {place} the {material} {landmark}"


def chinese_phrase(pick: random.Random) -> str:
    animal = pick.choice(words("object", pick.choice(["wild animals", "birds", "small animals"]), "zh"))
    number = pick.choice(VOCABULARY.counts["zh"])
    colour = pick.choice(words("attribute", "colour", "zh")).zh[0]
    material = pick.choice(words("attribute", "hard material", "zh")).zh[0]
    landmark = pick.choice(words("object", "furniture", "zh")).zh[0]
    place = pick.choice(["上面", "下面", "后面", "前面", "旁边"])
    return f"{material}{landmark}{place}的{number}{animal.measures[0]}{colour}{animal.zh[0]}"


def features(text: str) -> torch.Tensor:
    """Counts of character n-grams, one to four long, hashed; float (FEATURES,)."""
    grams = [text[start : start + length] for length in range(1, 5) for start in range(len(text) - length + 1)]
    return torch.bincount(torch.tensor([zlib.crc32(gram.encode()) % FEATURES for gram in grams]), minlength=FEATURES)


def candidates(phrase: str, seed: int) -> list[str]:
    return [phrase, *(negative.text for negative in generate_hard_negatives(phrase, seed=seed))]


def held_out_accuracies(groups: list[list[str]], training: int) -> tuple[float, float]:
    """Train a logistic ranking of the first text of each group above its others, and measure it on the rest.

    Returns:
        How often it ranks the first text above all ten others, and above one of them.
    """
    inputs = torch.stack([torch.stack([features(text) for text in group]) for group in groups]).float()  # (G, 11, F)
    weights = torch.zeros(FEATURES, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.05, weight_decay=1e-3)
    target = torch.zeros(training, dtype=torch.long)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(inputs[:training] @ weights, target).backward()
        optimizer.step()
    scores = (inputs[training:] @ weights).detach()
    beaten = scores[:, :1] > scores[:, 1:]
    return float(beaten.all(dim=1).float().mean()), float(beaten.float().mean())


@pytest.mark.parametrize("make_phrase", [english_phrase, chinese_phrase], ids=["en", "zh"])
def test_texts_alone_do_not_tell_the_positive(make_phrase):
    pick = random.Random(0)
    groups = [candidates(make_phrase(pick), seed) for seed in range(400)]
    assert all(len(group) == 11 for group in groups)
    above_all, above_one = held_out_accuracies(groups, training=250)
    print(f"text only: above all ten {above_all:.3f} (chance {CHANCE:.3f}), above one {above_one:.3f} (chance 0.5)")
    assert above_all < 0.2
    assert 0.4 < above_one < 0.6


def test_the_classifier_finds_a_giveaway():
    pick = random.Random(0)
    groups = [candidates(english_phrase(pick), 0) for _ in range(200)]
    marked = [[group[0], *(f"{text} maybe" for text in group[1:])] for group in groups]
    assert held_out_accuracies(marked, training=150)[0] > 0.9
