"""English and Chinese phrases for what composed scenes show, from exact metadata and human-written names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .concepts import Concept, ConceptTable

Language = Literal["en", "zh"]
LanguageText = tuple[str, str]  # English, Chinese

COLOURS: dict[str, LanguageText] = {
    "red": ("red", "红色"),
    "orange": ("orange", "橙色"),
    "yellow": ("yellow", "黄色"),
    "green": ("green", "绿色"),
    "cyan": ("cyan", "青色"),
    "blue": ("blue", "蓝色"),
    "purple": ("purple", "紫色"),
    "pink": ("pink", "粉色"),
    "brown": ("brown", "棕色"),
    "black": ("black", "黑色"),
    "white": ("white", "白色"),
    "gray": ("gray", "灰色"),
}
SHAPES: dict[str, LanguageText] = {"round": ("round", "圆形"), "square": ("square", "方形")}
SIZES: dict[str, LanguageText] = {"small": ("small", "小"), "large": ("large", "大")}
# (row, column) of a 3 x 3 grid
POSITIONS: dict[tuple[int, int], LanguageText] = {
    (0, 0): ("at the top left", "左上方"),
    (0, 1): ("at the top", "上方"),
    (0, 2): ("at the top right", "右上方"),
    (1, 0): ("on the left", "左侧"),
    (1, 1): ("in the middle", "中间"),
    (1, 2): ("on the right", "右侧"),
    (2, 0): ("at the bottom left", "左下方"),
    (2, 1): ("at the bottom", "下方"),
    (2, 2): ("at the bottom right", "右下方"),
}
RELATIONS: dict[str, LanguageText] = {
    "left": ("to the left of", "左边"),
    "right": ("to the right of", "右边"),
    "above": ("above", "上面"),
    "below": ("below", "下面"),
}
_COUNTS: dict[int, LanguageText] = {2: ("Two", "两"), 3: ("Three", "三"), 4: ("Four", "四"), 5: ("Five", "五")}

# fmt: off
# Names that are no nouns in one of the languages, or take no adjective: never in scenes.
AWKWARD_NAMES = frozenset({
    "foggy", "camping", "cooking", "locked", "unlocked", "locked with pen", "locked with key", "high voltage",
    "performing arts", "construction", "building construction", "mount fuji", "pouring liquid", "mate", "fog",
    "sun behind cloud", "sun behind small cloud", "sun behind large cloud", "sun behind rain cloud",
    "cloud with lightning and rain", "cloud with rain", "cloud with snow", "cloud with lightning",
    "clinking beer mugs", "clinking glasses", "bottle with popping cork", "airplane departure", "airplane arrival",
    "hatching chick", "landslide", "closed mailbox with raised flag", "closed mailbox with lowered flag",
    "open mailbox with raised flag", "open mailbox with lowered flag", "bell with slash", "skis", "ice skate",
    "low battery", "blossom", "moon viewing ceremony", "incoming envelope", "envelope with arrow", "wind face",
})
_PLURAL_NAMES = frozenset({
    "paw prints", "grapes", "cherries", "blueberries", "peanuts", "beans", "pancakes", "french fries", "chopsticks",
    "houses", "hot springs", "fireworks", "sparkles", "Japanese dolls", "admission tickets", "nesting dolls",
    "flower playing cards", "glasses", "sunglasses", "goggles", "jeans", "gloves", "socks", "briefs", "shorts",
    "woman’s clothes", "shopping bags", "ballet shoes", "prayer beads", "musical notes", "control knobs", "maracas",
    "film frames", "books", "bookmark tabs", "card index dividers", "linked paperclips", "scissors",
    "crossed swords", "chains", "bubbles", "clinking beer mugs", "clinking glasses", "skis",
})
_MASS_NAMES = frozenset({
    "bread", "baguette bread", "garlic", "broccoli", "bacon", "popcorn", "butter", "salt", "canned food",
    "meat on bone", "cooked rice", "curry rice", "spaghetti", "oden", "sushi", "fried shrimp", "dango",
    "soft ice cream", "shaved ice", "ice cream", "sake", "bubble tea", "ice", "coral", "wood", "light rail", "fire",
    "tennis", "bowling", "field hockey", "ice hockey", "lacrosse", "ping pong", "badminton", "thread", "yarn",
    "money with wings", "dna", "soap", "foggy", "fog", "camping", "cooking", "locked", "unlocked", "locked with pen",
    "locked with key", "high voltage", "performing arts", "construction", "building construction", "mount fuji",
    "pouring liquid", "mate",
})
# fmt: on
# Spelling misleads about the first sound of these.
_CONSONANT_SOUNDS = ("unicorn", "euro", "ewe", "one-")
_VOWEL_SOUNDS = ("hour", "x-ray")


@dataclass(frozen=True)
class Description:
    """What an expression says of one object; None is left unsaid."""

    concept_id: int
    size: str | None = None
    colour: str | None = None  # of the plate it lies on
    shape: str | None = None  # of the plate
    position: tuple[int, int] | None = None


def is_plural(name_en: str) -> bool:
    """Whether an English concept name takes plural verbs."""
    return name_en in _PLURAL_NAMES


def with_article(phrase: str, name_en: str) -> str:
    """An English noun phrase with "a" or "an", or bare where the noun is a plural or a mass.

    Args:
        phrase: the noun, perhaps with adjectives and complements.
        name_en: the concept's name, which says what kind of noun it is.
    """
    if name_en in _PLURAL_NAMES or name_en in _MASS_NAMES:
        return phrase
    word = phrase.lower()
    vowel = word.startswith(_VOWEL_SOUNDS) or (word[0] in "aeiou" and not word.startswith(_CONSONANT_SOUNDS))
    return f"{'an' if vowel else 'a'} {phrase}"


def listing(items: Sequence[str], language: Language) -> str:
    """`a, b and c`, or the Chinese equivalent."""
    if len(items) == 1:
        return items[0]
    separator, conjunction = (", ", " and ") if language == "en" else ("、", "和")
    return separator.join(items[:-1]) + conjunction + items[-1]


def expression(description: Description, concepts: ConceptTable, language: Language) -> str:
    """`a small bone on a brown round plate on the left` / `左侧的棕色圆形底板上的小骨头`."""
    return _expression_en(description, concepts) if language == "en" else _expression_zh(description, concepts)


def related_expression(
    description: Description, relation: str, other: Concept, concepts: ConceptTable, language: Language
) -> str:
    """An expression and where its object is relative to another one."""
    text = expression(description, concepts, language)
    if language == "en":
        return f"{text}, {RELATIONS[relation][0]} {with_article(other.name_en, other.name_en)}"
    return f"{text}，在{other.name_zh}的{RELATIONS[relation][1]}"


def object_sentence(description: Description, concepts: ConceptTable, language: Language) -> str:
    """One object and its position, as a sentence."""
    assert description.position is not None
    place = POSITIONS[description.position][_index(language)]
    unplaced = Description(description.concept_id, description.size, description.colour, description.shape)
    text = expression(unplaced, concepts, language)
    if language == "zh":
        return f"{place}是{text}。"
    verb = "are" if is_plural(concepts[description.concept_id].name_en) else "is"
    return f"{_capitalised(place)} {verb} {text}."


def count_sentence(count: int, background_colour: str | None, language: Language) -> str:
    """How many objects there are, and on what; None stands for a photograph."""
    number = _COUNTS[count][_index(language)]
    if language == "zh":
        place = "一张照片上" if background_colour is None else f"纯{COLOURS[background_colour][1]}背景上"
        return f"{place}有{number}个物体。"
    if background_colour is None:
        return f"{number} objects in front of a photograph."
    background = f"plain {COLOURS[background_colour][0]} background"
    return f"{number} objects on a {background}."


def relation_sentence(first: Concept, relation: str, second: Concept, language: Language) -> str:
    """Where the first object is relative to the second."""
    if language == "zh":
        return f"{first.name_zh}在{second.name_zh}的{RELATIONS[relation][1]}。"
    verb = "are" if is_plural(first.name_en) else "is"
    return f"The {first.name_en} {verb} {RELATIONS[relation][0]} the {second.name_en}."


def largest_sentence(concept: Concept, language: Language) -> str:
    """Which object is the largest; worded so that the noun's number doesn't matter."""
    return f"最大的物体是{concept.name_zh}。" if language == "zh" else f"Nothing is larger than the {concept.name_en}."


def joined(sentences: Sequence[str], language: Language) -> str:
    """Sentences as one text."""
    return (" " if language == "en" else "").join(sentences)


def _expression_en(description: Description, concepts: ConceptTable) -> str:
    name = concepts[description.concept_id].name_en
    adjective = f"{SIZES[description.size][0]} " if description.size else ""
    text = with_article(adjective + name, name)
    if description.colour and description.shape:
        plate = f"{COLOURS[description.colour][0]} {SHAPES[description.shape][0]} plate"
        text += f" on {with_article(plate, 'plate')}"
    return f"{text} {POSITIONS[description.position][0]}" if description.position else text


def _expression_zh(description: Description, concepts: ConceptTable) -> str:
    text = concepts[description.concept_id].name_zh
    if description.size:
        size = SIZES[description.size][1]
        text = f"{size}的{text}" if text[0] in "小大" else size + text
    if description.colour and description.shape:
        text = f"{COLOURS[description.colour][1]}{SHAPES[description.shape][1]}底板上的{text}"
    return f"{POSITIONS[description.position][1]}的{text}" if description.position else text


def _index(language: Language) -> int:
    return 0 if language == "en" else 1


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]
