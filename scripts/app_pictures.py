"""Take the screenshots of the web app that docs/app.md and the README show; `make app-pictures` runs this.

    python -m scripts.app_pictures docs/images

What drives the browser is shared with tests/app.
"""

import io
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from fgclip2 import Embedder
from fgclip2.app.server import make_app, make_library, private_scratch

WIDE, PHONE = (1280, 900), (390, 844)
TABS = ("search", "labels", "boxes", "maps", "contrast", "pair")
# The button of each tab, and where its answer appears.
RUN = {tab: (f"#{tab}-run", f"#{tab}-answer") for tab in TABS}
PICTURED = ("boxes", "maps", "contrast")  # besides the search
QUERIES = {"en": "fruit", "zh": "水果"}  # of the picture of the search
QUALITY = 80
PATIENCE = 300_000  # milliseconds, on a busy machine


@contextmanager
def running_app(embedder: Embedder, folder: Path | None = None, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve the app from a thread, to this machine only, but as if it listened on `host`; yields its address."""
    import socket

    import uvicorn

    with private_scratch() as scratch, socket.create_server(("127.0.0.1", 0)) as listener:
        library = make_library(folder, None, embedder, None, scratch)
        app = make_app(embedder, None, library, scratch, host)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a headless Chromium, which has to be installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    assert executable, "needs Chromium; on Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Browser, address: str, locale: str, size: tuple[int, int]) -> Iterator[tuple[Page, list[str]]]:
    """Open the app as a visitor does; yields the page, and what goes wrong on it while it is open.

    Wrong are requests to anywhere else, which are not let through, and errors of scripts or in the console.
    """
    problems: list[str] = []
    context = browser.new_context(locale=locale, viewport={"width": size[0], "height": size[1]})
    context.set_default_timeout(PATIENCE)

    def let_through(route: Any) -> None:
        place = urlsplit(route.request.url)
        if place.scheme in ("data", "blob") or place.hostname == "127.0.0.1":
            route.continue_()
        else:
            problems.append(f"asks for {route.request.url}")
            route.abort()

    context.route("**/*", let_through)
    page = context.new_page()
    page.on("console", lambda message: message.type == "error" and problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    page.goto(address)
    page.wait_for_selector("#search-answer .card")
    yield page, problems
    context.close()


def open_tab(page: Page, tab: str, name: str) -> None:
    """Show a tab; on a narrow page its name may be in the menu of those that have no room."""
    button = page.get_by_role("tab", name=name, exact=True).first
    if not button.is_visible():
        page.locator(".overflow-menu > button").first.click()
        button = page.locator(".overflow-dropdown").get_by_role("button", name=name, exact=True)
    button.click()
    page.wait_for_selector(RUN[tab][0])


def run_tab(page: Page, tab: str) -> str:
    """Press the button of the tab that is shown, which has no answer yet; returns the text of its answer."""
    button, answer = RUN[tab]
    page.click(button)
    page.wait_for_function(
        "selector => document.querySelector(selector)?.querySelector('.card, table')", arg=answer, timeout=PATIENCE
    )
    return page.inner_text(answer)


def save_picture(page: Page, file: Path) -> None:
    """Write a screenshot of the whole page as a small WebP."""
    page.wait_for_timeout(500)  # for what moves
    with Image.open(io.BytesIO(page.screenshot(animations="disabled", full_page=True))) as image:
        image.convert("RGB").save(file, quality=QUALITY, method=6)


def ask(page: Page, query: str) -> None:
    """Search by a text, and wait for its hits."""
    before = page.inner_text(RUN["search"][1])
    page.fill("#query textarea, #query input", query)
    page.click(RUN["search"][0])
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector).innerText !== before "
        "&& document.querySelector(selector).querySelector('.card')",
        arg=[RUN["search"][1], before],
        timeout=PATIENCE,
    )


def main(folder: Path) -> None:
    from fgclip2.app.texts import TEXTS

    embedder = Embedder.from_pretrained(device="cpu")
    with running_app(embedder) as address, chromium() as browser:
        for language, locale in (("en", "en-GB"), ("zh", "zh-CN")):
            with visit(browser, address, locale, WIDE) as (page, problems):
                ask(page, QUERIES[language])
                save_picture(page, folder / f"app_search_{language}.webp")
                for tab in PICTURED:
                    open_tab(page, tab, TEXTS[language][f"tab_{tab}"])
                    run_tab(page, tab)
                    save_picture(page, folder / f"app_{tab}_{language}.webp")
                assert not problems, problems


if __name__ == "__main__":
    main(Path(sys.argv[1]))
