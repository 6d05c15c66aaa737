"""Phrases of English texts: every word gets a tag of one letter, and noun phrases are patterns of tags."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..lexicon import Vocabulary
from ..lexicon.english import Unit, english_units

# Tags: D article or number, W noun or adjective, G degree, P preposition, V verb or participle, H "has", B "is",
# O "it", R "which", T "there" and "where", J "and", N negation, "," and ".".
_NOUN_PHRASE = re.compile("D*G?W+")
_RELATION = re.compile("(?:G?[PVH]+(?:D*G?W+|O)?)+")
_BEGIN_OF_RELATION = re.compile("G?[PVH]+")

_TAG_OF = {
    **dict.fromkeys(("is", "are", "was", "were", "be", "been", "being", "'s"), "B"),
    **dict.fromkeys(("has", "have", "had", "having"), "H"),
    **dict.fromkeys(("which", "that", "who", "whom"), "R"),
    **dict.fromkeys(("it", "they", "them", "he", "she", "him", "itself", "themselves"), "O"),
    **dict.fromkeys(("and", "or", "but", "plus", "as well as", "&", "while", "also"), "J"),
    **dict.fromkeys(("very", "quite", "rather", "really", "extremely", "fairly", "so", "too", "just", "all"), "G"),
    **dict.fromkeys(("a lot", "a few", "a bit", "a couple", "a number", "a variety", "a dozen", "a single"), "D"),
    **dict.fromkeys((".", "!", "?", ";", ":"), "."),
    **dict.fromkeys(("there", "here", "where", "what", "there's", "here's", "where's", "what's"), "T"),
    "whose": "P",
}
_VERBS = ("posture", "movement", "handling", "gaze", "travel")  # categories of relations that are verbs
_PLACES = ("place", "depth", "indoors", "daytime", "inside or outside")
_PICTURE = "picture|photo|photograph|image|scene|drawing|frame|snapshot"
_GENERIC = re.compile(rf"(?:{_PICTURE}|object|thing|item|one)s?")
_OF_THE_PICTURE = re.compile(
    rf"\s*\b(?:of|in|on|in front of|within)\s+(?:the|this|an?)\s+(?:{_PICTURE})$", re.IGNORECASE
)
# "with a plate under it": the thing is on the plate.
_UNDER_IT = re.compile(
    r"(?:with|has|have|having)\s+(.+?)\s+(?:under|underneath|beneath|below)\s+(?:it|them)", re.IGNORECASE
)
_BEFORE_LANDMARK = re.compile(r"^.*\b(?:the|an?|this|that|its|his|her|their)\s+", re.I)  # "to the left of the"
# "show me a dog": what is asked of a search engine, not of the picture.
_REQUEST = re.compile(
    r"^\s*(?:please\s+)?(?:(?:can|could)\s+you\s+)?"
    r"(?:(?:show|give|get|find)\s+me|find|(?:search|look(?:ing)?)\s+for|i(?:['’]m|\s+am)\s+looking\s+for)\s+",
    re.IGNORECASE,
)
_HAS = re.compile("ha(?:s|ve|ving) ", re.IGNORECASE)


@dataclass(eq=False)  # two dogs of a text stay two
class _Thing:
    """A noun and what is said of it."""

    determiner: str
    noun: str  # with the adjectives before it
    relations: list[str] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)  # said elsewhere: "which is big"
    lead: list[str] = field(default_factory=list)  # relations said before it: "on the left is ..."

    def text(self, things: list[_Thing]) -> str:
        # What is beside another thing of the text is left out: that has a phrase and a window of its own.
        others = [f" {thing.noun}".lower() for thing in things if thing is not self]
        relations = [
            relation
            for relation in (*self.relations, *self.lead)
            if not any(other.endswith(f" {_BEFORE_LANDMARK.sub('', relation).lower()}") for other in others)
        ]
        determiner = self.determiner
        if determiner.lower() in ("a", "an") and self.attributes:
            determiner = "an" if self.attributes[0][0] in "aeiou" else "a"
        return " ".join(filter(None, (determiner, *self.attributes, self.noun, *relations)))

    @property
    def head(self) -> str:
        return self.noun.lower().rpartition(" ")[2]


def english_phrases(text: str, vocabulary: Vocabulary) -> list[str]:
    """Return the phrases of an English text, see [`split_phrases`]; none where it has no noun phrase."""
    text = _REQUEST.sub("", text)
    units = english_units(text, vocabulary)
    tags = _tags(units, vocabulary)
    things: list[_Thing] = []
    start = 0
    for end in [*(match.start() for match in re.finditer(r"\.", tags)), len(tags)]:
        _read_clause(text, units[start:end], tags[start:end], things)
        start = end + 1
    return [thing.text(things) for thing in things]


def _tags(units: list[Unit], vocabulary: Vocabulary) -> str:
    rules = vocabulary.rules["en"]
    tags: list[str] = []
    for index, unit in enumerate(units):
        previous = tags[-1] if tags else "."
        relation = unit.form("relation")
        category = relation.word.category.name if relation else ""
        following = units[index + 1].lower if index + 1 < len(units) else "."
        is_quantity = previous == "D" and units[index - 1].lower in _TAG_OF  # "a couple" of dogs
        if unit.lower in _TAG_OF:
            tag = _TAG_OF[unit.lower]
        elif unit.lower in rules["negations"]:
            tag = "P" if unit.lower == "without" else "N"
        elif unit.lower == "of":
            tag = "D" if is_quantity else "P"
        elif unit.lower in rules["determiners"] or unit.lower.isdigit():
            tag = "D"
        elif category in _PLACES:
            tag = "P"
        elif category in _VERBS or unit.lower in rules["after_noun"]:
            tag = "W" if previous == "D" else "V"  # "a sleeping cat", "on the left"
        elif unit.lower in rules["function_words"]:
            tag = "P"
        elif previous == "W" and unit.lower.endswith("ing") and following in rules["determiners"]:
            tag = "V"  # "a man repairing a bike"
        elif previous in "OR" and unit.lower.endswith("s"):
            tag = "V"  # "it hangs", "that hangs"
        else:
            tag = "," if unit.is_sign() else "W"
        tags.append(tag)
    for index in range(1, len(units) - 1):  # "black and white", "big, red"
        beside = (units[index - 1], units[index + 1])
        if tags[index] in "J," and all(unit.form("attribute") and not unit.form("object") for unit in beside):
            tags[index] = "W"
    return "".join(tags)


def _read_clause(text: str, units: list[Unit], tags: str, things: list[_Thing]) -> None:
    """Add what a clause speaks of to `things`, and to things that are there what it says of them."""

    def said(first: int, last: int) -> str:
        words = text[units[first].start : units[last - 1].end]
        # The first word of a sentence is no name if it is an article or a preposition.
        return words[0].lower() + words[1:] if first == 0 and tags[0] in "DPGT" else words

    pending: list[str] = []  # relations that stand before their noun
    thing: _Thing | None = None
    index = 0
    while index < len(tags):
        tag, noun_phrase, relation = tags[index], _NOUN_PHRASE.match(tags, index), _RELATION.match(tags, index)
        if tag == "N":  # what follows is not there
            index = tags.find(",", index) if "," in tags[index:] else len(tags)
            continue
        if tag == "O" and things:
            thing = things[-1]
        if relation and thing is not None and _GENERIC.fullmatch(thing.head):  # "a photo of a dog": the dog counts
            things.remove(thing)
            thing = None
            begin = _BEGIN_OF_RELATION.match(tags, index)
            assert begin is not None
            index = begin.end()
        elif relation and tags[relation.end() : relation.end() + 1] == "N":  # "with no people"
            index = relation.end()
        elif relation:
            place = _relation_text(said(index, relation.end()))
            (pending if thing is None else thing.relations).extend([place] if place else [])
            index = relation.end()
        elif noun_phrase:
            first = index + len(re.match("D*", tags[index:]).group())  # type: ignore[union-attr]
            determiner, noun = said(index, first) if first > index else "", said(first, noun_phrase.end())
            last = units[noun_phrase.end() - 1]
            is_noun = any(form.word.is_noun() for form in last.forms) and not last.form("attribute")
            # "is big", "is big and heavy", "(big)"
            is_said_of = tags[index - 1 : index] == "B" or ("B" in tags[:index] and bool(last.form("attribute")))
            is_said_of = is_said_of or (units[index - 1].text == "(" and bool(last.form("attribute")))
            if is_said_of and not determiner and thing is not None and not is_noun:
                thing.attributes.append(noun)
            else:
                thing = _same_thing(determiner, noun, things) or _Thing(determiner, noun)
                if thing not in things:
                    things.append(thing)
                thing.lead += pending
                pending = []
            index = noun_phrase.end()
        else:
            index += 1
    if thing is not None and _GENERIC.fullmatch(thing.head) and not thing.relations:
        things.remove(thing)


def _same_thing(determiner: str, noun: str, things: list[_Thing]) -> _Thing | None:
    """Return the thing that "the box" or "this box" speaks of again."""
    if determiner.lower() not in ("the", "this", "that", "these", "those"):
        return None
    return next((thing for thing in things if f" {thing.noun}".lower().endswith(f" {noun.lower()}")), None)


def _relation_text(relation: str) -> str:
    """Return a relation without the picture in it ("on the left of the image"), in its plainest form."""
    relation = _OF_THE_PICTURE.sub("", relation)
    under = _UNDER_IT.fullmatch(relation)
    return f"on {under.group(1)}" if under else _HAS.sub("with ", relation, count=1)
