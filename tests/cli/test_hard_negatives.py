"""`fgclip2 data hard-negatives`."""

import json

import pytest

from fgclip2.hard_negatives import generate_hard_negatives


@pytest.fixture
def hard_negatives(run):
    def call(*arguments, **options):
        return run("data", "hard-negatives", *arguments, model=False, **options)

    return call


@pytest.fixture
def regions(folder):
    """`区域.jsonl`: an English record of two regions, a Chinese one of one, and one with negatives."""
    boxed = {"bbox": [0, 0, 1, 1]}
    records = [
        {
            "caption": "A dog.",
            "bbox_info": [{**boxed, "short_expr": "a red dog"}, {**boxed, "short_expr": "a photograph"}],
        },
        {"caption": "狗", "is_cn": True, "bbox_info": [{**boxed, "short_expr": "两只黑狗"}]},
        {"caption": "猫", "bbox_info": [{**boxed, "short_expr": "一只猫", "short_expr_negs": {"0": "一只鱼"}}]},
    ]
    path = folder / "区域.jsonl"
    path.write_text("\n".join(json.dumps(each, ensure_ascii=False) for each in records), encoding="utf-8")
    return path


def negatives(path) -> list[list[str]]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [list(each.get("short_expr_negs", {}).values()) for record in records for each in record["bbox_info"]]


def test_regions_get_negatives(hard_negatives, regions, folder):
    result = hard_negatives("区域.jsonl", "负例.jsonl", "--count", "4", "--seed", "2")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["records", "3"] in lines
    assert ["with", "new", "negatives", "2"] in lines
    assert ["with", "negatives", "as", "before", "1"] in lines
    assert ["new", "negatives", "8"] in lines
    assert ["attribute", "2"] in lines
    assert result.stderr.splitlines() == ["none: 区域.jsonl:1: bbox_info[1]: a photograph"]
    made = [[each.text for each in generate_hard_negatives(text, 4, seed=2)] for text in ("a red dog", "两只黑狗")]
    assert negatives(folder / "负例.jsonl") == [made[0], [], made[1], ["一只鱼"]]


def test_replace_and_json(hard_negatives, regions, folder):
    result = json.loads(hard_negatives("区域.jsonl", "负例.jsonl", "--replace", "--json").stdout)
    assert (result["filled"], result["kept"]) == (3, 0)
    assert sum(result["by_kind"].values()) == 30
    assert result["without"] == [{"source": "区域.jsonl:1: bbox_info[1]", "text": "a photograph"}]
    assert "一只鱼" not in negatives(folder / "负例.jsonl")[3]


def test_what_is_not_listed_is_counted(hard_negatives, regions):
    assert hard_negatives("区域.jsonl", "负例.jsonl", "--show", "0").stderr.startswith("… and 1 more")


def test_mistakes_are_one_line(hard_negatives, regions, folder):
    before = regions.read_bytes()
    assert "区域.jsonl exists" in hard_negatives("区域.jsonl", "区域.jsonl", code=1).stderr
    assert regions.read_bytes() == before
    assert "没有.jsonl" in hard_negatives("没有.jsonl", "负例.jsonl", code=1).stderr
    hard_negatives("区域.jsonl", "负例.jsonl", "--count", "0", code=2)
    assert not (folder / "负例.jsonl").exists()
