"""The built site, which only `make site` makes: looked through as files, and used in a headless Chromium."""

import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scripts.site.built import broken
from tests.docs.documents import ROOT

pytestmark = pytest.mark.skipif("FGCLIP2_SITE" not in os.environ, reason="needs the built site: make site")

SITE = ROOT / "site"
WIDTHS = {"desktop": 1280, "phone": 390}
PAGES = ("", "training/", "benchmarks/", "calibration/")


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "needs Chromium; on Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """A function that opens an address of the site. What is asked of another server fails, and the test with it."""
    contexts, problems = [], []

    def open_page(path: str, width: int):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)

        def answer(route):
            if route.request.url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                problems.append(route.request.url)
                route.abort()

        context.route("**/*", answer)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("console", lambda message: message.type in ("error", "warning") and problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def test_nothing_is_loaded_from_elsewhere_and_links_lead_somewhere():
    assert len(list(SITE.rglob("*.html"))) > 100
    assert broken(SITE) == []


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize(("language", "start"), [("en", ""), ("zh", "zh/")])
def test_pages_are_as_wide_as_the_window(open_page, language, start, width):
    for path in PAGES:
        page = open_page(start + path, width)
        assert page.locator("html").get_attribute("lang") == language
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


@pytest.mark.parametrize(("start", "query"), [("", "immich"), ("zh/", "近似重复")])
def test_search_finds_pages(open_page, start, query):
    page = open_page(start, 1280)
    page.locator("[data-md-component=search-query]").fill(query)
    first = page.locator(".md-search-result__item h1").first
    first.wait_for()
    assert query in first.inner_text().replace("\u200b", "")  # stands between the words of Chinese


def test_the_menu_leads_to_the_same_page_in_the_other_language(open_page):
    page = open_page("training/", 1280)
    assert page.locator(".md-select__link[hreflang=zh]").get_attribute("href").endswith("zh/training/")
