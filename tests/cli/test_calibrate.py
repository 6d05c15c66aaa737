"""`fgclip2 calibrate`, and what search, classify and regions say with its file."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgclip2.calibration import Calibration, Curve
from fgclip2.data.readers.labelled_pairs import read_labelled_pairs
from fgclip2.embedding import calibrate

PICTURES = 8
BOX = [8, 8, 88, 72]
TEXTS = {
    "zh": [f"{colour}色的{thing}" for colour in "红橙黄绿蓝紫" for thing in ("猫", "狗", "车", "花", "门", "碗")],
    "en": [f"a {size} {thing}" for size in ("big", "small", "red", "old", "new", "wet") for thing in "abcdef"],
}


def labelled_rows(embedder, folder: Path) -> list[dict]:
    """Pairs of random pictures, of which those with higher cosines match, but for some chance."""
    names = [f"图/{number}.png" for number in range(PICTURES)]
    rows = []
    rng = np.random.default_rng(0)
    for texts, role, box in (
        (TEXTS["zh"], "caption", None),
        (TEXTS["en"], "caption", None),
        (TEXTS["zh"], "region_phrase", BOX),
    ):
        text_vectors = embedder.encode_texts(texts, role=role)
        if box is None:
            images = embedder.encode_images([folder / name for name in names])
        else:
            images = np.concatenate(embedder.encode_regions([folder / name for name in names], [[box]] * PICTURES))
        cosines = images @ text_vectors.T  # (PICTURES, texts)
        noisy = cosines + rng.normal(0, cosines.std(), cosines.shape)
        middle = np.median(noisy, axis=1, keepdims=True)  # of each picture, so that both folds have both
        rows += [
            {"image": name, "text": text, "label": int(high), **({"box": box} if box else {})}
            for name, labels in zip(names, noisy > middle, strict=True)
            for text, high in zip(texts, labels.tolist(), strict=True)
        ]
    return rows


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory, embedder) -> Path:
    """`图/0.png` and others, and `图文对.jsonl`."""
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "图").mkdir()
    for number in range(PICTURES):
        colors = np.random.default_rng(100 + number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(colors).resize((96, 80), Image.Resampling.BICUBIC)
        picture.save(folder / f"图/{number}.png")
    lines = [json.dumps(row, ensure_ascii=False) for row in labelled_rows(embedder, folder)]
    (folder / "图文对.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def calibration_file(pairs_folder, embedder) -> Path:
    pairs = read_labelled_pairs(pairs_folder / "图文对.jsonl")
    return calibrate(embedder, pairs).save(pairs_folder / "校准.json")


def test_calibrate_tells_what_holds_and_keeps_other_budgets(run, pairs_folder, calibration_file, embedder):
    found = run("calibrate", pairs_folder / "图文对.jsonl", "-o", "校准.json").stdout.splitlines()
    budget = embedder.budget_of()
    heads = [line for line in found if line.startswith(("caption", "region_phrase"))]
    assert [line.split(":")[0] for line in heads] == [
        f"caption in en at {budget} patches",
        f"caption in zh at {budget} patches",
        f"region_phrase in zh at {budget} patches",
    ]
    assert "platt, fitted on 72 matches and 72 others, evaluated on 72 and 72" in heads[0]
    assert found[1].startswith("  expected calibration error 0.")
    assert found[1].endswith(" by the model's own probabilities")
    assert found[2].startswith("  false positives  10.0%  cosine above ")
    assert found[5] == "  false positives   0.1%  999 others are needed"
    assert found[-1] == "校准.json"
    assert Calibration.load("校准.json").scores == Calibration.load(calibration_file).scores

    added = run.json("calibrate", pairs_folder / "图文对.jsonl", "-o", "校准.json", "--max-patches", "16")
    assert {row["max_num_patches"] for row in added["scores"]} == {16}
    assert {its.key.max_num_patches for its in Calibration.load("校准.json").scores} == {16, budget}


def test_pairs_without_labels_have_quantiles_only(run, pairs_folder):
    rows = [json.loads(line) for line in (pairs_folder / "图文对.jsonl").read_text(encoding="utf-8").splitlines()]
    with Path("没有标签.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerows([["image", "text", "box"], *([row["image"], row["text"], ""] for row in rows[:36])])
    printed = run("calibrate", "没有标签.csv", "--images", pairs_folder, "-o", "分位数.json").stdout
    assert "quantiles of 36 pairs without labels, no probabilities" in printed
    stored = Calibration.load("分位数.json")
    assert not stored.scores
    assert stored.quantiles[0].cosines[0] < stored.quantiles[0].cosines[-1]
    (hit, *_) = run.json("search", "照片", "红色的猫", "--calibration", "分位数.json")["results"][0]["hits"]
    assert hit["probability"] is None


def test_search_shows_probabilities_and_that_nothing_matches(run, calibration_file, embedder):
    found = run.json("search", "照片", "红色的猫", "--calibration", calibration_file)["results"][0]
    hits = found["hits"]
    curve = Calibration.load(calibration_file).find("caption", "zh", embedder.budget_of()).curve
    expected = curve.probabilities(np.array([hit["score"] for hit in hits]), 1 / 3)  # two images, or none of them
    assert [hit["probability"] for hit in hits] == pytest.approx(expected.tolist())
    assert found["nothing_matches"] == (max(expected) < 0.5)

    options = ("search", "照片", "红色的猫", "--no-update", "--calibration", calibration_file)
    shown = run(*options, "--prevalence", 0.0001).stdout.splitlines()
    assert shown[1] == f"  {hits[0]['score']:.4f}  p=0.000    {hits[0]['path']}"
    assert shown[-1] == "  nothing here matches: no image has a probability of 0.5"
    assert len(shown) == 1 + len(hits) + 1
    assert "nothing here" not in run(*options, "--prevalence", 0.0001, "--min-probability", 0).stdout
    other = run.json(*options[:2], "--image", "photo.png", *options[3:])["results"][0]
    assert [hit["probability"] for hit in other["hits"]] == [None, None]
    reranked = run.json(*options, "--rerank", "phrases")["results"][0]["hits"]
    assert {hit["path"]: hit["probability"] for hit in reranked} == pytest.approx(
        {hit["path"]: hit["probability"] for hit in hits}
    )


def test_a_search_of_regions_takes_the_curve_of_their_phrases(run, calibration_file, embedder):
    run("index", "照片", "--regions", "grid")
    options = ("search", "照片", "红色的猫", "--no-update", "--calibration", calibration_file)
    curve = Calibration.load(calibration_file).find("region_phrase", "zh", embedder.budget_of()).curve
    for regions in ("best", "all"):
        found = run.json(*options, "--regions", regions)["results"][0]
        expected = curve.probabilities(np.array([hit["score"] for hit in found["hits"]]), 1 / 51)  # 25 of each image
        assert [hit["probability"] for hit in found["hits"]] == pytest.approx(expected.tolist())
        assert found["nothing_matches"] == (max(expected) < 0.5)
    shown = run(*options, "--regions", "best", "--prevalence", 0.0001).stdout.splitlines()
    assert "  p=0.000    " in shown[1]
    assert shown[-1] == "  nothing here matches: no region has a probability of 0.5"


def test_texts_without_a_curve_are_told_of(run, calibration_file, embedder):
    budget = embedder.budget_of()
    has = f"the calibration has curves for caption in en at {budget} patches, caption in zh at {budget} patches"
    run("index", "照片", "--regions", "grid")
    with_file = ("--calibration", calibration_file)
    region = ("regions", "photo.png", "--box", "8,8,88,72", "--labels", "红色的猫,a cat")
    of_phrases = f"no probability for region_phrase in en at {budget} patches: {has}"
    of_images = f"no probability for caption in en at 16 patches, caption in zh at 16 patches: {has}"
    for command, expected in [
        (("search", "照片", "a cat", "--no-update", "--regions", "best"), of_phrases),
        (region, of_phrases),
        (("classify", "photo.png", "--labels", "猫,cat", "--max-patches", 16), of_images),
        (("search", "照片", "a cat", "猫", "--index", "小", "--max-patches", 16), of_images),
    ]:
        (line,) = (line for line in run(*command, *with_file).stderr.splitlines() if line.startswith("no probab"))
        assert line.startswith(expected)
    assert "no probability" not in run("search", "照片", "a cat", "猫", "--no-update", *with_file).stderr

    with_none = Calibration(Calibration.load(calibration_file).model)
    empty = with_none.save("空.json")
    options = ("classify", "photo.png", "--labels", "cat")
    assert run(*options, "--calibration", empty).stderr.endswith("the calibration has curves for nothing\n")
    # Who takes what lies beside the checkpoint has asked for nothing.
    beside = Path(shutil.copytree(run.checkpoint, "检查点"))
    with_none.save(beside / "calibration.json")
    assert "no probability" not in run(*options, "--model", beside, model=False).stderr
    assert "no probability" in run(*options, "--model", beside, "--min-probability", 0.9, model=False).stderr


def test_classify_shows_probabilities(run, calibration_file, embedder):
    labels = "红色的猫,a big a,蓝色的车"
    options = ("classify", "photo.png", "--labels", labels, "--calibration", calibration_file)
    (result,) = run.json(*options)["results"]
    cosines = embedder.similarity(embedder.encode_images("photo.png"), embedder.encode_texts(labels.split(",")))
    embedder_with = type(embedder)(embedder.model, embedder.processor)
    embedder_with.use_calibration(Calibration.load(calibration_file))
    expected = embedder_with.match_probabilities(cosines, labels.split(","), candidates=3)
    by_label = dict(zip(labels.split(","), expected, strict=True))
    assert {row["label"]: row["probability"] for row in result["labels"]} == pytest.approx(by_label, abs=1e-4)
    assert result["nothing_matches"] == (max(expected) < 0.5)
    printed = run(*options, "--min-probability", 1).stdout.splitlines()
    assert printed[-1] == "  nothing here matches: no label has a probability of 1"
    assert f"p={result['labels'][0]['probability']:<8.3f} {result['labels'][0]['label']}" in printed[1]


def test_labels_that_are_not_shown_may_match(run, calibration_file):
    """Curves of two languages may put labels into another order than scores do."""
    calibration = Calibration.load(calibration_file)
    options = ("classify", "photo.png", "--labels", "cat,猫", "--top-k", 1)
    (of_zh,) = (row for row in calibration.scores if row.key.role == "caption" and row.key.language == "zh")
    shown = []
    for likely in ("zh", "en"):
        scores = tuple(
            replace(of_zh, key=of_zh.key._replace(language=one), curve=Curve((0.0,), (4.6 if one == likely else -4.6,)))
            for one in ("zh", "en")
        )
        file = Calibration(calibration.model, scores).save(f"{likely}.json")
        (result,) = run.json(*options, "--calibration", file)["results"]
        shown += [label["probability"] < 0.5 for label in result["labels"]]
        assert not result["nothing_matches"]
    assert sorted(shown) == [False, True]


def test_regions_may_be_none_of_these(run, calibration_file):
    options = ("regions", "photo.png", "--box", "8,8,88,72", "--labels", "红色的猫,蓝色的车", "--calibration")
    (region,) = run.json(*options, calibration_file)["regions"]
    probabilities = [row["probability"] for row in region["labels"]]
    assert region["none_of_these"] == (max(probabilities) < 0.5)
    printed = run(*options, calibration_file, "--min-probability", 1).stdout
    assert printed.splitlines()[-1] == "  none of these: no label has a probability of 1"
    # English phrases of regions were not among the pairs.
    (unknown,) = run.json(*options[:5], "a cat", "--calibration", calibration_file)["regions"]
    assert "probability" not in unknown["labels"][0]
    assert "none_of_these" not in unknown


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"image": "图/0.png", "text": "猫", "label": 2}'], "对.jsonl:1: label is 2; it must be 1 where image"),
        (['{"image": "../0.png", "text": "猫", "label": 1}'], "对.jsonl:1: image is '../0.png'; it must be a path"),
        (['{"image": "图/0.png", "label": 1}'], "对.jsonl:1: text is missing; it must be a text"),
        (
            ['{"image": "图/0.png", "text": "猫", "label": 1, "box": [1, 2, 1, 9]}'],
            "box is [1, 2, 1, 9]",
        ),
        (['{"image": "图/0.png", "text": "猫", "label": 1, "box": "1, a, 3, 4"}'], "box is '1, a, 3, 4'; it must be"),
        (
            ['{"image": "图/0.png", "text": "猫", "label": 1}', '{"image": "图/0.png", "text": "狗"}'],
            "对.jsonl:2 has no label, and other pairs have one: label all of them, or none",
        ),
        (
            ['{"image": "图/0.png", "text": "猫", "label": 1}'],
            "has too few pairs: 1 matches and 0 others to fit, 0 and 0 to evaluate; 50 of each are needed",
        ),
        (
            ['{"image": "图/0.png", "text": "猫", "box": [90, 1, 200, 9]}', '{"image": "图/1.png", "text": "猫"}'],
            "",
        ),
        (['{"image": "图/0.png", "text": "猫", "box": [97, 1, 200, 9]}'], "对.jsonl:1: boxes[0][0]"),
    ],
)
def test_mistakes_name_record_field_and_value(run, pairs_folder, lines, message):
    Path("对.jsonl").write_text("\n".join(lines), encoding="utf-8")
    code = 1 if message else 0  # a box that is cut is one
    done = run("calibrate", "对.jsonl", "--images", pairs_folder, "-o", "校准.json", code=code)
    assert message in done.stderr


def test_other_mistakes(run, pairs_folder, calibration_file, monkeypatch):
    Path("列.csv").write_text("picture,text\na.png,猫\n", encoding="utf-8")
    refused = run("calibrate", "列.csv", "-o", "校准.json", code=1).stderr
    assert "列.csv has no column 'image'; its columns are picture, text, and those of pairs are image" in refused
    refused = run("search", "照片", "猫", "--min-probability", 0.5, code=1).stderr
    assert "so there are no probabilities: give one by --calibration" in refused
    refused = run("search", "照片", "猫", "--calibration", calibration_file, "--prevalence", 1, code=2).stderr
    assert "must be above 0 and below 1, got 1" in refused

    content = json.loads(calibration_file.read_text(encoding="utf-8"))
    content["model"]["fingerprint"] = "0" * 64
    Path("别的.json").write_text(json.dumps(content), encoding="utf-8")
    refused = run("classify", "photo.png", "--labels", "猫", "--calibration", "别的.json", code=1).stderr
    assert "(fingerprint 00000000), not of" in refused
    refused = run("calibrate", pairs_folder / "图文对.jsonl", "-o", "别的.json", code=1).stderr
    assert "(fingerprint 00000000), not of" in refused

    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    refused = run("calibrate", pairs_folder / "图文对.jsonl", "-o", "校准.json", code=1).stderr
    assert 'sklearn is not installed; run: pip install "fgclip2[calibrate]"' in refused
