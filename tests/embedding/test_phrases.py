"""Phrases of queries: what a query says of a thing stands in that thing's phrase, wherever it was said."""

import sys
from types import SimpleNamespace

import pytest

from fgclip2.embedding import split_by_jieba, split_phrases

ENGLISH = {
    # in one order or another
    "On the left is a big box.": ["a big box on the left"],
    "There is a box, which is big, on the left.": ["a big box on the left"],
    "a box (big) and a cat": ["a big box", "a cat"],
    "The box is big. The box is on a red plate.": ["the big box on a red plate"],
    "There is a kite. It hangs on the wall and is red.": ["a red kite hangs on the wall"],
    "a cat that has a green plate beneath it": ["a cat on a green plate"],
    "a small cup. The cup is to the left of the dog. A big dog on a mat.": ["a small cup", "a big dog on a mat"],
    "An apple with a round red plate under it, in the middle": ["an apple on a round red plate in the middle"],
    # things of one name
    "a dog and a dog on the left": ["a dog", "a dog on the left"],
    "There is a cat. A cat with a red hat sits on the wall.": ["a cat", "a cat with a red hat sits on the wall"],
    # what belongs to a phrase
    "two dogs and three black and white cats": ["two dogs", "three black and white cats"],
    "a sleeping cat on a couch, a man in a red shirt": ["a sleeping cat on a couch", "a man in a red shirt"],
    "a huge toolbox lying on a purple disc right in the centre": [
        "a huge toolbox lying on a purple disc right in the centre"
    ],
    "a cup of tea, a big, red ball": ["a cup of tea", "a big, red ball"],
    # what is asked of a search engine
    "where is the penguin between a rabbit and a tiger?": ["the penguin between a rabbit", "a tiger"],
    "Where's the red ball? There's a dog beside it.": ["the red ball", "a dog beside it"],
    "Please show me a black cat on a couch": ["a black cat on a couch"],
    "I'm looking for a show jumping horse": ["a show jumping horse"],
    "looking for a red ball": ["a red ball"],
    "a man looking for his keys": ["a man looking for his keys"],
    # what is no phrase
    "a photo of a dog on the beach": ["a dog on the beach"],
    "Two objects on a plain red background. At the top are grapes.": ["a plain red background", "grapes at the top"],
    "a street with no people, a red car on the left of the image": ["a street", "a red car on the left"],
    "Nothing is larger than the cat.": ["Nothing is larger than the cat."],
    "quickly": ["quickly"],
}
CHINESE = {
    "左侧是大箱子。": ["左侧的大箱子"],
    "大箱子在左侧。": ["左侧的大箱子"],
    "箱子（在左侧，个头很大）、猫": ["左侧的大的箱子", "猫"],
    "箱子很大，放在红色的垫子上。": ["红色的垫子上的大的箱子"],
    "左侧是棕色圆形底板上的小骨头。骨头在猫的左边。": ["左侧的猫的左边的棕色圆形底板上的小骨头"],
    "小骨头在猫的左边，猫在垫子上。": ["小骨头", "垫子上的猫"],
    "中间有个大工具箱放在紫色盘子上": ["中间的紫色盘子上的大工具箱"],
    "图里有炸弹（在右侧）、工具箱（在中间，下面是圆形的紫色底板）。": ["右侧的炸弹", "中间的圆形的紫色底板上的工具箱"],
    "左侧有一只狗，一只狗在右侧": ["左侧的一只狗", "右侧的一只狗"],
    "左侧有一只狗，狗在垫子上": ["左侧的垫子上的一只狗"],
    "企鹅在哪里？旁边有兔子和老虎": ["企鹅", "旁边的兔子", "老虎"],
    "请帮我找一只黑猫": ["一只黑猫"],
    "找一张有茄子又有火箭的图": ["茄子", "火箭"],
    "有没有红色的碗呢？": ["红色的碗"],
    "哪里有一只看书的狗": ["一只看书的狗"],
    "帮我找找红苹果": ["红苹果"],
    "给我看看红苹果": ["红苹果"],
    "我要找一只黑猫": ["一只黑猫"],
    "找红苹果": ["红苹果"],
    "搜一下红苹果": ["红苹果"],
    "搜索红苹果": ["红苹果"],
    "猫在哪？": ["猫"],
    "一张有猫的图片": ["猫"],
    # what only looks like a question or a request
    "找零": ["找零"],
    "搜救犬": ["搜救犬"],
    "水吧和酒吧": ["水吧", "酒吧"],
    "毛呢": ["毛呢"],
    "站在哪吒旁边的男孩": ["站在哪吒旁边的男孩"],
    "在哪家店门口的狗": ["在哪家店门口的狗"],
    "墙上有一张猫的照片": ["墙上的一张猫的照片"],
    "骨头、猫和狗": ["骨头", "猫", "狗"],
    "一只狗坐在草地上，旁边有两只红色和白色的猫": ["草地上的一只狗", "旁边的两只红色和白色的猫"],
    "左侧能看到箱子以及猫，箱子位于垫子上，图里还有狗": ["左侧的垫子上的箱子", "猫", "狗"],
    "鱼、书和伞": ["鱼", "书", "伞"],
    "一张照片上有三个物体。最大的物体是猫。": ["猫"],
    "纯红色背景上有两个物体。上方是葡萄，下方是猫。": ["纯红色背景", "上方的葡萄", "下方的猫"],
    "桌子上没有苹果，有一个梨": ["一个梨"],
    "非常": ["非常"],
}
MIXED = {
    "一只黑猫, a brown dog, 红色的碗": ["一只黑猫", "a brown dog", "红色的碗"],
    "左侧是一辆 taxi，右侧是猫": ["左侧的一辆 taxi", "右侧的猫"],
}


@pytest.mark.parametrize(("text", "phrases"), [*ENGLISH.items(), *CHINESE.items(), *MIXED.items()])
def test_phrases_of(text, phrases):
    assert split_phrases(text) == phrases


@pytest.mark.parametrize(
    "text", ["", " ", "。", "...", "a", "的", "在", "and and", "（）", "it is", "\n", "它", "🐶", "3"]
)
def test_whatever_is_asked_has_a_phrase(text):
    assert split_phrases(text)


@pytest.mark.parametrize("text", ["object is object is big", "红色的碗， 。", "图里， 是 （ ）红色的碗， "])
def test_no_phrase_is_blank(text):
    phrases = split_phrases(text)
    assert phrases
    assert all(phrase.strip() for phrase in phrases)


def test_jieba_splits_at_what_is_no_noun_or_quality(monkeypatch):
    """A stand-in answers as jieba does for this text; it is not installed here."""
    words = [
        ("左边", "f"),
        ("有", "v"),
        ("红色", "n"),
        ("的", "uj"),
        ("碗", "n"),
        ("和", "c"),
        ("猫", "n"),
        ("。", "x"),
    ]
    posseg = SimpleNamespace(cut=lambda text: words if text else [])
    monkeypatch.setitem(sys.modules, "jieba", SimpleNamespace(posseg=posseg))
    monkeypatch.setitem(sys.modules, "jieba.posseg", posseg)
    assert split_by_jieba("左边有红色的碗和猫。") == ["左边", "红色的碗", "猫"]
    assert split_by_jieba("") == [""]
    monkeypatch.setitem(sys.modules, "jieba", None)
    monkeypatch.delitem(sys.modules, "jieba.posseg")
    with pytest.raises(ImportError, match=r'run: pip install "fgclip2\[jieba\]"'):
        split_by_jieba("猫")
