"""English and Chinese phrases for what composed scenes show, from exact metadata and human-written names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..languages import Language
from .concepts import Concept, ConceptTable

LanguageText = tuple[str, str]  # English, Chinese

# In a ring: neighbours (brown and red too) are the closest, and 青色 is said of greens and blues.
COLOURS: dict[str, LanguageText] = {
    "red": ("red", "红色"),
    "orange": ("orange", "橙色"),
    "yellow": ("yellow", "黄色"),
    "green": ("green", "绿色"),
    "cyan": ("cyan", "青色"),
    "blue": ("blue", "蓝色"),
    "purple": ("purple", "紫色"),
    "pink": ("pink", "粉色"),
    "white": ("white", "白色"),
    "gray": ("gray", "灰色"),
    "black": ("black", "黑色"),
    "brown": ("brown", "棕色"),
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
# Chinese names that an adjective without 的 would run into: 小熊猫 is another animal, 大便利店 contains another word.
_PARTICLE_BEFORE = (
    "小",
    "大",
    "熊猫",
    "龙虾",
    "米",
    "学校",
    "教堂",
    "便利店",
    "日本",
    "印度",
    "欧洲",
    "英",
    "山",
    "和服",
)
_COUNTS: dict[int, LanguageText] = {2: ("Two", "两"), 3: ("Three", "三"), 4: ("Four", "四"), 5: ("Five", "五")}

# fmt: off
# Names that are no nouns in one of the languages, name an activity, or take no adjective: never in scenes. Neither are
# names of two things ("hammer and pick"), nor those that say a size or a plate themselves.
AWKWARD_NAMES = frozenset({
    "foggy", "camping", "cooking", "locked", "unlocked", "locked with pen", "locked with key", "high voltage",
    "performing arts", "construction", "building construction", "mount fuji", "pouring liquid", "mate", "fog",
    "sun behind cloud", "sun behind small cloud", "sun behind large cloud", "sun behind rain cloud",
    "cloud with lightning and rain", "cloud with rain", "cloud with snow", "cloud with lightning",
    "clinking beer mugs", "clinking glasses", "bottle with popping cork", "airplane departure", "airplane arrival",
    "hatching chick", "landslide", "closed mailbox with raised flag", "closed mailbox with lowered flag",
    "open mailbox with raised flag", "open mailbox with lowered flag", "bell with slash", "skis", "ice skate",
    "low battery", "blossom", "moon viewing ceremony", "incoming envelope", "envelope with arrow", "wind face",
    "tennis", "bowling", "field hockey", "ice hockey", "lacrosse", "ping pong", "badminton", "cricket game",
    "wedding", "light rail", "dna", "kaaba", "milky way", "Statue of Liberty", "Tokyo tower", "map of Japan",
    "globe showing Europe-Africa", "globe showing Americas", "globe showing Asia-Australia",
    "leaf fluttering in wind", "sparkles", "hourglass done", "hourglass not done", "snowman", "money with wings",
    "chart increasing", "chart decreasing", "chart increasing with yen", "musical notes", "linked paperclips",
    "glass of milk", "pot of food", "bowl with spoon", "fork and knife with plate", "fork and knife",
    "hammer and pick", "hammer and wrench", "nut and bolt", "bow and arrow", "couch and lamp", "small airplane",
    "speaker low volume", "speaker medium volume", "speaker high volume", "hut", "sauropod", "barber pole",
})
_PLURAL_NAMES = frozenset({
    "paw prints", "grapes", "cherries", "blueberries", "peanuts", "beans", "pancakes", "french fries", "chopsticks",
    "houses", "hot springs", "fireworks", "sparkles", "Japanese dolls", "admission tickets", "nesting dolls",
    "flower playing cards", "glasses", "sunglasses", "goggles", "jeans", "gloves", "socks", "briefs", "shorts",
    "woman’s clothes", "shopping bags", "ballet shoes", "prayer beads", "musical notes", "control knobs", "maracas",
    "film frames", "books", "bookmark tabs", "card index dividers", "linked paperclips", "scissors",
    "crossed swords", "chains", "bubbles", "clinking beer mugs", "clinking glasses", "skis",
})
# Masses have no size of their own ("a small bread"): what a size belongs to.
_PORTIONS = {
    "bread": "piece of bread", "baguette bread": "piece of baguette bread", "garlic": "bulb of garlic",
    "broccoli": "head of broccoli", "bacon": "strip of bacon", "popcorn": "box of popcorn",
    "butter": "piece of butter", "salt": "shaker of salt", "canned food": "portion of canned food",
    "meat on bone": "piece of meat on bone", "cooked rice": "bowl of cooked rice",
    "curry rice": "portion of curry rice", "spaghetti": "portion of spaghetti", "oden": "skewer of oden",
    "sushi": "piece of sushi", "fried shrimp": "piece of fried shrimp", "dango": "skewer of dango",
    "soft ice cream": "cone of soft ice cream", "shaved ice": "cup of shaved ice", "ice cream": "cup of ice cream",
    "sake": "bottle of sake", "bubble tea": "cup of bubble tea", "ice": "piece of ice", "coral": "piece of coral",
    "wood": "piece of wood", "fire": "fire", "thread": "spool of thread", "yarn": "ball of yarn",
    "soap": "bar of soap", "luggage": "piece of luggage",
}
_MASS_NAMES = frozenset({
    *_PORTIONS, "light rail", "tennis", "bowling", "field hockey", "ice hockey", "lacrosse", "ping pong", "badminton",
    "money with wings", "dna", "foggy", "fog", "camping", "cooking", "locked", "unlocked", "locked with pen",
    "locked with key", "high voltage", "performing arts", "construction", "building construction", "mount fuji",
    "pouring liquid", "mate",
})
# Things that a drawing or a careful speaker may not tell apart, beyond what `ConceptTable.near_synonyms` finds.
_LOOK_ALIKES = (
    ("monkey face", "monkey", "gorilla", "orangutan"),
    ("dog face", "dog", "guide dog", "service dog", "poodle"),
    ("wolf", "fox", "dog face"),
    ("cow face", "ox", "water buffalo", "cow", "bison"),
    ("pig face", "pig", "boar"),
    ("ram", "ewe", "goat"),
    ("camel", "two-hump camel", "llama"),
    ("mouse face", "mouse", "rat", "hamster"),
    ("swan", "goose", "duck"),
    ("dolphin", "orca", "whale", "spouting whale", "shark"),
    ("squid", "octopus"),
    ("lobster", "shrimp", "crab"),
    ("bug", "worm"),
    ("fly", "mosquito", "honeybee"),
    ("bug", "ant", "beetle", "lady beetle", "cricket", "cockroach"),
    ("cherry blossom", "white flower", "hibiscus", "rosette", "lotus"),
    ("rose", "tulip", "wilted flower", "bouquet", "hyacinth"),
    ("seedling", "herb", "potted plant", "leafy green"),
    ("shamrock", "four leaf clover", "herb"),
    ("evergreen tree", "deciduous tree", "Christmas tree", "tanabata tree", "leafless tree"),
    ("maple leaf", "fallen leaf"),
    ("melon", "watermelon"),
    ("tangerine", "lemon", "lime", "peach"),
    ("leafy green", "green salad"),
    ("chestnut", "peanuts"),
    ("bread", "croissant", "baguette bread", "flatbread", "bagel", "sandwich"),
    ("bagel", "doughnut", "pretzel"),
    ("taco", "burrito", "stuffed flatbread", "tamale"),
    ("meat on bone", "poultry leg", "cut of meat"),
    ("cooked rice", "curry rice", "rice ball", "rice cracker"),
    ("cookie", "fortune cookie", "moon cake"),
    ("birthday cake", "shortcake", "cupcake", "pie", "custard"),
    ("soft ice cream", "shaved ice", "ice cream"),
    ("hot beverage", "teacup without handle", "teapot"),
    ("cup with straw", "bubble tea", "beverage box", "tropical drink", "cocktail glass", "wine glass"),
    ("snow-capped mountain", "mountain", "volcano", "national park", "desert", "desert island",
     "sunrise over mountains"),
    ("classical building", "bank", "office building", "hotel", "love hotel", "school", "department store", "hospital",
     "post office", "Japanese post office", "convenience store", "factory"),
    ("houses", "derelict house", "house", "house with garden"),
    ("church", "mosque", "hindu temple", "synagogue", "Japanese castle", "castle"),
    ("cityscape", "night with stars", "cityscape at dusk", "sunrise", "sunset", "sunrise over mountains",
     "bridge at night"),
    ("locomotive", "railway car", "high-speed train", "bullet train", "train", "metro", "station", "tram", "monorail",
     "mountain railway", "tram car", "suspension railway"),
    ("bus", "oncoming bus", "trolleybus", "minibus", "tram car", "tram"),
    ("police car", "oncoming police car", "taxi", "oncoming taxi", "automobile", "oncoming automobile",
     "sport utility vehicle", "pickup truck", "racing car"),
    ("delivery truck", "articulated lorry", "pickup truck", "ambulance", "fire engine", "minibus"),
    ("motorcycle", "motor scooter", "bicycle", "kick scooter"),
    ("manual wheelchair", "motorized wheelchair"),
    ("sailboat", "canoe", "speedboat", "passenger ship", "ferry", "motor boat", "ship"),
    ("suspension railway", "mountain cableway", "aerial tramway"),
    ("watch", "alarm clock", "stopwatch", "timer clock", "mantelpiece clock"),
    ("new moon", "waxing crescent moon", "first quarter moon", "waxing gibbous moon", "full moon",
     "waning gibbous moon", "last quarter moon", "waning crescent moon", "crescent moon", "new moon face",
     "first quarter moon face", "last quarter moon face", "full moon face"),
    ("sun", "sun with face", "full moon face"),
    ("star", "glowing star", "shooting star", "comet"),
    ("tornado", "cyclone"),
    ("closed umbrella", "umbrella", "umbrella with rain drops", "umbrella on ground", "beach with umbrella"),
    ("fireworks", "sparkler", "firecracker"),
    ("party popper", "confetti ball"),
    ("pine decoration", "tanabata tree"),
    ("Japanese dolls", "nesting dolls"),
    ("ribbon", "reminder ribbon", "knot"),
    ("military medal", "sports medal", "1st place medal", "2nd place medal", "3rd place medal"),
    ("baseball", "softball"),
    ("american football", "rugby football"),
    ("video game", "joystick"),
    ("thread", "yarn", "sewing needle"),
    ("glasses", "sunglasses", "goggles", "diving mask"),
    ("lab coat", "coat", "martial arts uniform"),
    ("safety vest", "running shirt", "t-shirt", "woman’s clothes"),
    ("dress", "kimono", "sari", "woman’s clothes"),
    ("one-piece swimsuit", "briefs", "shorts", "bikini"),
    ("purse", "handbag", "clutch bag", "money bag", "backpack", "shopping bags"),
    ("man’s shoe", "running shoe", "hiking boot", "flat shoe", "ballet shoes", "woman’s boot"),
    ("thong sandal", "woman’s sandal", "high-heeled shoe", "flat shoe"),
    ("woman’s hat", "top hat", "graduation cap", "billed cap"),
    ("military helmet", "rescue worker’s helmet"),
    ("muted speaker", "loudspeaker", "megaphone"),
    ("trumpet", "trombone", "postal horn", "saxophone"),
    ("guitar", "violin", "banjo"),
    ("telephone", "telephone receiver", "mobile phone", "mobile phone with arrow", "fax machine", "pager"),
    ("computer disk", "floppy disk", "optical disk", "dvd"),
    ("laptop", "desktop computer"),
    ("computer mouse", "trackball"),
    ("movie camera", "film projector", "camera", "camera with flash", "video camera"),
    ("notebook with decorative cover", "closed book", "green book", "blue book", "orange book", "books", "notebook",
     "ledger"),
    ("page with curl", "scroll", "page facing up", "newspaper", "rolled-up newspaper", "memo"),
    ("tear-off calendar", "calendar", "spiral calendar", "spiral notepad"),
    ("outbox tray", "inbox tray", "e-mail", "envelope"),
    ("pencil", "pen", "crayon", "paintbrush", "fountain pen", "black nib"),
    ("file folder", "open file folder", "card index dividers", "card index"),
    ("link", "chains", "broken chain"),
    ("hammer", "pick", "axe"),
    ("white cane", "crutch"),
    ("drop of blood", "droplet"),
    ("basket", "bucket", "wastebasket"),
)
# What is also true of more special things: a parrot is a bird.
_KINDS = {
    "bird": ("turkey", "chicken", "rooster", "baby chick", "front-facing baby chick", "penguin", "dove", "eagle",
             "duck", "swan", "owl", "dodo", "flamingo", "peacock", "parrot", "black bird", "goose", "phoenix"),
    "fish": ("tropical fish", "blowfish", "shark"),
    "t-shirt": ("woman’s clothes", "running shirt"),
    "shield": ("military medal",),
    "jar": ("amphora", "honey pot", "funeral urn"),
    "woman’s clothes": ("coat", "lab coat", "jeans", "scarf"),
    "musical score": ("musical keyboard",),
    "soccer ball": ("volleyball",),
    "wheel": ("ferris wheel",),
    "jellyfish": ("octopus", "squid"),
    "bell": ("bellhop bell", "wind chime"),
    "mushroom": ("brown mushroom",),
    "spiral shell": ("snail",),
    "ring": ("gem stone",),
    "package": ("takeout box", "wrapped gift"),
    "root vegetable": ("carrot", "potato", "onion", "garlic", "ginger root", "roasted sweet potato"),
}
# fmt: on
# Spelling misleads about the first sound of these.
_CONSONANT_SOUNDS = ("unicorn", "uniform", "ufo", "euro", "ewe", "one-")
_VOWEL_SOUNDS = ("hour", "x-ray")


@dataclass(frozen=True)
class Description:
    """The properties of one object that an expression says; None is left unsaid."""

    concept_id: int
    size: str | None = None
    colour: str | None = None  # of the plate it lies on
    shape: str | None = None  # of the plate
    position: tuple[int, int] | None = None


def is_plural(name_en: str) -> bool:
    """Tell whether an English concept name takes plural verbs."""
    return name_en in _PLURAL_NAMES


def is_mass(name_en: str) -> bool:
    """Tell whether an English concept name is a mass noun, which takes neither article nor plural."""
    return name_en in _MASS_NAMES


def portion(name_en: str) -> str:
    """Return what a size belongs to: the name itself or, where it is a mass, a portion of it ("piece of bread")."""
    return _PORTIONS.get(name_en, name_en)


def takes_particle(noun_zh: str) -> bool:
    """Tell whether a Chinese adjective of one character needs 的 before this noun.

    It does before one character, before a phrase, and before a word that it would run into.
    """
    return len(noun_zh) == 1 or "的" in noun_zh or noun_zh.startswith(_PARTICLE_BEFORE)


def look_alikes(names_en: Sequence[str]) -> np.ndarray:
    """Tell which concepts a drawing or a careful speaker may not tell apart, by a list made by hand.

    Args:
        names_en: N English concept names.

    Returns:
        (N, N) bool, symmetric, False on the diagonal.
    """
    row = {name: index for index, name in enumerate(names_en)}
    pairs = [pair for group in _LOOK_ALIKES for pair in combinations(group, 2)]
    pairs += [(kind, special) for kind, specials in _KINDS.items() for special in specials]
    matrix = np.zeros((len(row), len(row)), dtype=bool)
    for first, second in pairs:
        if first in row and second in row:
            matrix[row[first], row[second]] = matrix[row[second], row[first]] = True
    return matrix


def similar_colours(colour: str) -> tuple[str, str]:
    """Return the two neighbours of a colour in the ring of `COLOURS`, which are no clear negatives for it."""
    names = list(COLOURS)
    place = names.index(colour)
    return names[place - 1], names[(place + 1) % len(names)]


def with_article(phrase: str, name_en: str) -> str:
    """Return an English noun phrase with "a" or "an", or bare where the noun is a plural or a mass.

    Args:
        phrase: The noun, perhaps with adjectives and complements.
        name_en: The concept's name, which says what kind of noun it is.
    """
    if is_plural(name_en) or is_mass(name_en):
        return phrase
    word = phrase.lower()
    vowel = word.startswith(_VOWEL_SOUNDS) or (word[0] in "aeiou" and not word.startswith(_CONSONANT_SOUNDS))
    return f"{'an' if vowel else 'a'} {phrase}"


def listing(items: Sequence[str], language: Language) -> str:
    """Return `a, b and c`, or the Chinese equivalent."""
    if len(items) == 1:
        return items[0]
    separator, conjunction = (", ", " and ") if language == "en" else ("、", "和")
    return separator.join(items[:-1]) + conjunction + items[-1]


def expression(description: Description, concepts: ConceptTable, language: Language) -> str:
    """Return e.g. `a small bone on a brown round plate on the left` or `左侧的棕色圆形底板上的小骨头`."""
    concept = concepts[description.concept_id]
    if language == "en":
        text = with_article(concept.name_en, concept.name_en)
        if description.size:
            sized = f"{SIZES[description.size][0]} {portion(concept.name_en)}"
            text = sized if is_plural(concept.name_en) else f"a {sized}"
        if description.colour and description.shape:
            plate = f"{COLOURS[description.colour][0]} {SHAPES[description.shape][0]} plate"
            text += f" on {with_article(plate, 'plate')}"
        return f"{text} {POSITIONS[description.position][0]}" if description.position else text
    text = concept.name_zh
    if description.size:
        text = f"{SIZES[description.size][1]}{'的' if takes_particle(text) else ''}{text}"
    if description.colour and description.shape:
        text = f"{COLOURS[description.colour][1]}{SHAPES[description.shape][1]}底板上的{text}"
    return f"{POSITIONS[description.position][1]}的{text}" if description.position else text


def related_expression(
    description: Description, relation: str, other: Concept, concepts: ConceptTable, language: Language
) -> str:
    """Return an expression, and where its object is relative to another one."""
    text = expression(description, concepts, language)
    if language == "en":
        return f"{text}, {RELATIONS[relation][0]} {with_article(other.name_en, other.name_en)}"
    return f"{text}，在{other.name_zh}的{RELATIONS[relation][1]}"


def object_sentence(description: Description, concepts: ConceptTable, language: Language) -> str:
    """Return a sentence of one object and its position."""
    assert description.position is not None
    place = POSITIONS[description.position][_index(language)]
    unplaced = Description(description.concept_id, description.size, description.colour, description.shape)
    text = expression(unplaced, concepts, language)
    if language == "zh":
        return f"{place}是{text}。"
    verb = "are" if is_plural(concepts[description.concept_id].name_en) else "is"
    return f"{place[0].upper()}{place[1:]} {verb} {text}."


def count_sentence(count: int, background_colour: str | None, language: Language) -> str:
    """Return a sentence of how many objects there are, and on what; None stands for a photograph."""
    number = _COUNTS[count][_index(language)]
    if language == "zh":
        place = "一张照片上" if background_colour is None else f"纯{COLOURS[background_colour][1]}背景上"
        return f"{place}有{number}个物体。"
    if background_colour is None:
        return f"{number} objects in front of a photograph."
    background = f"plain {COLOURS[background_colour][0]} background"
    return f"{number} objects on a {background}."


def relation_sentence(first: Concept, relation: str, second: Concept, language: Language) -> str:
    """Return a sentence of where the first object is relative to the second."""
    if language == "zh":
        return f"{first.name_zh}在{second.name_zh}的{RELATIONS[relation][1]}。"
    verb = "are" if is_plural(first.name_en) else "is"
    return f"The {first.name_en} {verb} {RELATIONS[relation][0]} the {second.name_en}."


def largest_sentence(concept: Concept, language: Language) -> str:
    """Return a sentence of which object is the largest, worded so that the noun's number doesn't matter."""
    return f"最大的物体是{concept.name_zh}。" if language == "zh" else f"Nothing is larger than the {concept.name_en}."


def joined(sentences: Sequence[str], language: Language) -> str:
    """Join sentences to one text."""
    return (" " if language == "en" else "").join(sentences)


def _index(language: Language) -> int:
    return 0 if language == "en" else 1
