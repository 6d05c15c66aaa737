"""Phrases of Chinese texts: every expression gets a tag of one letter, and clauses are patterns of tags."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..lexicon import Vocabulary
from ..lexicon.chinese import Unit, chinese_units

# Tags: N noun or unknown, A attribute, C number with measure word, c measure word alone, G degree, d 的, L place, Z 在,
# V verb, H 有 or 是, O 它, "," between clauses, "." between sentences.
_DESCRIPTION = "[NACGdL]"
_PLACE_ALONE = re.compile(f"[VZ]*Z(?P<place>{_DESCRIPTION}+)V*")  # 在中间, 放在紫色圆盘上
_EXISTENCE = re.compile(f"Z?(?P<place>{_DESCRIPTION}*L)(?:H|V+H?)c?(?P<rest>{_DESCRIPTION}.*)")  # 左边有一只猫
_BARE_EXISTENCE = re.compile(f"O?Hc?(?P<rest>{_DESCRIPTION}.*)")  # 有一只猫
_PLACED = re.compile(f"(?P<thing>{_DESCRIPTION}+?|O)d?V*Z(?P<place>{_DESCRIPTION}+)V*")  # 猫坐在桌子上
# Without 很, which says nothing there. 猫很大, 碗是红色的
_QUALITY = re.compile("(?P<thing>[NACGdL]*[NA]|O)?(?:H(?=[GA]+d)|(?=G))G*(?P<quality>A+)d?")
_DIMENSION = re.compile("(?P<thing>N+)G*(?P<quality>A+)d?")  # 个头大
_COPULA = re.compile(f"(?P<thing>{_DESCRIPTION}+)Hc?(?P<rest>{_DESCRIPTION}.*)")  # 最大的物体是猫

_TAG_OF = {
    **dict.fromkeys("的地", "d"),
    "在": "Z",
    **dict.fromkeys("有是", "H"),
    **dict.fromkeys("它其他她", "O"),
    **dict.fromkeys(("和", "与", "及", "跟", "并", "，", ",", "、", "（", "）", "(", ")", "and", "or"), ","),
    **dict.fromkeys("。！？；：.!?;:\n", "."),
    **dict.fromkeys(("一些", "一群", "一排", "一堆", "一系列"), "C"),
    **dict.fromkeys(("中间", "中央", "中心", "图中", "画面中", "图片中", "照片中"), "L"),
    **dict.fromkeys(("边缘", "四周", "两侧", "两旁", "两边"), "L"),
}
# Plain expressions and what says the same.
_PLAIN = {
    "": re.compile(
        # 请帮我找 and 我想看 are asked of a search engine, 在哪里 and 吗 make a question of a description.
        "看上去|看起来|显得|^请问|^请?(?:帮我|给我|我想|我要)(?:找找?|搜索|搜搜?|看看?)(?:一下)?"
        "|^请?(?:找找?(?![零茬])|搜索(?!引擎)|搜一搜|搜搜|搜(?=一下))(?:一下)?"
        "|在(?:哪里|哪儿|什么地方)|在哪(?=[，。？！,?!]|$)|(?:吗|(?<!毛)呢)(?=[，。？！,?!]|$)"
    ),
    "有": re.compile("有没有|(?:哪里|哪儿|什么地方)有|(?:可以|能够?)?看(?:得?到|见)|存在着?|[还也都又]有"),
    "在": re.compile("位于|处于"),
    "和": re.compile("以及|并且|外加"),
    "它": re.compile("[它他她]们"),
}
_PLACE_CATEGORIES = ("place", "inside or outside", "side", "end", "depth", "indoors")
_VERB_CATEGORIES = ("posture", "movement", "handling", "gaze", "travel")
_VERB_ENDINGS = ("着", "在", "了", "满")  # of 放着, 放在
_VERBS = frozenset("放摆立挂停站坐躺趴蹲骑牵抱穿拿戴推拉养长写画印贴铺垫盖悬飘浮靠装盛")
_WITHIN_WORDS = "“”‘’-·'"
_UNDER = ("下面", "底下", "下边", "下头", "身下")
_NEGATIONS = ("没有", "没", "不是", "并非", "除了", "缺少")
_DIMENSIONS = ("个头", "体积", "个子", "尺寸", "大小", "颜色", "形状", "外形")
_PICTURE = re.compile("(?:这|此|该|整|一)?[张幅个]?(?:图|图片|画面|照片|相片|图像|画|场景)(?:里面?|中|上|内|当中)?")
_SIDE = re.compile("的?[左右]?[上下前后里内外旁中]?[面方边侧头角间]?$")  # 的左边 of 猫的左边
# 有猫的图片, but not 墙上有一张猫的照片, where the picture is the thing
_PICTURE_OF = re.compile("^(?:[一几]?[张幅])?有(?!一?[张幅])([^，。？！,?!]+)的(?:图片|照片|图)(?=[，。？！,?!]|$)")
_GENERIC = re.compile(f".*(?:物体|物品|东西|事物)|{_PICTURE.pattern}")


@dataclass
class _Thing:
    """A noun and what is said of it."""

    noun: str  # with what stands before it
    places: list[str]
    attributes: list[str] = field(default_factory=list)  # said elsewhere: 个头大

    def text(self, things: list[_Thing]) -> str:
        # Sides of the picture first, then what the thing is on: 左侧的圆形底板上的大的工具箱. What is beside another
        # thing of the text is left out, for that has a phrase and a window of its own.
        others = [thing.noun for thing in things if thing is not self]
        landmarks = {place: _SIDE.sub("", place) for place in sorted(self.places, key=len)}
        places = [
            place
            for place, landmark in landmarks.items()
            if not (landmark and any(other.endswith(landmark) for other in others))
        ]
        return "".join(f"{place}的" for place in (*places, *self.attributes)) + self.noun


def chinese_phrases(text: str, vocabulary: Vocabulary) -> list[str]:
    """Return the phrases of a Chinese text, see [`split_phrases`]; none where it has no noun phrase."""
    for plain, others in _PLAIN.items():
        text = others.sub(plain, text)
    text = _PICTURE_OF.sub(r"有\1", text)
    # Blanks are no nouns; a line break ends a sentence.
    units = [unit for unit in chinese_units(text, vocabulary) if unit.text in _TAG_OF or not unit.text.isspace()]
    tags = _tags(units, vocabulary)
    reader = _Reader(text, units, tags)
    for match in re.finditer("[^,.]+", tags):
        reader.begins_sentence = "." in tags[reader.position : match.start()] or reader.position == 0
        reader.position = match.end()
        if reader.begins_sentence:
            reader.earlier = len(reader.things)
        if not any(word in text[units[match.start()].start : units[match.end() - 1].end] for word in _NEGATIONS):
            reader.read(match.start(), match.end(), [])
    phrases: list[str] = []
    for thing in reader.things:
        if not _GENERIC.fullmatch(thing.noun):
            phrases.append(thing.text(reader.things))
        else:  # 纯红色背景 of 纯红色背景上有三个物体
            phrases += filter(None, (_SIDE.sub("", place) for place in thing.places))
    return phrases


def _tags(units: list[Unit], vocabulary: Vocabulary) -> str:
    tags: list[str] = []
    for index, unit in enumerate(units):
        previous = tags[-1] if tags else "."
        following = units[index + 1] if index + 1 < len(units) else Unit("。", 0, 0)
        relation = unit.word("relation")
        category = relation.category.name if relation else ""
        is_measure = unit.text in vocabulary.rules["zh"]["measures"] and previous in "HV"  # 有个, 放着只
        ends_verb = previous == "V" and unit.text in _VERB_ENDINGS
        # 上 and 里 are places where they end one, and parts of unknown words elsewhere.
        is_place = len(unit.text) > 1 or _TAG_OF.get(following.text, "N") in "dZH,." or following.text in _VERBS
        if unit.text in _TAG_OF:
            tag = _TAG_OF[unit.text]
        elif unit.measure or is_measure:
            tag = "C" if unit.measure else "c"
        elif unit.text in vocabulary.rules["zh"]["degrees"]:
            tag = "G"
        elif category in _PLACE_CATEGORIES and is_place:
            tag = "L"
        elif category in _VERB_CATEGORIES:
            tag = "Z" if unit.text.endswith("在") else "V"
        elif ends_verb or (not unit.words and unit.text in _VERBS and following.text in _VERB_ENDINGS):
            tag = "V"
        elif unit.word("attribute") and not unit.word("object"):
            tag = "A"
        elif unit.text.isalnum() or unit.text in _WITHIN_WORDS:
            tag = "N"
        else:
            tag = ","
        tags.append(tag)
    for index in range(1, len(units) - 1):  # 红色和白色
        if units[index].text in ("和", "与", "、") and tags[index - 1] == tags[index + 1] == "A":
            tags[index] = "A"
    return "".join(tags)


class _Reader:
    """Reads clause after clause.

    Attributes:
        things: What the clauses so far speak of.
        position: Index of the unit after the last clause.
        begins_sentence: Whether the clause is the first of its sentence.
        earlier: How many things earlier sentences have.
    """

    def __init__(self, text: str, units: list[Unit], tags: str):
        self.text, self.units, self.tags = text, units, tags
        self.things: list[_Thing] = []
        self.position = 0
        self.begins_sentence = True
        self.earlier = 0

    def said(self, match: re.Match[str], group: str) -> str:
        first, last = match.span(group)
        return self.text[self.units[first].start : self.units[last - 1].end].strip() if last > first else ""

    def read(self, start: int, end: int, places: list[str]) -> None:
        """Read a clause, or the part of one that follows its places."""
        last = self.things[-1] if self.things else None
        alone = _PLACE_ALONE.fullmatch(self.tags, start, end)
        existence = _EXISTENCE.fullmatch(self.tags, start, end)
        bare = _BARE_EXISTENCE.fullmatch(self.tags, start, end)
        placed = _PLACED.fullmatch(self.tags, start, end)
        quality = _QUALITY.fullmatch(self.tags, start, end)
        dimension = _DIMENSION.fullmatch(self.tags, start, end)
        copula = _COPULA.fullmatch(self.tags, start, end)
        # 一只狗 after 一只狗 is another, 狗 and 这只狗 are the same.
        among: list[_Thing] | None = [] if self.units[start].number else None
        if alone and last:
            last.places += self._place(self.said(alone, "place"))
        elif existence:
            place = self.said(existence, "place")
            rest = existence.start("rest")
            if last and place in _UNDER and not self.begins_sentence:
                last.places.append(f"{self.text[self.units[rest].start : self.units[end - 1].end]}上")
            else:
                self.read(rest, end, [*places, *self._place(place)])
        elif bare:
            self.read(bare.start("rest"), end, places)
        elif placed:
            thing = self._thing(self.said(placed, "thing"), places, among)
            thing.places += self._place(self.said(placed, "place"))
        elif dimension and last and self.said(dimension, "thing") in _DIMENSIONS:
            last.attributes.append(self.said(dimension, "quality"))
        elif quality and (last or quality.group("thing")):
            subject = self.said(quality, "thing")
            thing = last if last and subject in ("", *_DIMENSIONS) else self._thing(subject, places, among)
            thing.attributes.append(self.said(quality, "quality"))
        elif copula:
            self._thing(self.said(copula, "thing"), places)
            self.read(copula.start("rest"), end, [])
        elif last and set(self.tags[start:end]) <= set("AGd") and not self.begins_sentence:
            last.attributes.append(self.text[self.units[start].start : self.units[end - 1].end].strip().rstrip("的"))
        else:
            noun = self.text[self.units[start].start : self.units[end - 1].end].strip()
            self._thing(noun, places, self.things[: self.earlier])  # 碗 after 大碗 in one list is another

    def _thing(self, noun: str, places: list[str], among: list[_Thing] | None = None) -> _Thing:
        """Return a new thing, or the one of some (`None`: of all) that is spoken of again."""
        if noun and _TAG_OF.get(noun) == "O" and self.things:
            return self.things[-1]
        known = next((thing for thing in (self.things if among is None else among) if thing.noun.endswith(noun)), None)
        if known is None:
            known = _Thing(noun, [])
            self.things.append(known)
        known.places += places
        return known

    def _place(self, place: str) -> list[str]:
        return [] if _PICTURE.fullmatch(place) else [place]
