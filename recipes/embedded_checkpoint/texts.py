"""Training texts: names and keywords of the concepts in both languages, as users will write them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgclip2.drawings.concepts import ConceptTable
from fgclip2.drawings.phrases import with_article
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer
from fgclip2.tokenization.train_tokenizer import train_tokenizer

# {a} is the name with its article, {} the name alone.
TEMPLATES = {
    "en": (
        "{a}",
        "a photo of {a}",
        "a picture of {a}",
        "an image of {a}",
        "a photo of the {}",
        "a drawing of {a}",
        "this is {a}",
        "there is {a} in the picture",
        "{} icon",
    ),
    "zh": (
        "一张{}的图片",
        "一张{}的照片",
        "{}的图片",
        "{}的照片",
        "一个{}",
        "一只{}",
        "这是{}",
        "图中有{}",
        "一幅{}的画",
    ),
}
KINDS = ("name", "template", "keyword", "keyword_template")
KIND_SHARES = (0.45, 0.25, 0.15, 0.15)


@dataclass
class TextPool:
    """All training texts, tokenized once. Concepts are numbered by their place among the training concepts.

    Args:
        ids: Int64, shape (texts, 64).
        lengths: Shape (texts,), tokens with `<eos>`.
        rows: [kind][language][concept] -> rows of `ids`.
        is_positive: Boolean, shape (texts, concepts): a name belongs to its concept, a keyword to all that have it.
        is_counted: Boolean, shape (texts, concepts): false where a concept may well deserve a keyword that it lacks.
    """

    ids: Tensor
    lengths: np.ndarray
    rows: dict[str, dict[str, list[list[int]]]]
    is_positive: Tensor
    is_counted: Tensor

    def sample(self, concepts: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One text per concept, in alternating languages: rows of `ids`, and whether each is a name."""
        rows, is_name = [], []
        kinds = rng.choice(len(KINDS), size=len(concepts), p=KIND_SHARES)
        first = int(rng.integers(2))
        for index, concept in enumerate(concepts):
            language = LANGUAGES[(index + first) % 2]
            kind = KINDS[kinds[index]]
            choices = self.rows[kind][language][concept]
            if not choices:
                kind, choices = "name", self.rows["name"][language][concept]
            rows.append(choices[rng.integers(len(choices))])
            is_name.append(not kind.startswith("keyword"))
        return np.array(rows), np.array(is_name)


def fill_template(template: str, name: str) -> str:
    return template.replace("{a}", with_article(name, name)).replace("{}", name)


def texts_by_kind(table: ConceptTable) -> dict[str, dict[str, list[list[str]]]]:
    """[kind][language] -> for each training concept its texts; keywords that are a concept's name are left out."""
    names = {name.lower() for name in table.names_en + table.names_zh}
    texts: dict[str, dict[str, list[list[str]]]] = {kind: {language: [] for language in LANGUAGES} for kind in KINDS}
    for concept_id in table.train_ids:
        concept = table[int(concept_id)]
        for language, keywords in (("en", concept.keywords_en), ("zh", concept.keywords_zh)):
            name = concept.name(language)
            texts["name"][language].append([name])
            texts["template"][language].append([fill_template(template, name) for template in TEMPLATES[language]])
            keywords = [word for word in keywords if word.lower() not in names]
            texts["keyword"][language].append(keywords)
            texts["keyword_template"][language].append(
                [fill_template(template, word) for word in keywords for template in TEMPLATES[language]]
            )
    return texts


def build_tokenizer(table: ConceptTable, sentences: list[str], vocab_size: int) -> FGClip2Tokenizer:
    """Learn the vocabulary from all training texts; scene sentences, which repeat themselves, may be few."""
    by_kind = texts_by_kind(table)
    corpus = [text for kind in KINDS for language in LANGUAGES for texts in by_kind[kind][language] for text in texts]
    return train_tokenizer(corpus + sentences, vocab_size)


def build_text_pool(table: ConceptTable, tokenizer: FGClip2Tokenizer) -> TextPool:
    """Tokenize all training texts and note which concepts each belongs to."""
    by_kind = texts_by_kind(table)
    texts: dict[tuple[str, str], int] = {}  # (kind, text) -> row; a keyword is one row, however many concepts have it
    pairs: list[tuple[int, int]] = []
    rows: dict[str, dict[str, list[list[int]]]] = {kind: {language: [] for language in LANGUAGES} for kind in KINDS}
    for kind in KINDS:
        for language in LANGUAGES:
            for concept, its_texts in enumerate(by_kind[kind][language]):
                its_rows = [texts.setdefault((kind, text), len(texts)) for text in its_texts]
                pairs += [(row, concept) for row in its_rows]
                rows[kind][language].append(its_rows)
    is_positive = torch.zeros(len(texts), len(table.train_ids), dtype=torch.bool)
    is_positive[tuple(torch.tensor(pairs).T)] = True
    is_keyword = torch.tensor([kind.startswith("keyword") for kind, _ in texts])
    synonyms = torch.tensor(table.near_synonyms[np.ix_(table.train_ids, table.train_ids)])
    # A near synonym of a concept with the keyword is no negative for that keyword, but names must tell them apart.
    is_unclear = (is_positive.float() @ synonyms.float() > 0) & ~is_positive & is_keyword[:, None]
    ids = tokenizer([text for _, text in texts], return_tensors="pt")["input_ids"]
    return TextPool(ids, (ids != tokenizer.pad_token_id).sum(1).numpy(), rows, is_positive, ~is_unclear)
