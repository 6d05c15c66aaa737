"""`fgclip2 bench`: from a data set on disk to a report, and every kind of broken data set to a helpful error."""

import json
import re
import zipfile
from pathlib import Path

import pytest

from fgclip2.benchmarks import bundled

from ..drawings.conftest import cache, drawings, photographs, table  # noqa: F401

CATEGORIES = [{"id": 1, "name": "猫"}, {"id": 2, "name": "狗"}]


@pytest.fixture
def boxes(folder) -> Path:
    """A small BoxClass-CN: two images, three boxes."""
    root = folder / "BoxClass-CN"
    (root / "jsonfile").mkdir(parents=True)
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for name in ("照片/黑猫.png", "photo.png"):
            archive.write(name, f"images/{Path(name).name}")
    write_boxes(root, CATEGORIES, [[0, 0, 50, 40], [10, 10, 100, 60], [20, 20, 30, 30]], [1, 2, 2])
    return root


def write_boxes(root: Path, categories: list, its: list, ids: list) -> None:
    content = {
        "categories": categories,
        "images": [{"id": 0, "file_name": "黑猫.png"}, {"id": 1, "file_name": "photo.png"}],
        "annotations": [
            {"id": number, "image_id": number % 2, "bbox": box, "category_id": category}
            for number, (box, category) in enumerate(zip(its, ids, strict=True))
        ],
    }
    file = root / "jsonfile" / "valid_category_data_total_zh.json"
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


@pytest.fixture
def captions(folder) -> Path:
    """A small LIT-CN."""
    root = folder / "LIT-CN"
    root.mkdir()
    lines = ["照片/黑猫.png\t一只黑猫趴在窗台上。", "照片/dog.png\t一只狗在草地上奔跑。", "photo.png\t一张照片。"]
    (root / "image_caption_long_cn.txt").write_text("\n".join(lines), encoding="utf-8")
    return root


def test_every_benchmark_is_listed_with_its_source(run):
    rows = run.json("bench", "list", model=False)["benchmarks"]
    names = [row["name"] for row in rows]
    assert {"lit-cn", "boxclass-cn", "fg-ovd-hard", "imagenet-1k", "bundled-scenes-long-zh"} <= set(names)
    assert len(names) == len(set(names))
    assert all(row["source"] for row in rows)
    assert "boxclass-cn" in run("bench", "list", model=False).stdout


def test_from_a_data_set_to_a_report(run, boxes, captions, folder):
    kept = ("--output", "结果", "--cache", folder / "cache")
    printed = run("bench", "run", "boxclass-cn", boxes, *kept, "--items").stdout
    assert "top1" in printed
    assert "2 images, 3 items, left out 0" in printed
    run("bench", "run", "lit-cn", captions, "--images", folder, *kept, "--set", "max_num_patches=64")
    run("bench", "run", "boxclass-cn", boxes, "--output", "没有缓存", "--no-cache")
    files = sorted(Path("结果").glob("*.json"))
    assert [re.sub(r"-[0-9a-f]{8}\.json$", "", file.name) for file in files] == [
        "boxclass-cn-zh-saved-paper",
        "lit-cn-zh-saved-paper",
    ]
    assert "not the published data set: 2 images in place of 24221" in printed
    result = json.loads(files[0].read_text(encoding="utf-8"))
    assert len(result["per_item"]["rank"]) == 3
    assert (result["data"]["path"], result["data"]["images"]) == (str(boxes), None)
    assert result["settings"]["walk_type"] == "box"
    assert not list(Path("没有缓存").rglob("*.safetensors"))
    (again,) = [json.loads(file.read_text(encoding="utf-8")) for file in Path("没有缓存").glob("*.json")]
    assert again["metrics"] == result["metrics"]
    run("bench", "report", "结果", "--output", "报告/表", "--language", "zh", "--no-plot", model=False)
    markdown = Path("报告/表.md").read_text(encoding="utf-8")
    assert "boxclass-cn" in markdown
    assert "SigLIP 2" in markdown
    assert Path("报告/表.csv").is_file()


def test_a_sound_data_set_is_checked_against_the_published_counts(run, boxes):
    result = run("bench", "check", "boxclass-cn", boxes, "--open", code=1, model=False)
    assert "2 images in place of 24221, 3 items in place of 66258" in result.stderr
    found = run.json("bench", "check", "boxclass-cn", boxes, code=1, model=False)
    (found,) = found["benchmarks"]
    assert found["name"] == "boxclass-cn"
    assert found["counts"]["categories"] == {"here": 2, "published": 566}
    assert found["problems"] == []


def missing_folder(root: Path) -> str:
    root.rename(root.with_name("elsewhere"))
    return r"BoxClass-CN is no folder: give an existing one"


def truncated_zip(root: Path) -> str:
    path = root / "images.zip"
    path.write_bytes(path.read_bytes()[:-40])
    return r"images\.zip is no whole zip archive .*download it again"


def missing_key(root: Path) -> str:
    file = root / "jsonfile" / "valid_category_data_total_zh.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["annotations"]
    file.write_text(json.dumps(content), encoding="utf-8")
    return r"valid_category_data_total_zh\.json.*annotations"


def categories_from_zero(root: Path) -> str:
    write_boxes(root, [{"id": 0, "name": "猫"}, {"id": 1, "name": "狗"}], [[0, 0, 50, 40]], [0])
    return r"valid_category_data_total_zh\.json.*(from|start).* 1"


def no_box_within(root: Path) -> str:
    write_boxes(root, CATEGORIES, [[5000, 0, 50, 40]], [1])
    return r"annotations\[0\]: bbox is \[5000, 0, 50, 40\]; it must be a box within the image, 160 x 96 pixels"


def half_a_json(root: Path) -> str:
    file = root / "jsonfile" / "valid_category_data_total_zh.json"
    file.write_bytes(file.read_bytes()[:99])
    return r"valid_category_data_total_zh\.json"


@pytest.mark.parametrize(
    "spoil", [missing_folder, truncated_zip, missing_key, categories_from_zero, no_box_within, half_a_json]
)
def test_a_broken_data_set_is_an_error_that_names_it(run, boxes, spoil, folder):
    message = spoil(boxes)
    result = run("bench", "run", "boxclass-cn", boxes, "--cache", folder / "cache", code=1)
    assert re.search(message, result.stderr), result.stderr
    assert not Path("bench_results").exists()


def test_a_data_set_without_its_path(run):
    assert (
        "give the path of the data set of boxclass-cn"
        in run("bench", "check", "boxclass-cn", code=1, model=False).stderr
    )


def test_links_out_of_the_data_set_are_followed_on_request(run, captions, folder):
    (captions / "photo.png").symlink_to(folder / "photo.png")
    (captions / "image_caption_long_cn.txt").write_text("photo.png\t一张照片。", encoding="utf-8")
    refused = run("bench", "check", "lit-cn", captions, model=False, code=1)
    assert "photo.png is a link to" in refused.stderr + refused.stdout
    counts = run.json("bench", "check", "lit-cn", captions, "--follow-links", model=False, code=1)["benchmarks"][0]
    assert (counts["counts"]["images"]["here"], counts["problems"]) == (1, [])


def test_a_box_outside_its_image_is_found_and_counted(run, boxes, folder):
    write_boxes(boxes, CATEGORIES, [[0, 0, 50, 40], [5000, 10, 100, 60]], [1, 2])
    checked = run("bench", "check", "boxclass-cn", boxes, "--open", code=1, model=False)
    assert "annotations[1]: bbox is [5000, 10, 100, 60]; it must be a box within the image, 160 x 96" in checked.stdout
    printed = run("bench", "run", "boxclass-cn", boxes, "--cache", folder / "cache").stdout
    assert "left out 1" in printed
    assert re.search(
        r"valid_category_data_total_zh\.json: annotations\[1\]: bbox is \[5000, 10, 100, 60\]|photo\.png: ", printed
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", "run", "lit", "LIT-CN"), "no benchmark 'lit'"),
        (("bench", "run", "lit-cn"), "give the path"),
        (("bench", "run", "bundled", "LIT-CN"), "bundled takes no path and no images (LIT-CN)"),
        (("bench", "run", "bundled-boxes-zh", "--images", "图像"), "takes no path and no images (图像)"),
        (("bench", "run", "bundled-boxes-cn"), "no benchmark 'bundled-boxes-cn'; choose one of bundled, bundled-"),
        (("bench", "run", "bundled", "--set", "walk_type=long"), "bundled-boxes-en: there is no setting 'walk_type'"),
        (("bench", "run", "lit-cn", "LIT-CN", "--revision", "main"), "works with a model"),
        (("bench", "run", "lit-cn", "LIT-CN", "--controls"), "works with bundled"),
        (("bench", "run", "lit-cn", "LIT-CN", "--cache", "a", "--no-cache"), "does not go with"),
        (("bench", "run", "lit-cn", "LIT-CN", "--set", "walk_type"), "NAME=VALUE"),
        (
            ("bench", "run", "lit-cn", "LIT-CN", "--set", "walk_type=box"),
            "walk_type must be 'short' or 'long', got 'box'",
        ),
        (
            ("bench", "run", "lit-cn", "LIT-CN", "--preset", "best"),
            "preset must be 'paper', 'released', 'fg-clip-v1' or 'r2d2', got 'best'",
        ),
    ],
)
def test_wrong_usage_is_named(run, captions, arguments, message):
    code = 2 if "NAME=VALUE" in message or "works with" in message or "does not go" in message else 1
    assert message in " ".join(run(*arguments, code=code).stderr.replace("│", " ").split())


def test_the_bundled_benchmark_with_its_controls(run, cache, table, folder, monkeypatch):  # noqa: F811
    """Small, and of the scenes only: the described pictures have their tests elsewhere."""
    monkeypatch.setattr(bundled, "build_demo_data", lambda cache: (table, {}, {}))
    monkeypatch.setattr(bundled, "write_described", lambda *arguments: None)
    monkeypatch.setattr(bundled, "SCENES", 4)
    rows = tuple(row for row in bundled.BUNDLED if "boxes" in row.name or "hard" in row.name)
    monkeypatch.setattr(bundled, "BUNDLED", rows)
    monkeypatch.setattr("fgclip2.drawings.sources.default_cache", lambda: cache)
    monkeypatch.setattr(bundled.build_bundled, "__defaults__", (4,))
    run("bench", "run", "bundled", "--controls", "--output", "结果", "--cache", folder / "cache")
    models = {json.loads(file.read_text(encoding="utf-8"))["model"]["name"] for file in Path("结果").glob("*.json")}
    assert {"untrained", "pixel nearest neighbour"} < models
    assert len(models) == 3
    assert len(list(Path("结果").glob("*.json"))) == 9
    checked = run.json("bench", "check", "bundled", model=False)["benchmarks"]
    assert [each["name"] for each in checked] == [row.name for row in rows]
    assert all(each["counts"]["images"]["here"] == 4 for each in checked)
    assert all(each["problems"] == [] for each in checked)
    alone = run("bench", "run", rows[0].name, "--output", "一个", "--cache", folder / "cache").stdout
    assert alone.startswith(rows[0].name)
    assert len(list(Path("一个").glob("*.json"))) == 1
