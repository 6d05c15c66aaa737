"""`fgclip2 duplicates`, and `--html` of the commands that list images."""

import shutil
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def copies(folder) -> Path:
    """A copy of `黑猫.png` beside it, larger by what PNG does not need."""
    with Image.open("照片/黑猫.png") as image:
        image.save("照片/黑猫 (1).png", compress_level=0)
    return folder


def test_near_duplicates_are_listed_and_left_alone(run, copies):
    before = {path: path.read_bytes() for path in Path("照片").glob("*.png")}
    found = run.json("duplicates", "照片", "--threshold", "0.9999")
    (group,) = found["groups"]
    assert [image["path"] for image in group["images"]] == ["照片/黑猫 (1).png", "照片/黑猫.png"]
    assert [image["bytes"] for image in group["images"]] == [len(before[Path(i["path"])]) for i in group["images"]]
    assert group["images"][1]["score"] == pytest.approx(1, abs=1e-5)
    assert (found["threshold"], found["index"]["images"]) == (0.9999, 3)
    result = run("duplicates", "照片", "--no-update", "--threshold", "0.9999")
    lines = result.stdout.splitlines()
    assert (lines[0], len(lines), lines[2].split()[-1]) == ("1.", 3, "照片/黑猫.png")
    assert "1 near-duplicates in 1 groups at a cosine of 0.9999" in result.stderr
    assert before == {path: path.read_bytes() for path in Path("照片").glob("*.png")}


def test_pages_show_groups_and_hits(run, copies):
    run("duplicates", "照片", "--threshold", "0.9999", "--html", "重复.html")
    page = Path("重复.html").read_text(encoding="utf-8")
    assert (page.count("<img "), page.count("黑猫 (1).png")) == (2, 2)
    shutil.copy("坏.png", "照片/dog.png")  # after it was indexed
    result = run("search", "照片", "一只狗", "a cat", "--no-update", "--html", "结果.html")
    page = Path("结果.html").read_text(encoding="utf-8")
    assert (page.count("<h2>"), page.count("<img "), page.count('class="missing"')) == (2, 4, 2)
    assert "page: 结果.html" in result.stderr


def test_duplicates_in_an_archive_have_pictures_too(run, copies):
    shutil.make_archive("照片", "zip", "照片")
    (group,) = run.json("duplicates", "照片.zip", "--threshold", "0.9999", "--html", "重复.html")["groups"]
    assert [image["id"] for image in group["images"]] == ["黑猫 (1).png", "黑猫.png"]
    assert group["images"][0]["path"] == "照片.zip/黑猫 (1).png"
    page = Path("重复.html").read_text(encoding="utf-8")
    assert (page.count("<img "), page.count('class="missing"')) == (2, 0)


def test_a_page_that_cannot_be_written_is_told_of_before_the_work(run, copies):
    assert "must end with .html" in run("duplicates", "照片", "--html", "重复.txt", code=2).stderr
    assert "there is no folder" in run("search", "照片", "狗", "--html", "没有/结果.html", code=1).stderr
    assert not Path("照片/.fgclip2_index").exists()
