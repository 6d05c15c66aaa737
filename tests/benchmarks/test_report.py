import copy
import csv
import json
import math
import re
from pathlib import Path

import pytest

from fgclip2.benchmarks.published import published_numbers
from fgclip2.benchmarks.report import markdown, plot, read_results, write_csv

RETRIEVAL = {
    "benchmark": "lit-cn",
    "task": "retrieval",
    "language": "zh",
    "preset": "paper",
    "changed": {},
    "settings": {"max_num_patches": 1024},
    "metrics": {
        "image_to_text/recall@1": {"value": 0.8243, "interval": [0.801, 0.84], "count": 1000},
        "text_to_image/recall@1": {"value": 0.5, "interval": [0.45, 0.55], "count": 1000},
        "image_to_text/median_rank": {"value": 12.0, "interval": [11.0, 14.5], "count": 1000},
    },
    "counts": {"images": 1000, "items": 5000, "unreadable": 0, "problems": 0},
    "data": {"path": "数据/Flickr", "images": None, "digest": "aa"},
    "left_out": [],
    "model": {"name": "embedded", "revision": None, "fingerprint": "1f2e3d4c5b6a", "dtype": "float32", "device": "cpu"},
    "versions": {"fgclip2": "0.1.0"},
    "created": "2026-11-26T05:00:00Z",
    "seconds": 12.3,
}
SHARE = "image_to_text/recall@1"
BOXES = {
    **RETRIEVAL,
    "benchmark": "coco-boxes",
    "task": "boxes",
    "language": "en",
    "metrics": {"top1": {"value": 0.25, "interval": None, "count": 36781}},
    "model": {"name": "org/模型|a_b", "revision": "main"},
    "changed": {"max_num_patches": 256, "templates": ["一张{}的照片"]},
}
PART = {
    **RETRIEVAL,
    "counts": {"images": 997, "items": 4985, "unreadable": 2, "problems": 1},
    "left_out": [
        {"source": "图片/一.jpg", "reason": "truncated"},
        {"source": "a|b.jpg", "reason": "not\nan <image>"},
        {"source": "image_caption_long_cn.txt:17", "reason": "no caption"},
    ],
}


def changed(path: str, value: object) -> dict:
    """The retrieval result with one value replaced; "-" in place of a value takes its key away."""
    result = copy.deepcopy(RETRIEVAL)
    *parents, key = path.split(".")
    content = result
    for parent in parents:
        content = content[parent]
    if value == "-":
        del content[key]
    else:
        content[key] = value
    return result


def write(folder: Path, **results: object) -> Path:
    for name, result in results.items():
        (folder / f"{name}.json").write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
    return folder


def tables_of(text: str) -> list[list[list[str]]]:
    """Cells of the rows of each table, the overview's first."""
    tables: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            tables[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif tables[-1]:
            tables.append([])
    return [table for table in tables if table]


def row_of(text: str, start: str, column: str = "R@1") -> list[str]:
    """Cells of the row that begins so, in the first table behind the overview that has such a column."""
    table = next(table for table in tables_of(text)[1:] if any(column in cell for cell in table[0]))
    (row,) = [row for row in table if row[0].startswith(start)]
    return row


# Reading


def test_a_folder_and_files_are_read_in_order(tmp_path):
    write(tmp_path, b=BOXES, a=RETRIEVAL)
    (tmp_path / "notes.txt").write_text("not a result")
    assert read_results(tmp_path) == [RETRIEVAL, BOXES]
    assert read_results([tmp_path / "b.json", tmp_path]) == [BOXES, RETRIEVAL, BOXES]


def test_a_path_without_results_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"空 must be a result file, or a folder with result files"):
        read_results(tmp_path / "空")
    with pytest.raises(ValueError, match="must be a result file"):
        read_results([tmp_path])


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_not_json_is_named(tmp_path, content):
    (tmp_path / "结果.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"结果\.json is not JSON in UTF-8"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([], r"a\.json must be a JSON object, got \[\]"),
        (changed("benchmark", "-"), r"a\.json: benchmark must be a text that is not empty, got missing"),
        (changed("language", 3), r"a\.json: language must be a text that is not empty, got 3"),
        (changed("preset", ""), r"a\.json: preset must be a text that is not empty, got ''"),
        (changed("changed", None), r"a\.json: changed must be a JSON object, got missing"),
        (changed("metrics", {}), r"a\.json: metrics must be a JSON object with at least one metric, got \{\}"),
        (changed(f"metrics.{SHARE}", 0.5), rf"metrics: {SHARE} must be a JSON object, got 0\.5"),
        (changed(f"metrics.{SHARE}.value", 82.4), rf"{SHARE}: value must be a number from 0 to 1, got 82\.4"),
        (changed(f"metrics.{SHARE}.value", math.nan), rf"{SHARE}: value must be a number from 0 to 1, got nan"),
        (changed(f"metrics.{SHARE}.value", True), rf"{SHARE}: value must be a number from 0 to 1, got True"),
        (changed(f"metrics.{SHARE}.count", 1.5), rf"{SHARE}: count must be a whole number from 0, got 1\.5"),
        (
            changed(f"metrics.{SHARE}.interval", [0.9, 0.1]),
            rf"{SHARE}: interval must be null, or two .*, got \[0\.9, 0\.1\]",
        ),
        (changed(f"metrics.{SHARE}.interval", [0.9]), rf"{SHARE}: interval must be null, or two .*, got \[0\.9\]"),
        (
            changed("metrics.image_to_text/median_rank.value", 0.0),
            r"median_rank: value must be a finite number from 1, got 0\.0",
        ),
        (changed("counts.unreadable", "-"), r"a\.json: counts: unreadable must be a whole number from 0, got missing"),
        (changed("counts.images", -1), r"a\.json: counts: images must be a whole number from 0, got -1"),
        (
            changed("left_out", [{"source": "x.jpg"}]),
            r"a\.json: left_out must be a list of .*, got \[\{'source': 'x\.jpg'\}\]",
        ),
        (changed("data.digest", "-"), r"a\.json: data: digest must be a text, got missing"),
        (changed("settings", ["很长"] * 1000), r"a\.json: settings must be a JSON object, got \['很长', .{80,100}… \("),
        (changed("model.name", "-"), r"a\.json: model: name must be a text, got missing"),
    ],
)
def test_what_is_wrong_with_a_result_is_named(tmp_path, result, message):
    write(tmp_path, a=result)
    with pytest.raises(ValueError, match=message):
        read_results(tmp_path)


# Markdown


@pytest.mark.parametrize("language", ["en", "zh"])
def test_results_stand_beside_published_numbers(language):
    text = markdown([RETRIEVAL], language)
    is_english = language == "en"
    assert text.startswith("# Benchmark results\n" if is_english else "# 评测结果\n")
    assert text.count("\n## ") == 3  # the overview, the benchmark and the sources
    _, to_text, to_image = tables_of(text)
    details = "paper, zh; 1,000 images, 5,000 items; 2026-11-26"
    if is_english:
        assert to_text[0] == ["Model", "I→T R@1", "I→T median rank", "Details"]
        assert to_image[0] == ["Model", "T→I R@1", "Details"]
    else:
        details = "paper, zh; 1,000 张图像，5,000 个条目; 2026-11-26"
        assert to_text[0] == ["模型", "图→文 R@1", "图→文 排名中位数", "说明"]
        assert to_image[0] == ["模型", "文→图 R@1", "说明"]
    assert to_text[2] == ["embedded (1f2e3d4c)", "82.4 [80.1, 84.0]", "12.0 [11.0, 14.5]", details]
    assert to_image[2] == ["embedded (1f2e3d4c)", "50.0 [45.0, 55.0]", details]
    published = "published [1]" if is_english else "已发表 [1]"
    assert ["FG-CLIP 2 B/16", "82.4", "–", published] in to_text
    assert ["FG-CLIP 2 B/16", "81.1", published] in to_image
    assert "\n1. FG-CLIP 2, ICML 2026 (PMLR 306), Table 5: https://" in text


def test_the_overview_has_the_models_side_by_side():
    untrained = {**RETRIEVAL, "model": {"name": "untrained"}, "metrics": {SHARE: RETRIEVAL["metrics"][SHARE]}}
    other = {**RETRIEVAL, "benchmark": "my-set", "language": "en"}
    assert tables_of(markdown([RETRIEVAL, untrained, other, BOXES]))[0] == [
        ["Benchmark", "Items", "Metric", "embedded (1f2e3d4c)", "untrained", "org/模型\\|a_b@main"],
        ["---", "---:", "---", "---:", "---:", "---:"],
        ["lit-cn", "5,000", "I→T R@1 / T→I R@1", "82.4 / 50.0", "82.4 / –", "–"],
        ["my-set", "5,000", "I→T R@1 / T→I R@1", "82.4 / 50.0", "–", "–"],
        [
            'coco-boxes; paper, en; changed: max_num_patches=256, templates=["一张{}的照片"]',
            "5,000",
            "top-1",
            "–",
            "–",
            "25.0\\*",
        ],
    ]
    both = tables_of(markdown([RETRIEVAL, {**RETRIEVAL, "language": "en"}]))[0]
    assert [row[0] for row in both[2:]] == ["lit-cn; paper, zh", "lit-cn; paper, en"]


def test_no_table_has_more_than_eight_columns():
    """However many models there are, and metrics."""
    metrics = {
        f"{way}/recall@{k}": RETRIEVAL["metrics"][SHARE] for way in ("image_to_text", "text_to_image") for k in range(9)
    }
    results = [{**RETRIEVAL, "metrics": metrics, "model": {"name": f"model {index}"}} for index in range(11)]
    text = markdown(results)
    tables = tables_of(text)
    assert max(len(row) for table in tables for row in table) == 8
    assert [len(table[0]) for table in tables[:3]] == [7, 7, 6]
    for name in (*metrics, *(f"model {index}" for index in range(11))):
        assert name.replace("image_to_text/recall", "I→T R").replace("text_to_image/recall", "T→I R") in text


def test_each_benchmark_has_one_section_with_all_its_rows():
    text = markdown([RETRIEVAL, BOXES, PART])
    assert re.findall("^## (.*)$", text, re.MULTILINE) == ["Overview", "lit-cn", "coco-boxes", "Sources"]
    assert [len(table) for table in tables_of(text)[1:]] == [2 + 2 + 11, 2 + 2 + 11, 2 + 1 + 18 + 3]
    assert "\n2. FG-CLIP 2, ICML 2026 (PMLR 306), Tables 1 and 2: https://" in text


def test_every_row_of_a_table_has_as_many_cells():
    for table in tables_of(markdown([RETRIEVAL, PART, BOXES], "zh")):
        assert len({len(row) for row in table}) == 1


def test_every_published_number_of_a_benchmark_is_printed():
    result = {**RETRIEVAL, "benchmark": "segmentation"}
    text = markdown([result])
    for number in published_numbers("segmentation"):
        assert f"{number.value * 100:.1f}" in text
    assert "published, PC-59" in text
    assert "published, VOC-21" in text
    assert "T→I mean R@1/5/10" not in text  # of MUGE only
    assert "T→I mean R@1/5/10" in markdown([{**result, "benchmark": "muge"}])


def test_two_published_versions_of_a_number_have_two_sources():
    text = markdown([{**BOXES, "benchmark": "imagenet-1k"}])
    rows = [line for line in text.splitlines() if line.startswith("| SigLIP 2 B/16 ")]
    assert [("81.2" in row, "79.4" in row, row[-5:-2]) for row in rows] == [(True, False, "[1]"), (False, True, "[2]")]


def test_changed_settings_are_marked_and_named():
    row = row_of(markdown([BOXES]), "org/模型", "top-1")
    assert row[0] == "org/模型\\|a_b@main\\*"
    assert row[-1].startswith('paper, en; changed: max_num_patches=256, templates=["一张{}的照片"]; 1,000 images')
    assert row_of(markdown([RETRIEVAL]), "embedded")[-1].startswith("paper, zh; 1,000 images")
    assert not row_of(markdown([RETRIEVAL]), "embedded")[0].endswith(("*", "†"))


def test_a_long_setting_is_shortened_and_whole_in_the_csv(tmp_path):
    templates = [f"第{index}张{{}}的照片" for index in range(80)]
    result = {**BOXES, "changed": {"templates": templates}}
    assert len(row_of(markdown([result]), "org/模型", "top-1")[-1]) < 140
    write_csv([result], tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert json.loads(next(csv.DictReader(file))["changed"]) == {"templates": templates}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_part_of_the_data_is_marked_and_what_is_missing_is_named(language):
    text = markdown([PART], language)
    row = row_of(text, "embedded")
    assert row[0] == "embedded (1f2e3d4c)†"
    counts = {"en": "997 images, 4,985 items; 3 left out", "zh": "997 张图像，4,985 个条目; 3 项未计入"}
    assert f"; {counts[language]}; " in row[-1]
    assert (
        "\n- 图片/一.jpg: truncated\n- a\\|b.jpg: not an &lt;image>\n- image_caption_long_cn.txt:17: no caption" in text
    )
    assert row_of(markdown([changed("published_counts", {"items": 10**6})], language), "embedded")[0].endswith("†")
    assert not row_of(markdown([changed("published_counts", {"images": 1})], language), "embedded")[0].endswith("†")


@pytest.mark.parametrize(("language", "more"), [("en", "- and 2007 more"), ("zh", "- 另有 2007 项")])
def test_many_records_left_out_are_counted(language, more):
    left_out = [{"source": f"{index}.jpg", "reason": "missing"} for index in range(12)]
    counts = {**PART["counts"], "unreadable": 2000, "problems": 12}  # of which a result names the first
    lines = markdown([{**PART, "left_out": left_out, "counts": counts}], language).splitlines()
    assert [line for line in lines if line.startswith("- ")] == [f"- {index}.jpg: missing" for index in range(5)] + [
        more
    ]


def test_an_unknown_benchmark_and_metric_are_printed_as_they_are():
    metrics = {"new_metric": {"value": 0.5, "interval": None, "count": 3}}
    text = markdown([{**RETRIEVAL, "benchmark": "my-set", "metrics": metrics}])
    assert tables_of(text)[1][0][1] == "new_metric"
    assert row_of(text, "embedded", "new_metric")[1] == "50.0"
    assert "## Sources" not in text


def test_an_unknown_language_is_named():
    with pytest.raises(ValueError, match=r"^language must be 'en' or 'zh', got 'fr'$"):
        markdown([RETRIEVAL], "fr")


def test_results_of_other_data_say_which():
    other = {**RETRIEVAL, "data": {"path": "data/我的", "images": None, "digest": "bb"}}
    text = markdown([RETRIEVAL, other])
    assert "; Flickr (aa); 1,000" in text
    assert "; 我的 (bb); 1,000" in text
    assert "Flickr (aa)" not in markdown([RETRIEVAL, PART])
    fetched = [{**RETRIEVAL, "data": {"path": None, "digest": each}} for each in ("1", "2")]
    assert "paper, zh; (1); 1,000" in markdown(fetched)


# CSV


def test_the_csv_has_each_number_once(tmp_path):
    write_csv([RETRIEVAL, PART, BOXES], tmp_path / "结果.csv")
    with (tmp_path / "结果.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    measured = [row for row in rows if row["kind"] == "measured"]
    published = [row for row in rows if row["kind"] == "published"]
    assert len(measured) == 3 + 3 + 1
    assert [float(row["value"]) for row in published] == [
        number.value for name in ("lit-cn", "coco-boxes") for number in published_numbers(name)
    ]
    first, part, boxes = measured[0], measured[3], measured[6]
    assert {key: first[key] for key in ("metric", "value", "low", "high", "count", "part", "changed")} == {
        "metric": "image_to_text/recall@1", "value": "0.8243", "low": "0.801", "high": "0.84", "count": "1000",
        "part": "False", "changed": "",
    }  # fmt: skip
    assert (part["part"], part["unreadable"], part["problems"]) == ("True", "2", "1")
    assert (boxes["model"], boxes["revision"], boxes["low"], boxes["language"]) == ("org/模型|a_b", "main", "", "en")


# Plot


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_plot_is_drawn(tmp_path, ending):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"图.{ending}"
    plot([RETRIEVAL, PART, BOXES], path)
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(start)


def test_a_plot_names_every_point_in_ascii(tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text stays text
    plot([RETRIEVAL, BOXES, PART], tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert text.isascii()
    for panel in ("lit-cn: image_to_text/recall@1", "lit-cn: text_to_image/recall@1", "coco-boxes: top1"):
        assert f">{panel}<" in text
    assert ">embedded (1f2e3d4c), paper, zh<" in text
    assert ">embedded (1f2e3d4c), paper, zh+<" in text
    assert r">org/\u6a21\u578b|a_b@main, paper, en*<" in text
    assert text.count(">FG-CLIP 2 B/16 (fg-clip-2-table-5)<") == 2
    assert ">CLOC L/14 (fg-clip-2-tables-1-2)<" in text


def test_a_wrong_ending_or_no_result_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in \.png, \.svg or \.pdf, got .*a\.jpg'"):
        plot([RETRIEVAL], tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="results is empty"):
        plot([], tmp_path / "a.png")


@pytest.mark.parametrize(
    ("language", "titles"), [("en", ("AP", "AP50, detector alone")), ("zh", ("AP", "AP50，仅检测器"))]
)
def test_a_detector_by_itself_has_titles_of_its_own(language, titles):
    metrics = {name: {"value": 0.5, "interval": None, "count": 9} for name in ("ap", "ap50_detector")}
    tables = tables_of(markdown([changed("metrics", metrics)], language))[1:]
    assert [tables[0][0][1], tables[-1][0][1]] == list(titles)  # a table each
