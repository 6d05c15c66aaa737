"""The changes of an English phrase after which it is still grammatical, and false.

Without a parser, a word counts as a noun only where a noun phrase surely ends behind it: then "dog leash", "apple pie"
or "orange juice" are left alone. Fixed expressions ("hot dog", "white wine") are one word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..lexicon import Category, Form, Vocabulary, Word
from ..lexicon.english import english_units
from .edits import Edit, Slot

_SINGULAR_VERBS = {"is": "are", "was": "were", "has": "have", "does": "do", "isn't": "aren't"}
_IN_CONTAINER = "in"
_MAX_MODIFIERS = 4  # words between an article and its noun
_BEFORE_NAMES = ("number", "no", "#", "$", "page", "route", "top", "type", "one", "-", "/")


def english_slots(text: str, vocabulary: Vocabulary) -> Iterator[Slot]:
    """Yield the places of a text that can be changed, each with its changes."""
    phrase = EnglishPhrase(text, vocabulary)
    for index in range(len(phrase.units)):
        for slot in (phrase.counts(index), phrase.objects(index), phrase.attributes(index), phrase.relations(index)):
            if slot:
                yield slot


class EnglishPhrase:
    """A text, cut into units. Units are named by their index; indices beyond the text are a full stop."""

    def __init__(self, text: str, vocabulary: Vocabulary):
        self.text = text
        self.vocabulary = vocabulary
        self.rules = vocabulary.rules["en"]
        self.units = english_units(text, vocabulary)
        self.said = {form.word for unit in self.units for form in unit.forms}
        words = [unit.text for unit in self.units if len(unit.text) > 3 and unit.text[0].isalpha()]
        self.is_title = len(words) > 1 and sum(word[0].isupper() for word in words) > 0.6 * len(words)

    # What a unit is

    def lower(self, index: int) -> str:
        return self.units[index].lower if 0 <= index < len(self.units) else "."

    def is_function(self, index: int) -> bool:
        """Tell a sign, a preposition, an article ...: never inside a noun phrase behind its article."""
        return not self.lower(index)[0].isalnum() or self.lower(index) in self.rules["function_words"]

    def ends_noun(self, index: int) -> bool:
        """Tell whether a noun phrase ends before this unit."""
        if self.is_function(index) or self.lower(index) in self.rules["after_noun"]:
            return self.lower(index) not in ("'", "’", "-", "–", "%", "&", "/")
        return self.units[index].form("relation") is not None

    def noun(self, index: int) -> Form | None:
        """Return the meaning of a unit as the last word of a noun phrase."""
        if not 0 <= index < len(self.units):
            return None
        forms = [form for form in self.units[index].forms if form.word.is_noun()]
        if not forms or not self.ends_noun(index + 1):
            return None
        if self.units[index].form("attribute") and self._joins_colour(index):
            return None
        if len(forms) > 1 and {form.number for form in forms} == {"singular", "plural"}:  # sheep
            number = "singular" if self.determiner(index) in ("a", "an", "one", "this", "that", "another") else "plural"
            return next(form for form in forms if form.number == number)
        return forms[0]

    def _joins_colour(self, index: int) -> bool:
        """Tell the first colour of "an orange and white cat"."""
        following = self.units[index + 2] if index + 2 < len(self.units) else None
        return self.lower(index + 1) in ("and", ",") and following is not None and bool(following.form("attribute"))

    def determiner(self, index: int) -> str | None:
        """Return the article, number or pronoun at the beginning of the noun phrase that ends here."""
        for before in range(index - 1, max(index - 2 - _MAX_MODIFIERS, -1), -1):
            lower = self.lower(before)
            if lower in self.rules["determiners"] or lower.isdigit() or lower.endswith(("'s", "'")):
                return lower
            if self.is_function(before):
                return None
        return None

    def next_noun(self, index: int) -> int | None:
        """Return the noun that the modifier, article or number before `index` belongs to."""
        for current in range(index, min(index + _MAX_MODIFIERS + 1, len(self.units))):
            if self.noun(current):
                return current
            between_modifiers = self.lower(current) in ("and", ",")
            # The second word of "a sleeping cat" or "a painted door" is not the end of a noun phrase after an article.
            is_participle = self.lower(current - 1) in self.rules["determiners"] and not self.is_function(current)
            if self.ends_noun(current) and not between_modifiers and not is_participle:
                return None
        return None

    def is_name(self, index: int) -> bool:
        """Tell a capital within a text that has few of them: "a Red Bull can", "in Turkey"."""
        text = self.units[index].text
        if not text[0].isupper() or self.is_title or text.isupper() or text[1:2] == "-":
            return False
        follows = self.units[index + 1].text if index + 1 < len(self.units) else "."
        begins_sentence = self.lower(index - 1) in (".", "!", "?", '"', "“")
        return not begins_sentence or (follows[0].isupper() and len(follows) > 1)

    def clause(self, index: int) -> range:
        """Return the units between the signs around a unit."""
        first, last = index, index
        while first > 0 and not self.units[first - 1].is_sign():
            first -= 1
        while last + 1 < len(self.units) and not self.units[last + 1].is_sign():
            last += 1
        return range(first, last + 1)

    def may_be_false(self, index: int) -> bool:
        """Tell whether another word may be just as true: after "no", "without", "like" or beside "or"."""
        clause = self.clause(index)
        if any(self.lower(place) == "or" for place in clause):
            return True
        before = [self.lower(place) for place in clause if place < index]
        return any(word in self.rules["negations"] or word.endswith("n't") for word in before)

    # Changes

    def edit(self, kind: str, index: int, replacement: str) -> Edit:
        """Put a word in the place of a unit, in its case, and mend the article before it."""
        unit, start = self.units[index], self.units[index].start
        replacement = _in_case_of(unit.text, replacement)
        if self.lower(index - 1) in ("a", "an"):
            article = self.units[index - 1]
            right = "an" if self._takes_an(replacement) else "a"
            was_right = self.lower(index - 1) == ("an" if self._takes_an(unit.text) else "a")
            if was_right and right != article.lower:
                start, replacement = article.start, f"{_in_case_of(article.text, right)} {replacement}"
        return Edit(kind, start, unit.end, replacement)  # type: ignore[arg-type]

    def _takes_an(self, word: str) -> bool:
        first = re.split(r"[ -]", word.lower())[0]
        return first in self.rules["an_before"] or (first[0] in "aeiou" and first not in self.rules["a_before"])

    def replaceable(self, word: Word) -> list[Word]:
        return [other for other in self.vocabulary.alternatives(word) if other not in self.said]

    def objects(self, index: int) -> Slot:
        form = self.noun(index)
        if form is None or self.units[index].form("other_nouns") or not self._may_change(index):
            return []
        if self.lower(index + 1) == "of":  # a cup of tea
            return []
        is_person = form.word.category.name in ("people", "occupations")
        if is_person and any(unit.lower in self.rules["gendered_pronouns"] for unit in self.units):
            return []
        # Words that are verbs or foods too: "a man watches", "bear with"; not so in "bear" and "red rose".
        begins = index == 0 and self.lower(1) not in self.rules["determiners"]
        if not begins and not (index > 0 and self.units[index - 1].form("attribute")):
            known = self.rules["need_determiner"]
            if form.number == "plural":
                plurals = {form.word.plural(singular) for singular in form.word.en if singular in known}
                may_be_verb = self.lower(index) in plurals and not self.is_function(index - 1)
            else:
                may_be_verb = self.lower(index) in known and self.determiner(index) is None
            if may_be_verb:
                return []
        others = [word for word in self.replaceable(form.word) if word.number == form.word.number]
        texts = [word.english_form(form.number) for word in others]
        return [self.edit("object", index, text) for text in texts if text]

    def _may_change(self, index: int) -> bool:
        return not self.is_name(index) and not self.may_be_false(index)

    def attributes(self, index: int) -> Slot:
        if not self._may_change(index) or self.lower(index - 1) == "to":
            return []
        noun_index = self.next_noun(index + 1)
        noun = self.noun(noun_index) if noun_index is not None else self._subject(index)
        for form in self.units[index].forms:
            if form.word.category.section == "attribute" and self._fits(form.word.category, index, noun_index, noun):
                return [self.edit("attribute", index, word.en[0]) for word in self.replaceable(form.word) if word.en]
        return []

    def _subject(self, index: int) -> Form | None:
        """Return the noun of "the car is very old"."""
        start = index - 1
        while self.lower(start) in ("very", "quite", "so", "too", "really", "all"):
            start -= 1
        if self.lower(start) not in ("is", "are", "was", "were", "looks", "appears"):
            return None
        return self.noun(start - 1) if start > 0 else None

    def _fits(self, category: Category, index: int, noun_index: int | None, noun: Form | None) -> bool:
        """Tell whether a unit is an adjective of a noun that this category speaks of."""
        name = noun.word.category.name if noun else None
        is_modifier = not self.ends_noun(index + 1) or self._joins_colour(index)
        if category.noun_follows and (noun_index is None or not is_modifier):
            return False
        if self.units[index].form("object", "other_nouns") and noun_index is None:
            return False
        if self.noun(index) is not None:
            return False
        if category.of:
            return name in category.of
        if category.not_of and name in category.not_of:
            return False
        unclear = len({form.word.category.name for form in self.units[index].forms}) > 1
        return noun is not None or not (unclear or (category.not_of and category.name != "colour"))

    def counts(self, index: int) -> Slot:
        if not self._may_change(index):
            return []
        lower = self.lower(index)
        if lower in ("a", "an", "one", "1"):
            return self._plurals(index)
        words, digits = self.vocabulary.counts["en"], [str(number) for number in range(2, 11)]
        numbers = words if lower in words else digits if lower in digits else []
        noun_index = self.next_noun(index + 1) if numbers else None
        before = self.lower(index - 1)  # the 7 of "number 7" and the 2 of "1 2" are names
        if noun_index is None or before in _BEFORE_NAMES or before.isdigit():
            return []
        noun = self.noun(noun_index)
        assert noun is not None
        if noun.number != "plural" or noun.word.category.uncounted:
            return []
        return [self.edit("count", index, number) for number in numbers if number != lower]

    def _plurals(self, index: int) -> Slot:
        """Go from one to several: article, noun and verb change together."""
        noun_index = self.next_noun(index + 1)
        if noun_index is None or self.lower(index - 1) in ("such", "what", "half", "quite", "many", "is", "was", "'s"):
            return []
        noun = self.noun(noun_index)
        assert noun is not None
        verb = self._verb(index, noun_index)
        if noun.number != "singular" or noun.word.category.uncounted or verb is None or self.is_name(noun_index):
            return []
        unit = self.units[noun_index]
        plural = _in_case_of(unit.text, noun.word.plural(unit.lower))
        rest = self.text[self.units[index].end : unit.start] + plural + verb[1]
        numbers = self.vocabulary.counts["en"] if self.lower(index) != "1" else list(map(str, range(2, 11)))
        article = self.units[index]
        if unit.text.isupper():
            numbers = [number.upper() for number in numbers]
        elif article.text[0].isupper():
            numbers = [number.capitalize() for number in numbers]
        return [Edit("count", article.start, verb[0], number + rest) for number in numbers]

    def _verb(self, index: int, noun_index: int) -> tuple[int, str] | None:
        """Return where the verb that agrees with the noun ends, and the plural of what stands up to there.

        None where it is unclear what else would have to change.
        """
        rest = range(noun_index + 1, len(self.units))
        if any(self.lower(place) in self.rules["singular_pronouns"] for place in rest):
            return None
        end = self.units[noun_index].end
        verb_index = noun_index + 1
        is_relative = self.lower(verb_index) in ("that", "which", "who")
        if is_relative:
            verb_index += 1
        is_subject = all(self.noun(place) is None for place in range(index)) and "there" not in self.lower(index - 2)
        later = [place for place in rest if place > verb_index]
        if is_subject and any(self._may_be_singular_verb(place) for place in later):
            return None
        verb = self.lower(verb_index)
        if not self._may_be_singular_verb(verb_index) or not (is_subject or is_relative):
            return end, ""
        if verb not in _SINGULAR_VERBS and verb not in self.rules["after_noun"]:
            return None
        if verb in _SINGULAR_VERBS:
            plural = _SINGULAR_VERBS[verb]
        elif verb.endswith("ies") and len(verb) > 4:
            plural = f"{verb[:-3]}y"
        else:
            plural = verb[:-2] if verb.endswith(("ches", "shes", "sses", "xes", "oes")) else verb[:-1]
        unit = self.units[verb_index]
        return unit.end, self.text[end : unit.start] + plural

    def _may_be_singular_verb(self, index: int) -> bool:
        word = self.lower(index)
        if word in _SINGULAR_VERBS:
            return True
        unit = self.units[index] if index < len(self.units) else None
        is_noun = unit is not None and any(form.word.is_noun() for form in unit.forms)
        if not word.endswith("s") or word.endswith(("ss", "us")) or is_noun:
            return False
        return word not in self.rules["function_words"] and word not in ("always", "towards", "upwards", "jeans")

    def relations(self, index: int) -> Slot:
        if not self._may_change(index):
            return []
        for form in self.units[index].forms:
            if form.word.category.section == "relation" and self._relates(form.word, index):
                others = self.replaceable(form.word)
                words = [other for other in others if other.en and self._can_be(other, index)]
                return [self.edit("relation", index, word.en[0]) for word in words]
        return []

    def _relates(self, word: Word, index: int) -> bool:
        """Tell whether a unit is said of a place, a side, a posture ..., in the sense of this word."""
        category, following = word.category, self.lower(index + 1)
        if category.before_landmark:
            landmark = self._landmark(index)
            return landmark is not None and (word.name != _IN_CONTAINER or landmark.container)
        if category.before_noun:
            return not self.is_function(index + 1) or following in self.rules["determiners"] - {"of"}
        if category.name in ("side", "end"):
            is_end, before = category.name == "end", self.lower(index - 1)
            if following in self.rules["after_side"] or (is_end and following in ("left", "right")):
                return True
            if is_end:
                return before == "the" and following == "of"
            is_direction = before in self.rules["before_direction"]
            return is_direction or (before in self.rules["before_side"] and self.ends_noun(index + 1))
        if category.name == "path":
            return following in self.rules["slopes"] or (
                following in ("the", "a", "some") and self.lower(index + 2) in self.rules["slopes"]
            )
        if category.name in ("posture", "movement"):
            is_adjective = self.lower(index - 1) in self.rules["determiners"] and self.next_noun(index + 1) is not None
            return is_adjective or (self.is_function(index + 1) and following not in self.rules["determiners"])
        if category.name == "inside or outside":
            return following in self.rules["determiners"] or following == "."
        return True

    def _can_be(self, word: Word, index: int) -> bool:
        landmark = self._landmark(index)
        return word.name != _IN_CONTAINER or (landmark is not None and landmark.container)

    def _landmark(self, index: int) -> Category | None:
        """Return the category of the noun behind a preposition, if things can be on, under and behind it."""
        if self.lower(index + 1) not in self.rules["determiners"]:
            return None
        noun_index = self.next_noun(index + 2)
        noun = self.noun(noun_index) if noun_index is not None else None
        return noun.word.category if noun and noun.word.category.landmark else None


def _in_case_of(original: str, text: str) -> str:
    if original.isupper() and len(original) > 1:
        return text.upper()
    if len(original.split()) > 1 and original.istitle():
        return text.title()
    return text[0].upper() + text[1:] if original[0].isupper() and original[1:2] != "-" else text
