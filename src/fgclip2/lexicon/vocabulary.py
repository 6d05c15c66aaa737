"""The lexicon: words of both languages in categories whose members exclude one another."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..files import read_json

Kind = Literal["attribute", "count", "relation", "object"]
KINDS: tuple[Kind, ...] = ("attribute", "count", "relation", "object")

Number = Literal["singular", "plural", "mass", "none"]  # none: not a noun

LEXICON = Path(__file__).with_name("lexicon.json")
_SECTIONS = ("attribute", "relation", "object", "other_nouns", "counts", "english", "chinese")
_WORD_KEYS = {"en", "zh", "measures", "number", "plurals", "near"}


@dataclass(frozen=True)
class Category:
    """Words of which at most one is true of a thing, and where they may be replaced."""

    section: str  # "attribute", "relation", "object" or "other_nouns" (known, but never replaced)
    name: str
    of: tuple[str, ...] = ()  # only of nouns of these categories
    not_of: tuple[str, ...] = ()  # never of nouns of these
    noun_follows: bool = False  # only right before a noun: "glass table", not "a glass"
    before_noun: bool = False  # only with an object: "pushing a cart"
    before_landmark: bool = False  # only beside a noun that things can be on, under or behind
    landmark: bool = False  # nouns that are such
    container: bool = False  # nouns that things can be in
    uncounted: bool = False  # nouns that are not counted: "in a kitchen" is no statement of number
    parallel: bool = False  # Chinese forms correspond by position: 左边 右边, 左上角 右上角


@dataclass(frozen=True)
class Word:
    """A meaning with its forms in both languages. Replacements use the first form, so synonyms never meet."""

    category: Category
    en: tuple[str, ...] = ()
    zh: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()  # Chinese measure words, the usual one first
    number: str | None = None  # of English nouns: "mass", "plural" (scissors), or None: singular and plural
    plurals: dict[str, str] = field(default_factory=dict, hash=False)  # irregular ones
    near: tuple[str, ...] = ()  # words that may be true at the same time

    @property
    def name(self) -> str:
        return (self.en or self.zh)[0]

    def is_noun(self) -> bool:
        return self.category.section in ("object", "other_nouns")

    def plural(self, form: str) -> str:
        """Return the plural of an English form."""
        if form in self.plurals:
            return self.plurals[form]
        stem = form.rpartition(" ")[2]
        if stem.endswith("y") and stem[-2:-1] not in tuple("aeiou"):
            return f"{form[:-1]}ies"
        return f"{form}es" if stem.endswith(("s", "x", "z", "ch", "sh")) else f"{form}s"

    def english_form(self, number: Number) -> str | None:
        """Return the first form in that number; None if the word has none."""
        if number == "none":
            return self.en[0] if self.en else None
        own: Number = "singular" if self.number is None else self.number  # type: ignore[assignment]
        if not self.en or (own != number and (own, number) != ("singular", "plural")):
            return None
        return self.plural(self.en[0]) if (own, number) == ("singular", "plural") else self.en[0]


class Form(NamedTuple):
    """An expression that an English text may have, as a form of a word."""

    word: Word
    number: Number


class Vocabulary:
    """The lexicon, looked up by what texts say.

    Attributes:
        english: Form in lower case -> what it may mean.
        chinese: Form -> what it may mean.
        counts: For "en" and "zh", the number words from two to ten.
        rules: For "en" and "zh", lists of function words, fixed expressions and the like.
    """

    def __init__(self, content: dict[str, Any]):
        self._categories: dict[tuple[str, str], list[Word]] = {}
        for section in ("attribute", "relation", "object", "other_nouns"):
            for name, entry in content[section].items():
                self._categories[section, name] = _read_category(section, name, entry)
        self.counts: dict[str, list[str]] = content["counts"]
        self.rules = {"en": {k: set(v) for k, v in content["english"].items()}}
        self.rules["zh"] = {k: set(v) for k, v in content["chinese"].items()}
        self.english: dict[str, list[Form]] = defaultdict(list)
        self.chinese: dict[str, list[Word]] = defaultdict(list)
        for word in self.words:
            number: Number = "none"  # not a noun
            if word.is_noun():
                number = "singular" if word.number is None else word.number  # type: ignore[assignment]
            for form in word.en:
                self.english[form.lower()].append(Form(word, number))
            for form in word.en if number == "singular" else ():
                self.english[word.plural(form).lower()].append(Form(word, "plural"))
            for text in word.zh:
                self.chinese[text].append(word)
        self.english_expressions = self.english.keys() | self.rules["en"]["whole_words"]
        self.chinese_expressions = self.chinese.keys() | self.rules["zh"]["whole_words"]
        self.longest_english = max(len(expression.split()) for expression in self.english_expressions)
        self.longest_chinese = max(map(len, self.chinese_expressions))

    @property
    def words(self) -> list[Word]:
        return [word for words in self._categories.values() for word in words]

    def alternatives(self, word: Word) -> list[Word]:
        """Return the words of its category that exclude it."""
        if word.category.section == "other_nouns":
            return []
        words = self._categories[word.category.section, word.category.name]
        return [
            other for other in words if other != word and other.name not in word.near and word.name not in other.near
        ]


@cache
def load_vocabulary(path: str | Path = LEXICON) -> Vocabulary:
    """Read a lexicon; copy and edit the one in the package (`LEXICON`) to have your own.

    Raises:
        ValueError: The file is not a lexicon; names the file, the category and the value.
    """
    try:
        content = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is no lexicon: {error}") from error
    missing = [name for name in _SECTIONS if not isinstance(content, dict) or not isinstance(content.get(name), dict)]
    if missing:
        raise ValueError(f"{path} has no object {missing[0]!r}; it must be a JSON object with {', '.join(_SECTIONS)}")
    try:
        return Vocabulary(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_category(section: str, name: str, entry: dict[str, Any]) -> list[Word]:
    options = {key: value for key, value in entry.items() if key != "words"}
    unknown = options.keys() - set(Category.__dataclass_fields__) | ({"words"} - entry.keys())
    if unknown:
        raise ValueError(f"{section}.{name} has wrong or missing key {min(unknown)!r}")
    category = Category(section, name, **_with_tuples(options))
    words = []
    for word_entry in entry["words"]:
        if not (word_entry.get("en") or word_entry.get("zh")) or word_entry.keys() - _WORD_KEYS:
            known = ", ".join(sorted(_WORD_KEYS - {"en", "zh"}))
            raise ValueError(f"a word of {section}.{name} must have en or zh or both, and {known}, got {word_entry}")
        words.append(Word(category, **_with_tuples(word_entry)))
    names = {word.name for word in words}
    for word in words:
        strange = set(word.near) - names
        if strange:
            raise ValueError(f"{section}.{name}: near of {word.name!r} must be words beside it, got {min(strange)!r}")
    return words


def _with_tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
