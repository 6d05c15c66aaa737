"""The changes of a Chinese phrase after which it is still grammatical, and false.

The text is cut into the longest expressions of the lexicon, which also lists words that must not be looked into (白菜,
黑板, 一起). Words of one character (狗, 红, 上) count only between characters that can stand beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..lexicon import Category, Vocabulary, Word
from ..lexicon.chinese import NUMERALS, Unit, chinese_units
from .edits import Edit, Slot

_ONES = ("一", "1")
_SIGNS = re.compile(r"[^\w\s]|\s")
_JOINING = ("的", "和", "与", "、", "色", "相间")
_CONTAINER_PLACE = "in"
_PEOPLE_PLACES = ("身后", "身前", "身旁", "身边")
_GENERIC_MEASURE = "个"


def chinese_slots(text: str, vocabulary: Vocabulary) -> Iterator[Slot]:
    """Yield the places of a text that can be changed, each with its changes."""
    phrase = ChinesePhrase(text, vocabulary)
    for index in range(len(phrase.units)):
        for slot in (phrase.counts(index), phrase.objects(index), phrase.attributes(index), phrase.relations(index)):
            if slot:
                yield slot


class ChinesePhrase:
    """A text, cut into units. Units are named by their index; indices beyond the text are a full stop."""

    def __init__(self, text: str, vocabulary: Vocabulary):
        self.text = text
        self.vocabulary = vocabulary
        self.rules = vocabulary.rules["zh"]
        self.units = chinese_units(text, vocabulary)
        self.said = {word for unit in self.units for word in unit.words}

    # What a unit is

    def unit(self, index: int) -> Unit:
        return self.units[index] if 0 <= index < len(self.units) else Unit("。", len(self.text), len(self.text))

    def is_sign(self, index: int) -> bool:
        return bool(_SIGNS.match(self.unit(index).text))

    def noun(self, index: int) -> Word | None:
        """Return the meaning of a unit as the last word of a noun phrase."""
        word = self.unit(index).word("object", "other_nouns")
        if word is None or not self._ends_noun(index + 1):
            return None
        return word if len(self.unit(index).text) > 1 or self._may_stand_alone(index - 1) else None

    def _ends_noun(self, index: int) -> bool:
        unit = self.unit(index)
        if self.is_sign(index) or unit.measure or unit.word("relation") or unit.word("attribute"):
            return True
        return not unit.words and not unit.is_whole and unit.text in self.rules["after_single"]

    def _may_stand_alone(self, before: int) -> bool:
        """Tell whether a word of one character may follow this unit."""
        unit = self.unit(before)
        if before < 0 or self.is_sign(before) or unit.measure:
            return True
        if unit.word("attribute", "relation"):
            return True
        return unit.text in self.rules["before_single"] and not unit.words

    def next_noun(self, index: int) -> int | None:
        """Return the noun that the attribute before `index` belongs to."""
        for current in range(index, min(index + 6, len(self.units))):
            unit = self.unit(current)
            if self.noun(current):
                return current
            if not (unit.text in _JOINING or unit.word("attribute", "object", "other_nouns")):
                return None
        return None

    def clause(self, index: int) -> range:
        """Return the units between the signs around a unit; 、 and spaces don't part clauses."""
        first, last = index, index
        while first > 0 and not self._parts_clauses(first - 1):
            first -= 1
        while last + 1 < len(self.units) and not self._parts_clauses(last + 1):
            last += 1
        return range(first, last + 1)

    def _parts_clauses(self, index: int) -> bool:
        return self.is_sign(index) and self.unit(index).text not in ("、", " ", "“", "”")

    def may_be_false(self, index: int) -> bool:
        """Tell whether another word may be just as true: after 没有, 不, 像 or beside 或."""
        clause = self.clause(index)
        units = [self.unit(place) for place in clause]
        before = "".join(  # known words hide no negation
            "|" if unit.words or unit.is_whole or unit.measure else unit.text
            for place, unit in zip(clause, units, strict=True)
            if place < index
        )
        return any(unit.text == "或" for unit in units) or any(word in before for word in self.rules["negations"])

    # Changes

    def replaceable(self, word: Word) -> list[Word]:
        return [other for other in self.vocabulary.alternatives(word) if other not in self.said and other.zh]

    def counts(self, index: int) -> Slot:
        unit = self.unit(index)
        if not unit.number or self.may_be_false(index):
            return []
        digits = [str(number) for number in range(2, 11)]
        numbers = digits if unit.number.isdigit() else self.vocabulary.counts["zh"]
        if unit.number not in (*numbers, *_ONES) or self.unit(index - 1).text[-1] in self.rules["not_before_count"]:
            return []
        nouns = [self.noun(place) for place in self.clause(index) if place > index]
        measured = (
            noun and not noun.category.uncounted and unit.measure in (_GENERIC_MEASURE, *noun.measures)
            for noun in nouns
        )
        if not any(measured):
            return []
        # 它的 and 他 after 一只 or 一个 would have to become plural too.
        rest = self.text[unit.end :].replace("其他", "")
        if unit.number in _ONES and any(pronoun in rest for pronoun in self.rules["pronouns"]):
            return []
        end = unit.end - len(unit.measure)
        return [
            Edit("count", unit.start, unit.end, number + self.text[end : unit.end])
            for number in numbers
            if number != unit.number
        ]

    def objects(self, index: int) -> Slot:
        word = self.noun(index)
        if word is None or word.category.section != "object" or self.may_be_false(index):
            return []
        gendered = any(pronoun in self.text.replace("其他", "") for pronoun in self.rules["gendered_pronouns"])
        if word.category.name in ("people", "occupations") and gendered:
            return []
        edits = (self._replace_noun(index, word, other) for other in self.replaceable(word))
        return [edit for edit in edits if edit]

    def _replace_noun(self, index: int, word: Word, other: Word) -> Edit | None:
        """Put another noun in, with its own measure word; None where that is unclear."""
        unit = self.unit(index)
        measured = index - 1  # the measure word before it, with nothing but attributes between
        while measured >= 0 and not self.unit(measured).measure:
            between = self.unit(measured)
            is_attribute = between.word("attribute") or between.text in {*_JOINING} | self.rules["degrees"]
            measured = measured - 1 if is_attribute else -1
        if measured >= 0:
            before = self.unit(measured)
            if before.measure == _GENERIC_MEASURE or before.measure in other.measures:
                return Edit("object", unit.start, unit.end, other.zh[0])
            if before.measure in word.measures and other.measures:
                start = before.end - len(before.measure)
                attributes = self.text[before.end : unit.start]
                return Edit("object", start, unit.end, other.measures[0] + attributes + other.zh[0])
            return None
        far = [self.unit(place).measure for place in self.clause(index) if place < index and self.unit(place).measure]
        fits = all(
            measure == _GENERIC_MEASURE or measure in other.measures for measure in far if measure in word.measures
        )
        return Edit("object", unit.start, unit.end, other.zh[0]) if fits else None

    def attributes(self, index: int) -> Slot:
        unit = self.unit(index)
        if unit.word("attribute") is None or self.may_be_false(index) or self.unit(index - 1).text in NUMERALS:
            return []
        for word in unit.words:
            if word.category.section == "attribute" and self._describes(word.category, index):
                texts = (_matching_form(word, unit.text, other) for other in self.replaceable(word))
                return [Edit("attribute", unit.start, unit.end, text) for text in texts if text]
        return []

    def _describes(self, category: Category, index: int) -> bool:
        """Tell whether a unit is an attribute of a noun that this category speaks of."""
        unit, following = self.unit(index), self.unit(index + 1)
        noun_index = self.next_noun(index + 1)
        noun = self._subject(index) or (self.noun(noun_index) if noun_index is not None else None)
        name = noun.category.name if noun else None
        joins = following.text == "的" or noun_index is not None
        if len(unit.text) == 1:
            before = self.unit(index - 1)
            is_degree = before.text in self.rules["degrees"]
            begins = self._may_stand_alone(index - 1)
            if noun_index is not None:
                if not joins or not (begins or is_degree or self.noun(index - 1) is not None):
                    return False
            # 头发很长, or 大的 before a noun that the lexicon does not know
            elif not (is_degree and (self.is_sign(index + 1) or following.text == "的")) and not (
                following.text == "的" and begins
            ):
                return False
        unknown_noun_follows = not self._ends_noun(index + 1) and len(unit.text) > 1 and not following.measure
        if category.noun_follows and not (joins or unknown_noun_follows):
            return False
        if category.of:
            return name in category.of
        if category.not_of and name in category.not_of:
            return False
        unclear = len({word.category.name for word in unit.words}) > 1
        return noun is not None or not (unclear or (category.not_of and category.name != "colour"))

    def _subject(self, index: int) -> Word | None:
        """Return the noun of 头发很长."""
        start = index - 1
        while self.unit(start).text in {"是"} | self.rules["degrees"]:
            start -= 1
        if start == index - 1 or start < 0:
            return None
        return self.unit(start).word("object", "other_nouns")

    def relations(self, index: int) -> Slot:
        unit = self.unit(index)
        if self.may_be_false(index):
            return []
        for word in unit.words:
            if word.category.section == "relation" and self._relates(word, index):
                others = [other for other in self.replaceable(word) if self._can_be(other, index)]
                texts = (_matching_form(word, unit.text, other) for other in others)
                return [Edit("relation", unit.start, unit.end, text) for text in texts if text]
        return []

    def _relates(self, word: Word, index: int) -> bool:
        """Tell whether a unit is said of a place beside a thing, in the sense of this word."""
        category, unit = word.category, self.unit(index)
        if category.before_landmark:
            landmark = self._landmark(index)
            if landmark is None or (word.name == _CONTAINER_PLACE and not landmark.container):
                return False
            if unit.text in _PEOPLE_PLACES:
                return True
            return (
                len(unit.text) > 1
                or self.is_sign(index + 1)
                or self.unit(index + 1).text[0] in self.rules["after_place"]
            )
        if category.before_noun:
            return not self.is_sign(index + 1)
        if category.name == "inside or outside":
            before = self.unit(index - 1)
            return before.text == "的" or before.word("object", "other_nouns") is not None
        return True

    def _can_be(self, word: Word, index: int) -> bool:
        if word.name != _CONTAINER_PLACE:
            return True
        landmark = self._landmark(index)
        return landmark is not None and landmark.container

    def _landmark(self, index: int) -> Category | None:
        """Return the category of the noun before 上, 下面 or 旁边, if things can be there."""
        before = index - 1
        if len(self.unit(index).text) > 1 and self.unit(before).text == "的":
            before -= 1
        noun = self.unit(before).word("object", "other_nouns")
        return noun.category if noun and noun.category.landmark else None


def _matching_form(word: Word, said: str, other: Word) -> str | None:
    """Return the form of `other` that stands where `said` stood: 红 gives 蓝, 红色 蓝色, 左上角 右上角."""
    if word.category.parallel and word.zh.index(said) < len(other.zh):
        return other.zh[word.zh.index(said)]
    alike = [form for form in other.zh if len(form) == len(said)]
    same_ending = [form for form in alike if form[-1] == said[-1]]
    if same_ending:
        return same_ending[0]
    if len(said) == 1:
        return alike[0] if alike else None
    return next((form for form in other.zh if len(form) > 1), None)
