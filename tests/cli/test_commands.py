"""What each subcommand prints and writes, against the embedder called directly."""

import inspect
import json
import re
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open

from fgclip2 import Embedder, FGClip2Embedder, FGClip2Model
from fgclip2.diagnostics import write_known_answers
from fgclip2.hub.formats import FORMATS
from fgclip2.modeling.inputs import MAX_PIXELS
from fgclip2.training import FGClip2ForTraining
from fgclip2.training.lora import add_lora, lora_config, save_lora
from tests.calibrations import level_calibration

# embed --------------------------------------------------------------------------------------------------------------


def test_embed_images_to_npy(run, embedder):
    summary = run.json("embed", "photo.png", "照片/黑猫.png", "--output", "向量.npy")
    expected = embedder.encode_images(["photo.png", "照片/黑猫.png"])
    np.testing.assert_allclose(np.load("向量.npy"), expected, atol=1e-5)
    assert summary == {
        "model": str(run.checkpoint),
        "output": "向量.npy",
        "count": 2,
        "embedding_size": embedder.embedding_size,
        "skipped": [],
    }


def test_embed_folders_to_safetensors_with_the_names(run, embedder):
    assert "3 vectors" in run("embed", "照片", "photo.png", "-o", "v.safetensors").stdout
    with safe_open("v.safetensors", framework="np") as file:
        metadata, vectors = file.metadata(), file.get_tensor("embeddings")
    names = json.loads(metadata["names"])
    assert names == ["照片/dog.png", "照片/黑猫.png", "photo.png"]
    assert (metadata["kind"], metadata["fingerprint"]) == ("image", embedder.fingerprint)
    np.testing.assert_allclose(vectors, embedder.encode_images(names), atol=1e-5)


def test_embed_texts_to_stdout_as_json_lines(run, embedder):
    lines = run("embed", "--text", "a dog", "--text", "一只狗", "-o", "-").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["text"] for row in rows] == ["a dog", "一只狗"]
    expected = embedder.encode_texts(["a dog", "一只狗"])
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-5)


@pytest.mark.parametrize("source", ["文本.txt", "-"])
def test_embed_texts_of_a_file_or_stdin(run, embedder, source):
    Path("文本.txt").write_text("\ufeff红苹果\n\na red apple\n", encoding="utf-8")
    stdin = "红苹果\na red apple\n" if source == "-" else None
    run("embed", "--texts-file", source, "--walk-type", "box", "-o", "v.jsonl", stdin=stdin)
    rows = [json.loads(line) for line in Path("v.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == ["红苹果", "a red apple"]
    expected = embedder.encode_texts(["红苹果", "a red apple"], "box")
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-5)


def test_embed_writes_the_names_beside_the_vectors(run, embedder):
    assert "3 vectors" in run("embed", "照片", "photo.png", "--output", "向量.npz").stdout
    with np.load("向量.npz") as file:
        names = file["names"].tolist()
        np.testing.assert_allclose(file["embeddings"], embedder.encode_images(names), atol=1e-5)
    assert names == ["照片/dog.png", "照片/黑猫.png", "photo.png"]
    assert not Path("向量.npz.parts").exists()


def test_embed_leaves_out_what_cannot_be_used_in_a_folder(run, folder):
    (folder / "照片" / "坏\n.png").write_bytes(b"not a picture")
    result = run("embed", "照片", "-o", "v.npy")
    assert "skipped 照片/坏\\n.png: not a readable image: " in result.stderr
    assert "v.npy doesn't say which image a vector is of; an .npz file has the names" in result.stderr
    assert [row["input"] for row in run.json("embed", "照片", "-o", "v.npz")["skipped"]] == ["照片/坏\n.png"]
    # What is named is an error, and the work on the others stays.
    refused = run("embed", "照片", "坏.png", "-o", "v.npz", code=1).stderr.splitlines()[-1]
    assert "坏.png: not a readable image" in refused
    assert "the vectors of the others stay in v.npz.parts for the next run" in refused
    again = run("embed", "照片", "坏.png", "-o", "v.npz", "--skip-errors")
    assert "2 of 4 vectors are there from a run that was ended, in v.npz.parts" in again.stderr
    assert not Path("v.npz.parts").exists()
    for path in (folder / "照片").glob("[!坏]*"):
        path.unlink()
    assert "none of 1 images can be used" in run("embed", "照片", "-o", "leer.npz", code=1).stderr


def test_embed_goes_on_where_a_run_was_ended(run, embedder, monkeypatch):
    from fgclip2.embedding import embedder as embedder_module

    seen = []

    def prepare(item, **options):
        seen.append(str(item[1]))
        if interrupting and seen[-1] == "photo.png":
            raise KeyboardInterrupt
        return prepare_image(item, **options)

    prepare_image = embedder_module.prepare_image
    monkeypatch.setattr(embedder_module, "prepare_image", prepare)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # one image is prepared at a time
    arguments = ["embed", "照片", "photo.png", "-o", "v.npz", "--batch-size", "1"]
    interrupting = True
    stopped = run(*arguments, code=130)
    assert stopped.stderr == "fgclip2: interrupted: what is done stays in v.npz.parts; the same command goes on\n"
    assert not Path("v.npz").exists()
    interrupting, seen = False, []
    run(*arguments)
    assert seen == ["photo.png"]
    with np.load("v.npz") as file:
        np.testing.assert_allclose(file["embeddings"], embedder.encode_images(file["names"].tolist()), atol=1e-5)


def test_embed_names_or_skips_broken_images(run, folder):
    assert "坏.png" in run("embed", "photo.png", "坏.png", "-o", "v.npy", code=1).stderr
    assert not list(folder.glob("*v.npy*"))
    summary = run.json("embed", "坏.png", "photo.png", "-o", "v.npy", "--skip-errors")
    assert summary["count"] == 1
    assert summary["skipped"][0]["input"] == "坏.png"
    assert np.load("v.npy").shape[0] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "v.npy"], 2, "image files, --text or --texts-file"),
        (["photo.png", "--text", "猫", "-o", "v.npy"], 2, "give either"),
        (
            ["photo.png", "-o", "v.csv"],
            2,
            "a file '.npy', '.npz', '.safetensors', '.jsonl' or '.parquet', or -, got v.csv",
        ),
        (["photo.png", "-o", "-", "--json"], 2, "--json"),
        (["photo.png", "-o", "v.npy", "--max-patches", "many"], 2, "auto or a positive integer"),
        (["photo.png", "-o", "没有/v.npy"], 1, "there is no folder 没有"),
        (["photo.png", "-o", "夹.npy"], 1, "夹.npy is a folder: give the name of a file in it"),
        (["missing.png", "-o", "v.npy"], 1, "missing.png: no such image file"),
        (["--texts-file", "坏.txt", "-o", "v.npy"], 1, "坏.txt is not UTF-8"),
        (["--texts-file", "空.txt", "-o", "v.npy"], 1, "空.txt has no texts"),
        (["--text", "猫", "--walk-type", "region", "-o", "v.npy"], 1, "--walk-type must be 'auto'"),
        (["--text", "猫", "--text", "", "-o", "v.npy"], 1, "the text '' is empty: give what to embed, or leave it out"),
        (["空", "-o", "v.npy"], 1, "there are no images in 空"),
        (["photo.png", "-o", "v.npy", "--device", "quantum"], 1, "device='quantum'"),
    ],
)
def test_embed_mistakes(run, arguments, code, message):
    Path("坏.txt").write_bytes(b"\xff\xfe\xff")
    Path("空.txt").touch()
    Path("空").mkdir()
    Path("夹.npy").mkdir()
    assert message in " ".join(run("embed", *arguments, code=code).stderr.split())


def test_several_devices_are_named_with_commas(run, embedder):
    run("embed", "照片", "-o", "v.npy", "--device", "cpu,cpu", "--batch-size", "1")
    expected = embedder.encode_images(["照片/dog.png", "照片/黑猫.png"])
    np.testing.assert_allclose(np.load("v.npy"), expected, atol=1e-5)


# index and search ----------------------------------------------------------------------------------------------------


def test_search_by_text_and_image(run, embedder):
    shutil.copy("照片/dog.png", "照片/copy.png")
    result = run.json("search", "照片", "一只狗", "a dog", "--image", "照片/dog.png", "--top-k", "1")
    assert result["index"] == {
        "images": 3,
        "added": 3,
        "updated": 0,
        "removed": 0,
        "unchanged": 0,
        "unusable": [],
        "left_out": {},
    }
    kinds = [(each["kind"], each["query"]) for each in result["results"]]
    assert kinds == [("text", "一只狗"), ("text", "a dog"), ("image", "照片/dog.png")]
    (image_hit,) = result["results"][2]["hits"]  # neither the image itself nor its copy
    assert image_hit["path"] == "照片/黑猫.png"
    vectors = embedder.encode_images(["照片/dog.png", "照片/黑猫.png"])
    assert image_hit["score"] == pytest.approx(vectors[0] @ vectors[1], abs=1e-5)
    names = ["照片/copy.png", "照片/黑猫.png"]
    scores = embedder.similarity(embedder.encode_texts("一只狗"), embedder.encode_images(names))
    assert result["results"][0]["hits"][0]["path"] == names[int(scores.argmax())]
    assert result["results"][0]["hits"][0]["score"] == pytest.approx(float(scores.max()), abs=1e-5)


def test_search_by_phrases_shows_where_they_are(run):
    (result,) = run.json("search", "照片", "a dog and 一只猫", "--rerank", "phrases")["results"]
    for hit in result["hits"]:
        assert hit["reranked"] != hit["score"]
        assert [phrase["text"] for phrase in hit["phrases"]] == ["a dog", "一只猫"]
    first, phrase = run("search", "照片", "a dog and 一只猫", "--rerank", "phrases").stdout.splitlines()[1:3]
    hit = result["hits"][0]
    assert first == f"  {hit['reranked']:.4f}  {hit['score']:.4f}  {hit['path']}"
    box = ", ".join(f"{edge:.0f}" for edge in hit["phrases"][0]["box"])
    assert phrase == f"    {hit['phrases'][0]['cosine']:.4f}  [{box}]  a dog"
    assert "must be phrases or model, got 'words'" in run("search", "照片", "猫", "--rerank", "words", code=2).stderr
    refused = run("search", "照片", "--image", "photo.png", "--rerank", "phrases", code=2).stderr
    assert "needs a text: searches by images and by combined queries are not re-ranked" in refused
    assert "works with --rerank" in run("search", "照片", "猫", "--candidates", 5, code=2).stderr
    assert "FG-CLIP 2 has no pair scores" in run("search", "照片", "猫", "--rerank", "model", code=1).stderr
    by_model = ("search", "照片", "猫", "--rerank", "model", "--explain", "图")
    assert "needs --rerank phrases" in run(*by_model, code=2).stderr


def test_dense_maps_are_announced_kept_and_searched(run, embedder, monkeypatch):
    assert "must be fp16, int8 or none, got 'int4'" in run("index", "照片", "--dense", "int4", code=2).stderr
    said = run("index", "照片", "--dense", "int8", "--max-patches", "64").stderr.splitlines()
    assert (
        said[0]
        == f"dense maps as int8 take about {64 * (embedder.embedding_size + 2) / 1000:,.0f} kB an image (64 patches)"
    )
    assert said[2].startswith("dense maps as int8 of 2 images, 0.0 MB")
    monkeypatch.setattr(FGClip2Embedder, "stream_windows", None)  # which would open the images
    found = run.json("search", "照片", "a dog and 一只猫", "--rerank", "phrases", "--max-patches", "64")
    assert found["index"]["dense"]["kind"] == "int8"
    assert found["index"]["dense"]["images"] == 2
    assert [phrase["text"] for phrase in found["results"][0]["hits"][0]["phrases"]] == ["a dog", "一只猫"]
    assert "dense" not in run.json("index", "照片", "--dense", "none", "--max-patches", "64")["index"]


def test_search_draws_where_the_phrases_are(run, monkeypatch):
    monkeypatch.setattr("fgclip2.visualization._CHINESE_FONTS", {})  # so that all machines give the same warning
    command = ("search", "照片", "a dog and 一只猫", "猫", "--rerank", "phrases", "--explain", "图/解释")
    shown = run(*command, "--image", "photo.png")
    assert "no font was found that has '一只猫'" in shown.stderr
    pictures = sorted(str(path) for path in Path("图/解释").iterdir())
    assert [Path(path).name[:5] for path in pictures] == ["1-01-", "1-02-", "2-01-", "2-02-"]
    assert [line.strip() for line in shown.stdout.splitlines() if line.strip() in pictures] == pictures
    for result in run.json(*command)["results"]:
        for hit in result["hits"]:
            assert Path(hit["picture"]).name.endswith(Path(hit["path"]).name)
            with Image.open(hit["picture"]) as picture, Image.open(hit["path"]) as image:
                assert picture.width == 480
                assert picture.height > 480 * image.height / image.width  # below it stand the phrases


def test_search_refuses_pictures_that_it_can_not_draw(run):
    refused = run("search", "照片", "猫", "--explain", "图", code=2).stderr
    assert "needs --rerank phrases" in refused
    inside = ("search", "照片", "猫", "--rerank", "phrases", "--explain", "照片/图")
    assert "--explain 照片/图 lies in the searched folder" in run(*inside, code=1).stderr
    over_a_file = ("search", "照片", "猫", "--rerank", "phrases", "--explain", "photo.png")
    assert "photo.png: a part of this path is a file; give a folder" in run(*over_a_file, code=1).stderr
    assert not Path("图").exists()


def test_search_draws_the_other_pictures_where_one_has_gone(run, folder):
    run("index", "照片", "--dense", "int8")  # so that re-ranking opens no image
    gone = Path("照片/dog.png")
    gone.unlink()
    command = ("search", "照片", "猫", "--rerank", "phrases", "--no-update", "--explain")
    for output in ("图/一", "图/二"):
        shown = run(*command, output)
        assert f"{gone} is not drawn: " in shown.stderr
        assert str(gone) in shown.stdout  # it is a hit of the index as it is
        (picture,) = Path(output).iterdir()
        assert str(picture) in shown.stdout
        gone.write_bytes(b"not a picture")
    assert "has no index" in run(*command, "图/三", "--index", "无", code=1).stderr
    assert not Path("图/三").exists()


def test_search_prints_hits_on_stdout_and_the_index_on_stderr(run, folder):
    (folder / "坏.png").rename(folder / "照片" / "坏.png")
    (folder / "照片" / "片.mov").write_bytes(b"")
    result = run("search", "照片", "狗")
    assert [line.split()[-1] for line in result.stdout.splitlines()[1:]] != []
    assert result.stdout.splitlines()[0] == "狗"
    assert result.stderr.splitlines() == [
        "2 images: 2 new, 0 changed, 0 removed, 1 not usable",
        "1 file can't be used: `fgclip2 index '照片' --show-problems`",
        "1 file is left out, not of an image type: 1 .mov",
    ]
    assert "2 images: 0 new" in run("search", "照片").stderr


def test_index_is_what_search_searches_without_an_update(run, folder, monkeypatch):
    assert "has no index: make it by" in run("search", "照片", "狗", "--no-update", code=1).stderr
    message = run("search", "照片", "狗", "--no-update", "--index", "索 引", code=1).stderr
    assert "--index '索 引'`" in message
    assert run.json("index", "照片")["index"]["added"] == 2
    shutil.copy("photo.png", "照片/新.png")
    before = run("search", "照片", "狗", "--no-update")
    assert (len(before.stdout.splitlines()), before.stderr) == (3, "")
    assert "3 images: 1 new" in run("index", "照片").stderr
    assert len(run("search", "照片", "狗", "--no-update").stdout.splitlines()) == 4
    assert "--no-update" in run("search", "照片", "狗", "--no-update", "--rebuild", code=2).stderr


def test_index_lists_the_problems_without_a_model(run, folder, monkeypatch):
    (folder / "坏.png").rename(folder / "照片" / "坏\u202e\n.png")
    (folder / "照片" / "外.png").symlink_to(folder / "photo.png")
    for name in ("a.mov", "b.MOV", "README"):
        (folder / "照片" / name).write_bytes(b"")
    assert "2 files can't be used: `fgclip2 index '照片' --index 索引 --show-problems`".replace("索引", "'索引'") in (
        run("index", "照片", "--index", "索引").stderr
    )
    monkeypatch.setattr("fgclip2.cli.common.load_embedder", None)
    arguments = ["index", "照片", "--index", "索引", "--show-problems"]
    lines = run(*arguments, model=False).stdout.splitlines()
    assert lines[0].startswith(r"坏\u202e\n.png: not a readable image")
    assert lines[1:] == [
        "外.png: a link to a file outside the folder; --follow-links (follow_links=True) uses it",
        "3 files are left out, not of an image type: 2 .mov, 1 without a suffix",
    ]
    state = run.json(*arguments, model=False)["index"]
    assert [file["path"] for file in state["unusable"]] == ["坏\u202e\n.png", "外.png"]
    assert state["left_out"] == {"": 1, ".mov": 2}


@pytest.mark.parametrize("command", ["index", "search"])
def test_an_interrupted_index_says_what_is_saved(run, monkeypatch, command):
    stream = Embedder.stream_images

    def interrupted(*arguments, **options):
        yield next(stream(*arguments, **options))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "stream_images", interrupted)
        stderr = run(command, "照片", code=130).stderr
    assert "interrupted: 1 of 2 images are saved in the index; the next run goes on from there" in stderr
    assert "2 images: 1 new" in run(command, "照片").stderr


def test_links_and_contents_are_options_of_both(run, folder):
    (folder / "照片" / "外.png").symlink_to(folder / "photo.png")
    assert "2 images: 2 new, 0 changed, 0 removed, 1 not usable" in run("index", "照片").stderr
    assert "3 images: 1 new" in run("search", "照片", "--follow-links").stderr
    assert "3 images: 0 new, 3 changed" in run("index", "照片", "--follow-links", "--compare-contents").stderr
    assert "3 images: 0 new, 0 changed" in run("search", "照片", "--follow-links", "--compare-contents").stderr


@pytest.mark.parametrize("more", [[], ["--no-update"], ["--json"]])
def test_search_says_that_there_is_nothing_to_search(run, folder, more):
    (folder / "空").mkdir()
    run("index", "空")
    result = run("search", "空", "一只猫", *more)
    assert "空 has no images to search: name a folder with .jpg, .png or .webp files" in result.stderr
    assert "no images" not in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["embed", "photo.png", "-o", "v.npy"],
        ["classify", "photo.png", "--labels", "猫"],
        ["regions", "photo.png", "--box", "1,2,30,40", "--labels", "猫"],
        ["heatmap", "photo.png", "猫", "-o", "热.png"],
        ["search", "照片", "--image", "photo.png"],
    ],
)
def test_larger_images_than_are_allowed_are_not_decoded(run, command):
    assert "160 x 96" in run(*command, "--max-pixels", 160 * 96 - 1, code=1).stderr
    run(*command, "--max-pixels", 160 * 96)
    assert f"[default: {MAX_PIXELS}]" in " ".join(run(command[0], "--help", model=False).stdout.split())


def test_larger_images_than_are_allowed_are_not_indexed(run):
    assert "0 images: 0 new, 0 changed, 0 removed, 2 not usable" in run("index", "照片", "--max-pixels", 99).stderr
    assert "2 images: 2 new" in run("index", "照片").stderr


def test_search_warns_of_paths_among_the_texts(run):
    stderr = run("search", "照片", "照片/黑猫.png").stderr
    assert "the query '照片/黑猫.png' looks like the path of a file" in stderr
    assert "--image" in stderr
    assert "UserWarning" not in stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["没有", "狗"], "没有: no such folder"),
        (["photo.png", "狗"], "photo.png is a file, and none that an index is made of: give a folder of images"),
        (["照片", "狗", "--index", "photo.png"], "photo.png is a file: the index needs a folder of its own"),
        (["照片", " "], "the query ' ' is empty: give a text, or an image by --image"),
        (["照片", "--image", "照片"], "照片 is a folder: search by one image file"),
        (["照片", "--image", "没有.png"], "没有.png: no such image file"),
        (["https://example.org/photos", "狗"], "https://example.org/photos: addresses are not fetched"),
        (["照片", "--image", "https://example.org/a.png"], "https://example.org/a.png: addresses are not fetched"),
        (["照片", "狗", "--index", "/dev/null/索引"], "can't be written to /dev/null/索引"),
    ],
)
def test_search_mistakes(run, arguments, message):
    assert message in run("search", *arguments, code=1).stderr


def test_an_index_in_a_quoted_home_folder(run, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert run.json("index", "~/照片", "--index", "~/索引")["index"]["images"] == 2
    assert run.json("search", "照片", "狗", "--index", "索引")["index"]["unchanged"] == 2


def test_search_refuses_an_index_of_another_model(run, folder, saved_folder):
    other = FGClip2Model.from_pretrained(saved_folder)
    other.logit_bias.data += 1
    for path in saved_folder.iterdir():
        if path.suffix == ".json":
            (folder / "other").mkdir(exist_ok=True)
            (folder / "other" / path.name).write_bytes(path.read_bytes())
    other.save_pretrained(folder / "other")
    run("search", "照片", "--index", "索引")
    arguments = ["search", "照片", "狗", "--index", "索引", "--model", folder / "other"]
    assert "--rebuild" in run(*arguments, code=1, model=False).stderr
    run(*arguments, "--rebuild", model=False)


# classify -----------------------------------------------------------------------------------------------------------


def test_classify(run, embedder):
    Path("labels.txt").write_text("猫\n狗\n  a car \n", encoding="utf-8")
    templates = ["--template", "一张{}的照片", "--template", "a photo of {}"]
    result = run.json(
        "classify", "photo.png", "照片/黑猫.png", "--labels-file", "labels.txt", *templates, "--top-k", "2"
    )
    expected = embedder.classify(["photo.png", "照片/黑猫.png"], ["猫", "狗", "a car"], templates[1::2])
    assert [each["image"] for each in result["results"]] == ["photo.png", "照片/黑猫.png"]
    for found, row in zip(result["results"], expected, strict=True):
        best = np.argsort(-row)[:2]
        assert [each["label"] for each in found["labels"]] == [["猫", "狗", "a car"][index] for index in best]
        np.testing.assert_allclose([each["score"] for each in found["labels"]], row[best], rtol=1e-4)


def test_classify_takes_chinese_commas_and_skips_broken_images(run):
    result = run("classify", "坏.png", "photo.png", "--labels", "猫，狗、 a car", "--skip-errors")
    lines = result.stdout.splitlines()
    assert lines[0] == "photo.png"
    assert {line.split(maxsplit=1)[1] for line in lines[1:]} == {"猫", "狗", "a car"}
    assert "skipped 坏.png: " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--labels-file"),
        (["--labels", "猫", "--labels-file", "x.txt"], 2, "give either"),
        (["--labels", " ，,"], 1, "no label"),
        (["--labels-file", "x.txt"], 1, "x.txt"),
        (["--labels", "猫", "--template", "照片"], 1, "where the label goes"),
    ],
)
def test_classify_mistakes(run, arguments, code, message):
    assert message in " ".join(run("classify", "photo.png", *arguments, code=code).stderr.split())


# regions ------------------------------------------------------------------------------------------------------------

BOXES = [[0, 0, 80.5, 60], [20, 20, 150, 90]]


@pytest.mark.parametrize(
    "given",
    [
        ["--boxes", json.dumps(BOXES)],
        ["--boxes", "框.json"],
        ["--box", "0,0,80.5,60", "--box", "20，20，150，90"],
        ["--boxes", '{"boxes": [[0, 0, 80.5, 60], [20, 20, 130, 70]]}', "--box-format", "xywh"],
    ],
)
def test_regions(run, embedder, given):
    Path("框.json").write_text(json.dumps({"boxes": BOXES}), encoding="utf-8")
    result = run.json("regions", "photo.png", *given, "--labels", "猫,狗,car")
    expected = embedder.classify_regions("photo.png", BOXES, ["猫", "狗", "car"])
    assert len(result["regions"]) == 2
    for found, row in zip(result["regions"], expected, strict=True):
        assert sum(each["score"] for each in found["labels"]) == pytest.approx(1, abs=1e-5)
        by_label = {each["label"]: each["score"] for each in found["labels"]}
        np.testing.assert_allclose([by_label[label] for label in ("猫", "狗", "car")], row, atol=1e-5)
    assert "car" in run("regions", "photo.png", *given, "--labels", "猫,狗,car").stdout


def test_regions_of_several_images_from_a_file_of_coco(run, embedder):
    names = ["photo.png", "照片/黑猫.png"]
    instances = {
        "images": [{"id": 1, "file_name": "黑猫.png"}, {"id": 2, "file_name": "photo.png"}],
        "annotations": [
            {"id": 5, "image_id": 1, "bbox": [0, 0, 80, 60], "category_id": 1},
            {"id": 6, "image_id": 2, "bbox": [20, 20, 130, 70], "score": 0.5},
            {"id": 7, "image_id": 2, "bbox": [0, 0, 40, 30]},
        ],
        "categories": [{"id": 1, "name": "猫"}],
    }
    Path("框.json").write_text(json.dumps(instances), encoding="utf-8")
    result = run.json("regions", *names, "--boxes", "框.json", "--labels", "猫,狗,car")
    assert [each["image"] for each in result["results"]] == names
    assert result["box_format"] == "xywh"
    first, second = (each["regions"] for each in result["results"])
    assert [(each["id"], each["box"], each.get("box_score")) for each in first] == [
        (6, [20, 20, 130, 70], 0.5),
        (7, [0, 0, 40, 30], None),
    ]
    assert second[0]["category"] == "猫"
    boxes = [[[20, 20, 150, 90], [0, 0, 40, 30]], [[0, 0, 80, 60]]]
    for found, image, its_boxes in zip((first, second), names, boxes, strict=True):
        shares = embedder.classify_regions(image, its_boxes, ["猫", "狗", "car"])
        vectors = embedder.encode_regions(image, its_boxes)
        cosines = embedder.similarity(vectors, embedder.encode_texts(["猫", "狗", "car"], "box"))
        for region, row, cosine in zip(found, shares, cosines, strict=True):
            by_label = {each["label"]: (each["score"], each["cosine"]) for each in region["labels"]}
            expected = dict(zip(["猫", "狗", "car"], zip(row, cosine, strict=True), strict=True))
            for label, pair in expected.items():
                np.testing.assert_allclose(by_label[label], pair, atol=1e-5)
    lines = run("regions", *names, "--boxes", "框.json", "--labels", "猫").stdout.splitlines()
    assert [line for line in lines if not line.startswith(("[", " "))] == names


def test_regions_of_yolo_and_images_that_cannot_be_read(run):
    Path("标签").mkdir()
    for stem in ("photo", "坏"):
        Path("标签", f"{stem}.txt").write_text("0 0.5 0.5 0.25 0.5 0.75\n", encoding="utf-8")
    arguments = ["regions", "坏.png", "photo.png", "--boxes", "标签", "--labels", "猫,dog"]
    assert "坏.png" in run(*arguments, code=1).stderr
    result = run.json(*arguments, "--skip-errors")
    assert result["skipped"][0]["input"] == "坏.png"
    assert result["results"][0]["regions"][0]["box"] == [60, 24, 100, 72]
    assert result["results"][0]["regions"][0]["box_score"] == 0.75
    Path("标签/photo.txt").write_text("0 0.5 0.5 0 0.5\n", encoding="utf-8")
    refused = run("regions", "photo.png", "--boxes", "标签", "--labels", "猫", code=1).stderr
    assert f"{Path('标签/photo.txt')}:1: boxes[0][0]=[80.0, 24.0, 80.0, 72.0] has no area" in refused


def test_boxes_in_fractions_are_an_error_and_cut_ones_a_warning(run):
    Path("框.json").write_text(
        json.dumps(
            {"images": [{"id": 1, "file_name": "dog.png"}], "annotations": [{"image_id": 1, "bbox": [0, 0, 0.5, 0.5]}]}
        )
    )
    refused = run("regions", "照片/dog.png", "--boxes", "框.json", "--labels", "猫", code=1).stderr
    assert "照片/dog.png: boxes[0]=" in refused
    assert "relative" in refused
    cut = run("regions", "photo.png", "--box", "100,0,190,60", "--labels", "猫,dog")
    assert "outside" in cut.stderr
    assert len(cut.stderr.splitlines()) == 1


def test_labels_below_the_smallest_cosine_are_left_out(run):
    arguments = ["regions", "photo.png", "--box", "0,0,80,60", "--labels", "猫,狗,car"]
    whole = run.json(*arguments)["regions"][0]["labels"]
    middle = whole[1]["cosine"]
    assert run.json(*arguments, "--min-cosine", str(middle - 1e-4))["regions"][0]["labels"] == whole[:2]
    assert run.json(*arguments, "--min-cosine", "1")["regions"][0]["labels"] == []
    assert "no label has a cosine of 1 or more" in run(*arguments, "--min-cosine", "1").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give either --boxes or --box"),
        (["照片", "--box", "1,2,3,4"], 1, "照片 is a folder: give image files, e.g. 照片/*.jpg"),
        (["照片/dog.png", "--box", "1,2,3,4"], 1, "--box is one list of boxes, and there are 2 images"),
        (["--boxes", "框.txt", "--box-format", "xyxy"], 2, "框.txt has boxes of its own form: leave it out"),
        (["--box", "1,2,3,4,5"], 1, "has a fifth number that is no score from 0 to 1"),
        (["--boxes", "https://example.org/a.json"], 1, "addresses are not fetched"),
        (["--boxes", "[[1, 2"], 1, "--boxes must be JSON"),
        (["--boxes", "没有.json"], 1, "没有.json"),
        (["--boxes", '{"box": []}'], 1, "there must be a list of boxes"),
        (["--box", "1,2,three,4"], 1, "--box must be four numbers, e.g. 10,20,200,180"),
        (["--box", "50,50,10,10"], 1, "boxes[0][0]=[50.0, 50.0, 10.0, 10.0] is inverted"),
        (["--boxes", "[[0, 0, NaN, 5]]"], 1, "not finite"),
        (["--boxes", "[3]"], 1, "four numbers"),
        (["--box", "1,2,3,4", "--box-format", "yxyx"], 1, "box_format must be 'xyxy' or 'xywh', got 'yxyx'"),
    ],
)
def test_regions_mistakes(run, arguments, code, message):
    Path("框.txt").write_text("0 0.5 0.5 0.1 0.1", encoding="utf-8")
    result = run("regions", "photo.png", *arguments, "--labels", "猫", code=code)
    assert message in " ".join(result.stderr.split())


# heatmap ------------------------------------------------------------------------------------------------------------


def test_heatmap_writes_an_overlay(run, embedder):
    result = run.json("heatmap", "photo.png", "一只黑猫", "--output", "热图.png")
    values = embedder.heatmap("photo.png", "一只黑猫")
    assert result["highest"] == pytest.approx(float(values.max()), abs=1e-5)
    column, row = result["highest_at"]
    assert values[row, column] == pytest.approx(values.max(), abs=1e-5)
    picture = np.asarray(Image.open("热图.png").convert("RGB"), np.int16)
    assert picture.shape == (96, 160, 3)
    assert picture[row, column, 0] - picture[row, column, 2] > 0  # red where it applies most
    run("heatmap", "photo.png", "cat", "-o", "plain.png", "--opacity", "0", "--max-patches", "400")
    np.testing.assert_array_equal(np.asarray(Image.open("plain.png")), np.asarray(Image.open("photo.png")))


def test_heatmap_mistakes(run):
    assert "unknown file extension" in run("heatmap", "photo.png", "猫", "-o", "x.unknown", code=1).stderr
    assert "坏.png" in run("heatmap", "坏.png", "猫", "-o", "x.png", code=1).stderr
    assert "the text ' ' is empty" in run("heatmap", "photo.png", " ", "-o", "x.png", code=1).stderr
    assert "is the image itself" in run("heatmap", "photo.png", "猫", "-o", "./photo.png", code=1).stderr
    assert "--opacity" in run("heatmap", "photo.png", "猫", "-o", "x.png", "--opacity", "2", code=2).stderr


# adapters -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(saved_folder, tmp_path_factory) -> Path:
    """A folder with an adapter whose answers are not those of its base model."""
    model = add_lora(FGClip2ForTraining.from_pretrained(saved_folder, dtype=torch.float32), lora_config(rank=2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return save_lora(model, tmp_path_factory.mktemp("adapters") / "适配器")


def test_every_command_takes_an_adapter(run, embedder, adapter):
    adapted = FGClip2Embedder.from_pretrained(adapter, device="cpu")
    images, box = ["照片/dog.png", "照片/黑猫.png"], [[0, 0, 80, 60]]
    vectors = adapted.encode_images(images)
    assert abs(vectors - embedder.encode_images(images)).max() > 0.01

    def result(*arguments):
        found = run.json(*arguments, "--model", adapter, model=False)
        assert found["model"] == str(adapter)
        return found

    result("embed", "照片", "-o", "v.npy")
    np.testing.assert_allclose(np.load("v.npy"), vectors, atol=1e-5)
    score = result("classify", images[0], "--labels", "猫")["results"][0]["labels"][0]["score"]
    assert score == pytest.approx(adapted.classify(images[0], ["猫"])[0], abs=1e-5)
    label = result("regions", images[0], "--box", "0,0,80,60", "--labels", "猫")["regions"][0]["labels"][0]
    phrase = adapted.encode_labels(["猫"], role="region_phrase")
    cosine = adapted.similarity(adapted.encode_regions(images[0], box), phrase).item()
    assert label["cosine"] == pytest.approx(cosine, abs=1e-5)
    highest = result("heatmap", images[0], "猫", "-o", "x.png")["highest"]
    assert highest == pytest.approx(adapted.heatmap(images[0], "猫").max(), abs=1e-5)
    hit = result("search", "照片", "猫")["results"][0]["hits"][0]
    assert hit["score"] == pytest.approx(adapted.similarity(adapted.encode_texts("猫"), vectors).max(), abs=1e-5)


# doctor -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def embedded(saved_folder, monkeypatch, tmp_path) -> Path:
    """Let a checkpoint be the one inside the package; returns where its known answers belong."""
    known = tmp_path / "known_answers.json"
    monkeypatch.setattr("fgclip2.embedding.backends.torch.embedded_checkpoint", lambda: saved_folder)
    monkeypatch.setattr("fgclip2.diagnostics._known_answers_file", lambda: known)
    return known


def test_doctor_passes_on_what_it_gave_when_it_was_made(run, embedded):
    write_known_answers()
    result = run.json("doctor", model=False)
    assert result["ok"]
    assert {"python", "torch", "transformers", "fgclip2"} <= result["versions"].keys()
    assert result["devices"][0]["device"] == "cpu"
    assert "6 vectors" in result["checks"][0]["detail"]
    assert "ok    known answers" in run("doctor", model=False).stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": 0.1}, "largest difference 1.0e-01 (allowed 2e-04)"),
        ({"fingerprint": "0"}, "the weights are not those of"),
        (None, "is missing"),
    ],
)
def test_doctor_fails_on_anything_else(run, embedded, change, message):
    known = json.loads(write_known_answers().read_text())
    if change is None:
        embedded.unlink()
    elif "answers" in change:
        known["answers"][3][0] += change["answers"]
        embedded.write_text(json.dumps(known))
    else:
        embedded.write_text(json.dumps({**known, **change}))
    result = run.json("doctor", code=1, model=False)
    assert not result["ok"]
    assert message in result["checks"][0]["detail"]
    assert "FAIL  known answers" in run("doctor", code=1, model=False).stdout


def test_doctor_reports_a_missing_embedded_checkpoint_and_goes_on(run, monkeypatch, saved_folder):
    def missing():
        raise FileNotFoundError("this installation lacks it")

    monkeypatch.setattr("fgclip2.embedding.backends.torch.embedded_checkpoint", missing)
    result = run.json("doctor", "--checkpoint", saved_folder, code=1, model=False)
    assert [check["ok"] for check in result["checks"]] == [False, True]
    assert "parameters, vectors of 32 values" in result["checks"][1]["detail"]


def test_doctor_compares_regions_of_the_official_checkpoint(run, embedded, saved_folder, embedder, monkeypatch):
    write_known_answers()
    colors = np.random.default_rng(5).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(colors).resize((640, 480), Image.Resampling.BICUBIC).save("coco.png")
    arguments = ["doctor", "--checkpoint", saved_folder, "--coco-image", "coco.png"]
    assert "known 2.017e-05, 1 " in run(*arguments, code=1, model=False).stdout  # a tiny model is not the official one

    inputs = embedder.processor(
        images=["coco.png"],
        boxes=[[[345, 27, 640, 372], [41, 74, 177, 118]]],
        text=["remote control"],
        walk_type="box",
    )
    ids = inputs.pop("input_ids")
    with torch.no_grad():
        regions = torch.nn.functional.normalize(embedder.model.get_image_region_features(**inputs)[0], dim=-1)
        text = torch.nn.functional.normalize(embedder.model.get_text_features(ids, walk_type="box"), dim=-1)
    shares = (100 * regions @ text[0]).softmax(0).tolist()
    monkeypatch.setattr("fgclip2.diagnostics.OFFICIAL_SHARES", shares)
    assert run.json(*arguments, model=False)["checks"][2]["ok"]
    assert "--checkpoint" in run("doctor", "--coco-image", "coco.png", code=2, model=False).stderr


# convert and export ---------------------------------------------------------------------------------------------------


def test_convert_writes_a_folder_that_embeds_the_same(run, official_folder, folder):
    official = shutil.copytree(official_folder, folder / "官方")
    assert run("convert", official, "转换后", model=False).stdout.strip().endswith("转换后")
    assert run.json("convert", official, model=False)["output"].endswith("官方-fgclip2")
    expected = FGClip2Embedder.from_pretrained(official).encode_texts("一只狗")
    for converted in ("转换后", "官方-fgclip2"):
        np.testing.assert_allclose(
            FGClip2Embedder.from_pretrained(converted).encode_texts("一只狗"), expected, atol=1e-6
        )
    assert "没有" in run("convert", "没有", "x", code=1, model=False).stderr


def test_export_writes_the_code_beside_the_weights(run, embedder):
    assert run.json("export", "导出")["output"].endswith("导出")
    assert (Path("导出") / "modeling_fgclip2.py").is_file()
    assert "\nlicense: unknown\n" in (Path("导出") / "README.md").read_text(
        encoding="utf-8"
    )  # the checkpoint has no card
    again = FGClip2Embedder.from_pretrained("导出")
    np.testing.assert_allclose(again.encode_images("photo.png"), embedder.encode_images("photo.png"), atol=1e-6)
    assert run("export", "导出", code=1).stderr  # not empty


def test_export_takes_the_calibration_along_that_is_of_its_weights(run, saved_folder, embedder):
    checkpoint = Path(shutil.copytree(saved_folder, "已校准"))
    level_calibration(embedder.fingerprint, "模型", embedder.budget_of()).save(checkpoint / "calibration.json")
    run("export", "导出", "--model", checkpoint, model=False)
    assert FGClip2Embedder.from_pretrained("导出").calibration is not None
    level_calibration("0" * 64, "别的", 16).save(checkpoint / "calibration.json")
    said = run("export", "无", "--model", checkpoint, model=False).stderr
    assert "calibration.json is not taken along: the calibration is of the model '别的'" in said
    assert not (Path("无") / "calibration.json").exists()


def test_export_names_its_formats(run):
    help_text = " ".join(run("export", "--help", model=False).stdout.split())
    for name in FORMATS:
        assert f" {name} (" in help_text
    refused = " ".join(run("export", "导出", "--format", "onxx", code=2).stderr.split())
    assert "must be 'transformers'" in refused
    assert "got 'onxx'" in refused
    assert not Path("导出").exists()


def test_export_for_the_hub_has_the_results_on_its_card(run, monkeypatch):
    verified = []
    monkeypatch.setattr(import_module("fgclip2.hub.publish"), "verify_folder", verified.append)
    results = Path(__file__).parents[2] / "docs" / "bundled_benchmark"
    arguments = ("export", "导出", "--format", "hub", "--results", results, "--dataset", "acme/pairs")
    run(*arguments, "--base-model", "acme/base", model=False)
    card = ModelCard.load("导出/README.md")
    assert [str(folder) for folder in verified] == ["导出"]
    assert (card.data.license, card.data.base_model, card.data.datasets) == ("apache-2.0", "acme/base", ["acme/pairs"])
    names = {result.dataset_type for result in card.data.eval_results}
    assert {"bundled-scenes-short-zh", "bundled-scenes-short-en"} <= names
    assert all(0 <= result.metric_value <= 1 for result in card.data.eval_results)
    # They are of the embedded checkpoint, and of no other.
    refused = run("export", "另一个", "--format", "hub", "--results", results, code=1).stderr
    assert "none of the whole of a benchmark by" in refused
    assert re.search(r"they are by embedded \(\w{8}\), pixel nearest neighbour, untrained \(\w{8}\)$", refused)
    assert not Path("另一个").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--push", "acme/tiny"], "Invalid value for --push: works with --format hub, got --format transformers"),
        (["--format", "hub", "--public"], "Invalid value for --public: works with --push"),
        (["--format", "hub", "--private"], "Invalid value for --private: works with --push"),
        (
            ["--precision", "int8"],
            "--precision: works with --format onnx or --format transformers.js or --format immich, got",
        ),
        (
            ["--square-side", "96"],
            "--square-side: works with --format onnx or --format transformers.js or --format immich, got",
        ),
        (["--compared-items", "0"], "Invalid value for --compared-items: works with --format onnx, got"),
        (
            ["--format", "onnx", "--license", "mit"],
            "--license: works with --format transformers or --format hub, got --format onnx",
        ),
        (["--format", "onnx", "--onnx", "fp32"], "--onnx: works with --format transformers or --format hub, got"),
        # The first in the order of the help, whatever that on the command line.
        (
            ["--format", "onnx", "--public", "--dataset", "a", "--push", "a/b"],
            "Invalid value for --dataset: works with",
        ),
    ],
)
def test_export_says_what_does_not_go_together(options, message, run):
    assert message in " ".join(run("export", "导出", *options, code=2).stderr.split())
    assert not Path("导出").exists()


def test_every_option_of_a_format_is_an_argument_of_its_function():
    for chosen in FORMATS.values():
        _, _, _, *arguments = inspect.signature(chosen.write).parameters
        assert [*chosen.options, *(["calibration"] if chosen.takes_calibration else [])] == arguments


def test_what_a_push_lacks_is_said_before_the_model_is_loaded(run, monkeypatch):
    monkeypatch.setattr("fgclip2.embedding.loading.load_checkpoint", None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    arguments = ("export", "导出", "--format", "hub", "--push")
    assert "must be 'namespace/name', got 'tiny'" in run(*arguments, "tiny", code=1).stderr
    assert "HF_TOKEN" in run(*arguments, "acme/tiny", code=1).stderr
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    assert "licence of the weights is unknown" in run(*arguments, "acme/tiny", code=1).stderr
    assert not Path("导出").exists()
