"""The app in headless Chromium: every tab in both languages, nothing asked of another machine, room on a phone."""

import contextlib
import io
import json
import re
import runpy
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from fgclip2.app.answers import HeatMaps
from fgclip2.app.examples import EXAMPLES, GARDEN, example_path
from fgclip2.app.interface import KEPT_RESULTS, Page, Session, write_results
from fgclip2.app.server import TAGS
from fgclip2.app.texts import TEXTS
from scripts.app_pictures import PATIENCE, PHONE, TABS, WIDE, chromium, open_tab, run_tab, running_app, visit
from tests import golden_of_r2d2
from tests.docs.documents import ROOT

LOCALES = {"en": "en-GB", "zh": "zh-CN"}


@pytest.fixture(scope="module")
def address(embedder) -> Iterator[str]:
    with running_app(embedder) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium() as browser:
        yield browser


@pytest.fixture(params=LOCALES)
def language(request) -> str:
    return request.param


def test_every_tab_answers_its_examples(browser, address, language):
    words, examples = TEXTS[language], EXAMPLES[language]
    with visit(browser, address, LOCALES[language], WIDE) as (page, problems):
        assert page.url == f"{address}/{language}/"
        assert page.evaluate("document.documentElement.lang") == TAGS[language]
        best = page.locator("#search-answer .card").first  # the first view answers at once
        assert "scenes/images/00000.webp" in best.inner_text()
        assert best.locator(".window").count() == 2  # one for each phrase
        assert "289" in page.inner_text("#index-status")
        shown = {}
        for tab in TABS[1:]:
            open_tab(page, tab, words[f"tab_{tab}"])
            shown[tab] = run_tab(page, tab)
        assert shown["labels"].count("%") >= 4
        assert words["probability"] in shown["labels"]
        first = examples.boxes[2].replace("，", ", ").split(", ")
        assert [f"{number} {name}" in shown["boxes"] for number, name in ((1, first[0]), (3, first[1]))] == [True, True]
        assert page.locator("#contrast-answer img").count() == 3
        assert words["better"] in shown["pair"]
        # The map again, more opaque, and its files.
        open_tab(page, "maps", words["tab_maps"])
        before = page.get_attribute("#maps-answer img >> nth=0", "src")
        slider = page.locator("#maps-opacity input[type=range]").bounding_box()
        page.mouse.move(slider["x"] + slider["width"] * 0.55, slider["y"] + slider["height"] / 2)
        page.mouse.down()
        page.mouse.move(slider["x"] + slider["width"] - 3, slider["y"] + slider["height"] / 2)
        page.mouse.up()
        page.wait_for_function(
            "before => document.querySelector('#maps-answer img').src !== before", arg=before, timeout=60_000
        )
        links = page.locator("#maps-files a").evaluate_all("links => links.map(link => link.href)")
        files = {link.rsplit("/", 1)[-1]: page.request.get(link).body() for link in links if "/file=" in link}
        with Image.open(io.BytesIO(files["map_1.png"])) as image:
            assert image.format == "PNG"
        stored = np.load(io.BytesIO(files["maps.npz"]), allow_pickle=False)
        assert str(stored["text_0"]) in examples.maps[0][1]
        assert problems == []


def test_a_box_is_drawn_by_mouse_and_labelled(browser, address):
    with visit(browser, f"{address}/zh/", "en-GB", WIDE) as (page, problems):
        assert page.get_by_text(TEXTS["zh"]["heading"]).is_visible()  # whatever the browser speaks
        open_tab(page, "boxes", TEXTS["zh"]["tab_boxes"])
        page.wait_for_function("document.querySelector('#annotator canvas')?.height > 100")
        page.click("#annotator [aria-label='Create box']")
        canvas = page.locator("#annotator canvas").bounding_box()
        corners = ((0.6, 0.2), (0.7, 0.4), (0.85, 0.52))  # around the horse
        at = [(canvas["x"] + x * canvas["width"], canvas["y"] + y * canvas["height"]) for x, y in corners]
        page.mouse.move(*at[0])
        page.mouse.down()
        page.mouse.move(*at[1])
        page.mouse.move(*at[2])
        page.mouse.up()
        page.fill("#box-phrases textarea", "马，出租车，章鱼，海豚")
        shown = run_tab(page, "boxes")
        assert [f"{number} {name}" in shown for number, name in enumerate(("马", "出租车", "章鱼", "海豚"), 1)] == [
            True
        ] * 4
        assert page.locator("#boxes-answer .window").count() == 4
        assert problems == []


def test_what_is_wrong_is_said_in_the_language_of_the_page(browser, address, language, tmp_path):
    words = TEXTS[language]
    (tmp_path / "a.png").write_text("no picture", encoding="utf-8")
    with visit(browser, address, LOCALES[language], WIDE) as (page, _):
        open_tab(page, "labels", words["tab_labels"])
        page.fill("#labels textarea", " ， ")
        page.click("#labels-run")
        page.get_by_text(words["no_phrases"]).wait_for()
        page.fill("#labels textarea", "猫")
        page.locator("#labels-picture button[aria-label]").first.click()
        page.set_input_files("#labels-picture input[type=file]", tmp_path / "a.png")
        page.wait_for_timeout(1000)
        page.click("#labels-run")
        page.get_by_text(words["unreadable_picture"].format(pixels=33_554_432)).wait_for()


def test_a_phone_has_room_for_everything(browser, address, language):
    words = TEXTS[language]
    with visit(browser, address, LOCALES[language], PHONE) as (page, problems):
        for tab in TABS:
            open_tab(page, tab, words[f"tab_{tab}"])
            run_tab(page, tab)
            assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0], tab
            button = page.locator(f"#{tab}-run").bounding_box()
            assert button["x"] >= 0
            assert button["x"] + button["width"] <= PHONE[0]
        assert problems == []


def test_the_switch_leads_to_the_other_language(browser, address):
    with visit(browser, address, "fr-FR", WIDE) as (page, problems):
        page.click("a.language")
        page.wait_for_url("**/zh/")
        page.get_by_text(TEXTS["zh"]["heading"]).wait_for()
        page.wait_for_selector("#search-answer .card")  # Gradio complains of answers that one does not wait for
        page.click("a.language")
        page.wait_for_url("**/en/")
        assert problems == []


def test_an_index_is_built_on_the_page(embedder, browser, tmp_path):
    folder = tmp_path / "照片"
    folder.mkdir()
    with Image.open(example_path(GARDEN)) as image:
        image.save(folder / "garden.png")
    words = TEXTS["zh"]
    with running_app(embedder, folder) as address, browser.new_context(locale="zh-CN") as context:
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(address)
        page.get_by_text(words["index_missing"].format(folder="照片")).wait_for()
        page.click("#search-run")
        page.get_by_text(words["no_index"]).wait_for()
        page.click("#index-build")
        page.get_by_text(words["index_ready"].format(folder="照片", count=1)).wait_for()
        assert "garden.png" in run_tab(page, "search")
    assert (folder / ".fgclip2_index" / "manifest.json").is_file()


def test_only_who_runs_the_app_builds_an_index_that_others_search(embedder, browser, tmp_path):
    with (
        running_app(embedder, tmp_path, host="0.0.0.0") as address,
        browser.new_context(locale="zh-CN") as context,
    ):
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(address)
        page.get_by_text(TEXTS["zh"]["index_absent"].format(folder=tmp_path.name)).wait_for()
        assert page.locator("#index-build").count() == 0


def test_the_program_of_a_space_answers(monkeypatch):
    served = []
    monkeypatch.setattr("fgclip2.app.server.listen", lambda host, port: (contextlib.nullcontext(), f"{host}:{port}"))
    monkeypatch.setattr("fgclip2.app.server.run_app", lambda app, listener: served.append(app))
    monkeypatch.delenv("MODEL", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "examples" / "space" / "app.py"), run_name="__main__")
    assert ended.value.code == 0
    answer = TestClient(served[0], base_url="https://someone-fgclip2.hf.space").get(
        "/", headers={"Accept-Language": "zh"}
    )
    assert answer.status_code == 200
    assert answer.url.path == "/zh/"


def test_both_pages_answer_one_visitor_at_a_time(tmp_path):
    session = Session(None, None, None, tmp_path)
    running, counts = [], []

    def answer() -> str:
        running.append(1)
        counts.append(len(running))
        time.sleep(0.05)
        running.pop()
        return ""

    threads = [threading.Thread(target=Page(language, session, None).saying(answer)) for language in [*LOCALES] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1] * 4


def test_only_the_latest_results_are_kept(embedder, tmp_path):
    session = Session(embedder, None, None, tmp_path)
    maps = HeatMaps.of([Image.new("RGB", (40, 30))], ["a"], [np.zeros((3, 4), np.float32)])
    written = [write_results(maps, maps.pictures, session) for _ in range(KEPT_RESULTS + 2)]
    kept = [all(Path(path).is_file() for path in paths) for paths in written]
    assert kept == [False, False, *[True] * KEPT_RESULTS]


def test_a_family_without_regions_says_so(browser):
    with (
        running_app(golden_of_r2d2.embedder(), golden_of_r2d2.GOLDEN_R2D2) as address,
        browser.new_context(locale="zh-CN") as context,
    ):
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(address)
        for tab in ("boxes", "maps", "contrast"):
            page.get_by_role("tab", name=TEXTS["zh"][f"tab_{tab}"], exact=True).click()
            page.get_by_text(TEXTS["zh"]["lacks"].format(family="R2D2")).locator("visible=true").wait_for()


@pytest.mark.parametrize("path", ["/etc/passwd", "{folder}/config.json", "../../../etc/passwd"])
def test_files_of_the_machine_are_not_given_out(address, path):
    path = path.format(folder=golden_of_r2d2.GOLDEN_R2D2)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{address}/en/gradio_api/file={path}")
    assert refused.value.code in (403, 404)


def test_other_names_of_this_machine_are_not_answered(address):
    request = urllib.request.Request(f"{address}/en/", headers={"Host": "example.org"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 400


def test_the_page_names_no_other_machine(address):
    config = json.load(urllib.request.urlopen(f"{address}/en/config"))
    assert config["analytics_enabled"] is False
    page = urllib.request.urlopen(f"{address}/en/").read().decode()
    assert not re.findall(r'<(?:script|link)[^>]+(?:src|href)="https?://[^"]+"', page)
