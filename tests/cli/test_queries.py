"""`fgclip2 search` by regions, sums and negatives, against the index searched directly."""

import pytest

from fgclip2.search import CombinedQuery, ImageIndex, Region


def hits(result) -> dict[str, float]:
    return {hit["path"]: hit["score"] for hit in result["hits"]}


def expected(query, embedder) -> dict[str, float]:
    found = ImageIndex.load("照片").search(query, embedder)
    return {f"照片/{hit.path.name}": pytest.approx(hit.score, abs=1e-5) for hit in found}


def test_a_negative_is_subtracted_from_every_query(run, embedder):
    results = run.json("search", "照片", "一只猫", "a dog", "--not", "a cage")["results"]
    assert [result["query"] for result in results] == ["一只猫 - 0.5 x a cage", "a dog - 0.5 x a cage"]
    for result, text in zip(results, ["一只猫", "a dog"], strict=True):
        assert hits(result) == expected(CombinedQuery([text, "a cage"], [1, -0.5]), embedder)
    parts = [{"kind": "text", "query": "a dog", "weight": 1}, {"kind": "text", "query": "a cage", "weight": -0.5}]
    assert (results[1]["kind"], results[1]["parts"]) == ("combined", parts)


def test_combined_texts_and_regions_are_one_query(run, embedder):
    options = ("--combine", "--weight", "2", "--weight", "0.5", "--not", "雨", "--not-weight", "1")
    (result,) = run.json("search", "照片", "晚上", "--image", "photo.png", "--box", "8，8,80,60", *options)["results"]
    region = Region("photo.png", [8, 8, 80, 60])
    assert hits(result) == expected(CombinedQuery(["晚上", region, "雨"], [2, 0.5, -1]), embedder)
    assert result["query"] == "2 x 晚上 + 0.5 x photo.png - 雨"
    assert result["parts"][1]["box"] == [8, 8, 80, 60]
    lines = run("search", "照片", "晚上", "night", "--combine").stdout.splitlines()
    assert (lines[0], len(lines)) == ("晚上 + night", 3)


def test_a_box_makes_an_image_a_region(run, embedder):
    (result,) = run.json("search", "照片", "--image", "photo.png", "--box", "8,8,80,60")["results"]
    assert {name: result[name] for name in ("kind", "query", "box")} == {
        "kind": "region",
        "query": "photo.png",
        "box": [8, 8, 80, 60],
    }
    assert hits(result) == expected(Region("photo.png", [8, 8, 80, 60]), embedder)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--not", "雨"], 2, "says nothing of what hits should be"),
        (["--combine"], 2, "says nothing of what hits should be"),
        (["猫", "--not", " "], 1, "the query ' ' is empty"),
        (["猫", "--weight", "1"], 2, "works with --combine"),
        (["猫", "--not-weight", "1"], 2, "works with --not"),
        (["猫", "--not", "狗", "--not-weight", "-1"], 2, "must be above zero, got -1"),
        (["猫", "狗", "--combine", "--weight", "1"], 2, "there are 1 of 2 texts and images"),
        (["猫", "狗", "--combine", "--weight", "0", "--weight", "0"], 1, "all zero"),
        (["猫", "--box", "1,2,3,4"], 2, "there are 1 of 0 images"),
        (["--image", "photo.png", "--box", "1,2,x,4"], 1, "--box must be four numbers"),
        (["--image", "photo.png", "--box", "1,2,3"], 1, "four numbers"),
        (["猫", "--not", "狗", "--rerank", "phrases"], 2, "combined queries are not re-ranked"),
    ],
)
def test_wrong_queries_are_told_of(run, options, code, message):
    assert message in " ".join(run("search", "照片", *options, code=code).stderr.replace("│", "").split())
