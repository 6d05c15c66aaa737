"""The offline benchmark, small: written in the published formats, read by their readers, measured, shared out."""

import io
import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip2 import FGClip2Embedder
from fgclip2.benchmarks import bundled, encoding, image_files
from fgclip2.benchmarks.bundled import BUNDLED, build_bundled, run_pixels, write_scenes
from fgclip2.benchmarks.report import markdown, read_results
from fgclip2.benchmarks.runner import MAX_LEFT_OUT, result_path, run, write_result
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.phrases import listing
from fgclip2.drawings.scene_sets import build_scene_set

from ..drawings.conftest import cache, drawings, photographs, table  # noqa: F401
from ..ranks import run_on_ranks

SCENES = 6
VARYING = ("created", "seconds", "processes")


@pytest.fixture(scope="module")
def folder(cache, table, tmp_path_factory):  # noqa: F811
    """What `build_bundled` makes, of a few scenes and two described pictures."""
    described = cache / "described"
    for name in ("boards", "stamps"):
        (described / name).mkdir(parents=True)
        rows = []
        for index, (english, chinese) in enumerate([("a tower", "一座塔"), ("a drum", "一面鼓")]):
            path = f"{name}/{index}.webp"
            bundled_image(index).save(described / path)
            long = (
                {"long_en": f"{english}, seen from afar.", "long_zh": f"从远处看到的{chinese}。"}
                if name == "boards"
                else {}
            )
            rows.append({"path": path, "short_en": english, "short_zh": chinese, **long})
        (described / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundled, "build_demo_data", lambda cache: (table, {}, {}))
        first = build_bundled(cache, SCENES)
        assert build_bundled(cache, SCENES) == first
    return first


def bundled_image(seed: int):
    from ..embedding.test_embedder import draw

    return draw(96, 64, seed)


@pytest.fixture(scope="module")
def embedder() -> FGClip2Embedder:
    return FGClip2Embedder.from_pretrained(device="cpu")


def find(name: str):
    return next(row for row in BUNDLED if row.name == name)


def read(name: str, folder):
    benchmark = find(name)
    return benchmark.read(folder, None, benchmark.paper)


def test_files_have_the_formats_of_the_published_data_sets(folder):
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "scenes/images.zip",
        "scenes/long/image_caption_long_cn.txt",
        "scenes/boxes/valid_category_data_total_zh.json",
        "scenes/hard-negatives-zh/h_attributes_llava.jsonl",
        "boards/long/docci_descriptions.jsonlines",
        "stamps/short/flickr30k_test.json",
    } <= names
    assert not (folder / "stamps" / "long").exists()
    boxes = json.loads((folder / "scenes/boxes/valid_category_data_total_zh.json").read_text(encoding="utf-8"))
    assert set(boxes) == {"categories", "images", "annotations"}
    assert [category["id"] for category in boxes["categories"]] == list(range(1, 19))
    assert len({annotation["id"] for annotation in boxes["annotations"]}) == len(boxes["annotations"])
    line = (folder / "scenes/long/image_caption_long_cn.txt").read_text(encoding="utf-8").splitlines()[0]
    assert line.startswith("images/00000.webp\t")
    with zipfile.ZipFile(folder / "scenes/images.zip") as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == SCENES


@pytest.mark.parametrize("language", ["en", "zh"])
def test_readers_give_back_what_was_written(folder, cache, table, language):  # noqa: F811
    scenes = build_scene_set(cache, table, "test", SCENES, bundled.SEED)
    rows = scenes.records[language]
    long, short = read(f"bundled-scenes-long-{language}", folder), read(f"bundled-scenes-short-{language}", folder)
    assert list(long.captions) == [row["caption"] for row in rows]
    assert list(short.captions) == [row["short_caption"] for row in rows]
    assert list(long.pairs) == [(index, index) for index in range(SCENES)]
    regions = read(f"bundled-boxes-{language}", folder)
    assert [list(map(list, boxes)) for boxes in regions.boxes] == [scenes.boxes(index) for index in range(SCENES)]
    named = [[regions.names[language][category] for category in its] for its in regions.categories]
    assert named == [[region["category"] for region in row["bbox_info"]] for row in rows]
    hard = read(f"bundled-hard-negatives-{language}", folder)
    expected = [[[r["short_expr"], *r["short_expr_negs"].values()] for r in row["bbox_info"]] for row in rows]
    assert [[list(texts) for texts in its] for its in hard.texts] == expected
    pairs = read(f"bundled-matching-{language}", folder)
    assert (len(pairs.images), pairs.items, sum(pairs.labels)) == (SCENES, 2 * SCENES, SCENES)
    for (image, text), label in zip(pairs.pairs, pairs.labels, strict=True):
        phrases = [region["short_expr"] for region in rows[image]["bbox_info"]]
        variants = [
            listing([*phrases[:place], false, *phrases[place + 1 :]], language)
            for place, region in enumerate(rows[image]["bbox_info"])
            for key, false in region["short_expr_negs"].items()
            if region["neg_kinds"][key] not in ("swap", "bind-color")
        ]
        assert pairs.texts[text] in ([listing(phrases, language)] if label else variants)
    for name in (
        "scenes-long",
        "scenes-short",
        "boxes",
        "hard-negatives",
        "matching",
        "boards-long",
        "boards-short",
        "stamps-short",
    ):
        data = read(f"bundled-{name}-{language}", folder)
        assert not data.problems
        assert data.items
        assert all(image.read() for image in data.images)


def test_a_result_says_all_that_it_depends_on(folder, embedder, tmp_path):
    changes = {"max_num_patches": "64"}
    result = run(find("bundled-boxes-zh"), folder, embedder, changes=changes, show_progress_bar=False, with_items=True)
    assert result["benchmark"] == "bundled-boxes-zh"
    assert result["task"] == "region_classification"
    assert result["changed"] == {"max_num_patches": 64}
    assert result["settings"] == {
        "max_num_patches": 64,
        "templates": "none",
        "lower_case": True,
        "method": "roi",
        "crowds": True,
        "crop_edges": "outward",
        "walk_type": "box",
    }
    assert result["model"]["fingerprint"] == embedder.fingerprint
    assert result["model"]["dtype"] == "float32"
    assert {"fgclip2", "torch", "transformers", "tokenizers", "pillow", "numpy", "python"} == set(result["versions"])
    count = result["counts"]["items"]
    assert len(result["per_item"]["rank"]) == count == result["metrics"]["top1"]["count"]
    low, high = result["metrics"]["top1"]["interval"]
    assert low <= result["metrics"]["top1"]["value"] <= high
    path = result_path(tmp_path, result)
    assert re.fullmatch(r"bundled-boxes-zh-embedded-paper-[0-9a-f]{8}\.json", path.name)
    write_result(result, path)
    assert json.loads(path.read_text(encoding="utf-8"))["metrics"].keys() == result["metrics"].keys()
    english = run(find("bundled-boxes-zh"), folder, embedder, language="en", show_progress_bar=False)
    assert english["language"] == "en"
    assert result_path(tmp_path, english).name.startswith("bundled-boxes-zh-en-embedded-paper-")
    of_model = {"dtype": "bfloat16", "revision": "v1", "fingerprint": "cafe", "name": f"模型/{'长' * 300}"}
    others = [{**english, "model": {**english["model"], name: value}} for name, value in of_model.items()]
    others += [{**english, "changed": {"crowds": False}}, {**english, "data": {**english["data"], "digest": "1"}}]
    assert len({result_path(tmp_path, each) for each in (result, english, *others)}) == 2 + len(others)
    assert all(len(result_path(tmp_path, each).name.encode()) < 255 for each in others)
    assert result["data"]["path"] is None  # it would name a folder of whoever ran it
    elsewhere = shutil.copytree(folder, tmp_path / "别处")
    data = [find("bundled-boxes-zh").read(each, None, find("bundled-boxes-zh").paper) for each in (folder, elsewhere)]
    assert data[0].digest() == data[1].digest() == result["data"]["digest"]
    with zipfile.ZipFile(elsewhere / "scenes/images.zip") as archive:
        images = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(elsewhere / "scenes/images.zip", "w") as archive:
        for index, (name, content) in enumerate(images.items()):
            archive.writestr(name, content[:-1] + bytes([content[-1] ^ 1]) if index == 0 else content)
    image_files.open_archive.cache_clear()
    image_files.archive_members.cache_clear()
    other = find("bundled-boxes-zh").read(elsewhere, None, find("bundled-boxes-zh").paper)
    assert other.digest() != data[0].digest()  # one byte of one image
    assert replace(data[0], categories=[[0] * len(each) for each in data[0].boxes]).digest() != data[0].digest()
    with pytest.raises(ValueError, match="language must be 'zh' or 'en' for bundled-boxes-zh, got 'fr'"):
        run(find("bundled-boxes-zh"), folder, embedder, language="fr", show_progress_bar=False)


def test_what_is_left_out_is_named_and_counted(folder, embedder, tmp_path):
    images = tmp_path / "images"
    with zipfile.ZipFile(folder / "scenes/images.zip") as archive:
        archive.extractall(tmp_path)
    (images / "00002.webp").write_bytes(b"broken")
    (images / "00003.webp").unlink()
    result = run(find("bundled-scenes-long-zh"), folder, embedder, images=tmp_path, show_progress_bar=False)
    assert result["counts"] == {"images": 5, "items": 5, "unreadable": 1, "problems": 1}
    assert [row["source"].rpartition("/")[2] for row in result["left_out"]] == [
        "image_caption_long_cn.txt:4",
        "00002.webp",
    ]
    assert result["metrics"]["image_to_text/recall@1"]["count"] == 4
    assert MAX_LEFT_OUT >= 2


def numbers_of_all(folder: str, cache_folder: str) -> list[str]:
    from pathlib import Path

    encoding.BLOCK_SIZE = 4
    torch.set_num_threads(1)
    embedder = FGClip2Embedder.from_pretrained(device="cpu")
    results = [
        run(find(name), Path(folder), embedder, cache=cache_folder or None, show_progress_bar=False, with_items=True)
        for name in (
            "bundled-scenes-long-zh",
            "bundled-boxes-en",
            "bundled-hard-negatives-zh",
            "bundled-stamps-short-en",
        )
    ]
    return [json.dumps({key: value for key, value in each.items() if key not in VARYING}) for each in results]


def test_one_process_and_two_give_identical_results(folder, tmp_path):
    one = run_on_ranks(numbers_of_all, 1, str(folder), "")[0]
    two = run_on_ranks(numbers_of_all, 2, str(folder), str(tmp_path))
    assert two == [one, one]
    kept = sorted(tmp_path.rglob("*.safetensors"))
    kept[0].unlink()  # a killed run: what is kept is taken, the rest is made anew
    assert run_on_ranks(numbers_of_all, 1, str(folder), str(tmp_path))[0] == one


def test_nearest_pixels_find_what_they_have_seen(folder, cache, monkeypatch):  # noqa: F811
    """Given the very crops as references, all but those that another thing's crop equals; given only others, none."""
    data = read("bundled-boxes-en", folder)
    crops, things = [], []
    for image, boxes, categories in zip(data.images, data.boxes, data.categories, strict=True):
        picture = Image.open(io.BytesIO(image.read())).convert("RGB")
        crops += [np.asarray(picture.crop(tuple(map(int, box))).resize((64, 64))) for box in boxes]
        things += [int(load_concepts(cache).thing_ids[category]) for category in categories]
    monkeypatch.setattr(bundled, "training_pictures", lambda *_: (np.stack(crops), np.array(things)))
    result = run_pixels(folder, cache)
    assert result["model"]["name"] == "pixel nearest neighbour"
    assert result["metrics"]["top1"]["value"] > 0.9
    assert result["metrics"]["top1"]["count"] == result["counts"]["items"]
    others = np.array(things) % 17 + 1
    monkeypatch.setattr(bundled, "training_pictures", lambda *_: (np.stack(crops), others))
    assert run_pixels(folder, cache)["metrics"]["top1"]["value"] < 0.1


def test_a_run_that_is_stopped_while_writing_leaves_no_half_folder(cache, table, monkeypatch):  # noqa: F811
    monkeypatch.setattr(bundled, "build_demo_data", lambda cache: (table, {}, {}))
    calls = []

    def stop(*arguments):
        calls.append(arguments)
        write_scenes(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(bundled, "write_scenes", stop)
    before = sorted((cache / "bundled").iterdir())
    with pytest.raises(KeyboardInterrupt):
        build_bundled(cache, SCENES + 1)
    assert calls
    assert sorted((cache / "bundled").iterdir()) == before
    assert np.all([path.is_dir() for path in before])


def test_of_two_builds_at_once_the_second_takes_what_the_first_has_made(cache, table, monkeypatch):  # noqa: F811
    monkeypatch.setattr(bundled, "build_demo_data", lambda cache: (table, {}, {}))
    before = set((cache / "bundled").iterdir())

    def be_late(*arguments):
        write_scenes(*arguments)
        monkeypatch.setattr(bundled, "write_scenes", write_scenes)
        build_bundled(cache, SCENES + 2)

    monkeypatch.setattr(bundled, "write_scenes", be_late)
    folder = build_bundled(cache, SCENES + 2)
    assert (folder / "scenes" / "images.zip").is_file()
    assert set((cache / "bundled").iterdir()) - before == {folder}


STORED = Path(__file__).parents[2] / "docs" / "bundled_benchmark"


@pytest.mark.parametrize("row", BUNDLED, ids=lambda row: row.name)
def test_the_stored_results_are_of_this_checkpoint_and_this_code(row, folder, embedder):
    fresh = run(row, folder, embedder, show_progress_bar=False)
    stored = {each["model"]["name"]: each for each in read_results(STORED) if each["benchmark"] == row.name}
    assert stored["embedded"]["model"]["fingerprint"] == embedder.fingerprint
    assert "untrained" in stored
    for result in stored.values():
        assert result.keys() == fresh.keys()
        assert result["settings"] == fresh["settings"]
        assert result["metrics"].keys() == fresh["metrics"].keys()
        assert all(metric["interval"] or metric["value"] in (0, 1) for metric in result["metrics"].values())


@pytest.mark.parametrize(("name", "language"), [("table.md", "en"), ("table_zh.md", "zh")])
def test_the_stored_tables_are_of_the_stored_results(name, language):
    assert (STORED / name).read_text(encoding="utf-8") == markdown(read_results(STORED), language)
