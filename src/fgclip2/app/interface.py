"""The page in one language: fields, buttons and what they call. What is answered is in `answers.py`."""

from __future__ import annotations

import functools
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .._imports import require
from ..embedding import Embedder
from ..errors import IncompatibleIndexError
from ..files import printable
from ..languages import LANGUAGES, Language
from . import answers
from .answers import Budget, HeatMaps, InputError
from .examples import EXAMPLES, Examples, artists, example_path
from .library import Library
from .rendering import (
    picture_card,
    render_boxes,
    render_cards,
    render_error,
    render_hits,
    render_note,
    render_scale,
    render_scores,
)
from .texts import TEXTS

gr: Any = require("gradio", "app")
annotation: Any = require("gradio_image_annotation", "app")

# Of all events: no entry in a public API, and one run of the model at a time for each page.
EVENT = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}
MOST_HITS = 50
PICTURE_HEIGHT = 320  # pixels on the page
KEPT_RESULTS = 8  # folders of files; Gradio copies those of an event before the page's next one begins


@dataclass(frozen=True)
class Session:
    """What all visitors of an app share.

    Attributes:
        embedder: Answers.
        budget: Patches of a picture, see [`answers.budget_of`].
        library: What is searched.
        scratch: A folder that goes with the app.
        may_build: Whether visitors may build the index.
        work: Held by the one event that is being answered; each page has a queue of its own.
    """

    embedder: Embedder
    budget: Budget
    library: Library
    scratch: Path
    may_build: bool = True
    work: threading.Lock = field(default_factory=threading.Lock)

    @property
    def has_maps(self) -> bool:
        """Whether the family has dense features."""
        return "dense features" not in self.embedder.lacks


@dataclass(frozen=True)
class Page:
    """A page in one language; `blocks` is what Gradio knows of it."""

    language: Language
    session: Session
    blocks: Any

    @property
    def words(self) -> Mapping[str, str]:
        return TEXTS[self.language]

    @property
    def examples(self) -> Examples:
        return EXAMPLES[self.language]

    def saying(self, answer: Callable[..., Any], others: int = 0) -> Callable[..., Any]:
        """Return a function that says in place of its answer, in the language of the page, what a visitor can change.

        Args:
            answer: Returns HTML, or HTML and then other values.
            others: How many other values; they are `None` where there is no answer.
        """

        @functools.wraps(answer)
        def run(*fields: Any, **more: Any) -> Any:
            try:
                with self.session.work:
                    return answer(*fields, **more)
            except InputError as error:
                text = self.words[error.key].format(**error.values)
            except IncompatibleIndexError as error:
                text = self.words["unusable_index"].format(reason=error)
            except (ValueError, OSError) as error:
                text = self.words["unusable"].format(reason=error)
            said = render_error(text)
            return (said, *[None] * others) if others else said

        return run


def build_page(language: Language, session: Session) -> Any:
    """Return the page as `gradio.Blocks`."""
    words, embedder = TEXTS[language], session.embedder
    has_regions = "regions" not in embedder.lacks
    with gr.Blocks(title=words["title"], analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        page = Page(language, session, blocks)
        gr.HTML(_header(page))
        with gr.Tabs():
            for name, fill, works in (
                ("search", _search_tab, True),
                ("labels", _labels_tab, True),
                ("boxes", _boxes_tab, has_regions),
                ("maps", _maps_tab, session.has_maps),
                ("contrast", _contrast_tab, session.has_maps),
                ("pair", _pair_tab, True),
            ):
                with gr.Tab(words[f"tab_{name}"], id=name):
                    gr.Markdown(words[f"help_{name}"])
                    if works:
                        fill(page)
                    else:
                        gr.HTML(render_note(words["lacks"].format(family=embedder.title)))
        gr.HTML(render_note(f"fgclip2 {version('fgclip2')}. {words['credits'].format(names=', '.join(artists()))}"))
    return blocks


def _header(page: Page) -> str:
    """Return the heading, what answers, and the link to the other language."""
    words, session = page.words, page.session
    other = next(language for language in LANGUAGES if language != page.language)
    budget = session.embedder.budget_of(session.budget)
    patches = words["no_patches"] if budget is None else words["patches"].format(budget=budget)
    about = words["about"].format(family=session.embedder.title, name=session.embedder.name, patches=patches)
    notes = [about, *([words["about_embedded"]] if session.embedder.name == "embedded" else [])]
    link = f'<a class="language" href="../{other}/" lang="{other}">{escape(words["other_language"])}</a>'
    return f"<header><h1>{escape(words['heading'])}</h1>{link}</header>" + "".join(map(render_note, notes))


# ---------------------------------------------------------------------------------------------------------------------
# Tabs
# ---------------------------------------------------------------------------------------------------------------------


def _search_tab(page: Page) -> None:
    words, session = page.words, page.session
    lacks = session.embedder.lacks
    orders = [
        (words["order_none"], ""),
        *([(words["order_phrases"], "phrases")] if "dense features" not in lacks else []),
        *([(words["order_model"], "model")] if "pair scores" not in lacks else []),
    ]

    @page.saying
    def run(text: str, picture: str | None, count: float, order: str) -> str:
        index = session.library.require_index()
        hits = answers.search(session.embedder, index, text, picture, int(count), order or None)
        return render_hits(index, hits, words)

    @page.saying
    def build(progress: Any = gr.Progress()) -> str:  # noqa: B008  # as Gradio wants it
        def tell(done: int, total: int | None) -> None:
            progress((done, total), desc=words["building"], unit="")

        index = session.library.build(session.embedder, session.budget, tell)
        return _status(page) + render_note(words["index_built"].format(**vars(index.report)))

    def first_view(text: str, picture: str | None, count: float, order: str) -> tuple[str, str]:
        has_index = session.library.index is not None
        return _status(page), run(text, picture, count, order) if has_index else ""

    with gr.Row():
        with gr.Column():
            query = gr.Textbox(page.examples.queries[0], label=words["query"], elem_id="query")
            picture = _picture(page, "query_picture", "query-picture", None, height=160)
            with gr.Row():
                order = gr.Radio(orders, value=orders[min(1, len(orders) - 1)][1], label=words["order"])
                count = gr.Slider(1, MOST_HITS, value=8, step=1, label=words["count"])
            button = gr.Button(words["search"], variant="primary", elem_id="search-run")
            gr.Examples([[text] for text in page.examples.queries], [query], label=words["examples"])
            status = gr.HTML(elem_id="index-status")
            if session.may_build:
                build_button = gr.Button(words["build"], size="sm", elem_id="index-build")
                build_button.click(build, None, status, **EVENT)
        with gr.Column(scale=2):
            hits = gr.HTML(elem_id="search-answer")
    inputs = [query, picture, count, order]
    gr.on([button.click, query.submit], run, inputs, hits, **EVENT)
    page.blocks.load(first_view, inputs, [status, hits], show_progress="minimal", **EVENT)


def _status(page: Page) -> str:
    library = page.session.library
    if library.index is not None:
        key, count = "index_ready", len(library.index)
    else:
        key, count = "index_missing" if page.session.may_build else "index_absent", 0
    return render_note(page.words[key].format(folder=printable(library.folder.resolve().name), count=count))


def _labels_tab(page: Page) -> None:
    words, session = page.words, page.session

    @page.saying
    def run(path: str | None, labels: str) -> str:
        picture, names = answers.read_picture(path), answers.read_phrases(labels)
        scores = answers.label_picture(session.embedder, picture, names, session.budget)
        return render_scores(scores, words, "score" if _is_sigmoid(session) else "share")

    (first, names), *_ = page.examples.labels
    with gr.Row():
        with gr.Column():
            picture = _picture(page, "picture", "labels-picture", first)
            labels = gr.Textbox(names, label=words["labels"], lines=2, elem_id="labels")
            button = gr.Button(words["run"], variant="primary", elem_id="labels-run")
        with gr.Column():
            scores = gr.HTML(elem_id="labels-answer")
    _examples(page, page.examples.labels, [picture, labels])
    gr.on([button.click, labels.submit], run, [picture, labels], scores, **EVENT)


def _is_sigmoid(session: Session) -> bool:
    return session.embedder.model.score_function == "sigmoid"


def _boxes_tab(page: Page) -> None:
    words, session = page.words, page.session

    @page.saying
    def run(drawn: dict[str, Any] | None, phrases: str) -> str:
        picture = answers.read_picture(drawn["image"] if drawn else None)
        boxes, names = drawn["boxes"] if drawn else [], answers.read_phrases(phrases)
        found = answers.label_boxes(session.embedder, picture, boxes, names, session.budget)
        return render_boxes(picture, boxes, found, words)

    with gr.Row():
        with gr.Column():
            annotator = annotation.image_annotator(
                _annotated(page.examples.boxes[:2]),
                label=words["boxes_picture"],
                image_type="pil",
                sources=["upload", "clipboard"],
                disable_edit_boxes=True,  # it would ask for a label, which is what the model is for
                show_download_button=False,
                box_min_size=4,
                elem_id="annotator",
            )
            annotator.preprocess = _path_and_boxes  # its own decodes what may be a bomb, and fails in English
            phrases = gr.Textbox(page.examples.boxes[2], label=words["phrases"], lines=2, elem_id="box-phrases")
            button = gr.Button(words["label_boxes"], variant="primary", elem_id="boxes-run")
        with gr.Column():
            labelled = gr.HTML(elem_id="boxes-answer")
    gr.on([button.click, phrases.submit], run, [annotator, phrases], labelled, **EVENT)


def _annotated(example: tuple[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Return a bundled picture and its boxes, in pixels, as the annotator takes them."""
    picture, shares = answers.drawn(answers.read_picture(example_path(example[0]))), example[1]
    width, height = picture.size
    names = ("xmin", "ymin", "xmax", "ymax")
    sides = (width, height, width, height)
    boxes = [dict(zip(names, (round(a * b) for a, b in zip(box, sides, strict=True)), strict=True)) for box in shares]
    return {"image": picture, "boxes": boxes}


def _path_and_boxes(payload: Any) -> dict[str, Any] | None:
    """Return the path of what is drawn on, and its boxes (x1, y1, x2, y2) in pixels."""
    if payload is None or payload.image is None:
        return None
    boxes = []
    for box in payload.boxes:
        scale = box.get("scaleFactor", 1) or 1
        boxes.append([box[name] / scale for name in ("xmin", "ymin", "xmax", "ymax")])
    return {"image": payload.image.path, "boxes": boxes}


def _maps_tab(page: Page) -> None:
    words, session = page.words, page.session

    def show(maps: HeatMaps | None, opacity: float) -> tuple[str, list[str] | None]:
        if maps is None:
            return "", None
        pictures = maps.overlays(opacity)
        cards = [picture_card(picture, text) for picture, text in zip(pictures, maps.texts, strict=True)]
        html = render_scale(maps.low, maps.high, words, "scale_maps") + render_cards(cards, large=True)
        return html, write_results(maps, pictures, session)

    def run(path: str | None, phrases: str, opacity: float) -> tuple[Any, ...]:
        picture, names = answers.read_picture(path), answers.read_phrases(phrases, answers.MAX_MAPS)
        maps = answers.map_phrases(session.embedder, picture, names, session.budget)
        return *show(maps, opacity), maps

    (first, names), *_ = page.examples.maps
    state = gr.State()
    with gr.Row():
        with gr.Column():
            picture = _picture(page, "picture", "maps-picture", first)
            phrases = gr.Textbox(names, label=words["phrases"], elem_id="map-phrases")
            button = gr.Button(words["draw_maps"], variant="primary", elem_id="maps-run")
            opacity = _opacity(words, "maps-opacity")
        with gr.Column(scale=2):
            shown = gr.HTML(elem_id="maps-answer")
            files = gr.Files(label=words["download"], interactive=False, elem_id="maps-files")
    outputs = [shown, files, state]
    _examples(page, page.examples.maps, [picture, phrases])
    gr.on([button.click, phrases.submit], page.saying(run, 2), [picture, phrases, opacity], outputs, **EVENT)
    opacity.release(page.saying(show, 1), [state, opacity], outputs[:2], show_progress="hidden", **EVENT)


def write_results(maps: HeatMaps, pictures: Sequence[Any], session: Session) -> list[str]:
    """Write maps and their pictures, of which Gradio gives out copies for an hour, and delete the oldest ones."""
    results = session.scratch / "maps"
    folder = results / str(time.time_ns())
    folder.mkdir(parents=True)
    for old in sorted(results.iterdir())[:-KEPT_RESULTS]:
        shutil.rmtree(old)
    paths = [folder / f"map_{number}.png" for number in range(1, len(pictures) + 1)]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    maps.save(folder / "maps.npz", checkpoint=session.embedder.name, max_num_patches=str(session.budget))
    return [*map(str, paths), str(folder / "maps.npz")]


def _contrast_tab(page: Page) -> None:
    words, session = page.words, page.session

    def show(maps: HeatMaps | None, opacity: float) -> str:
        if maps is None:
            return ""
        first, second = maps.overlays(opacity)
        difference, half = answers.draw_difference(maps, opacity)
        cards = [
            picture_card(first, maps.texts[0]),
            picture_card(second, maps.texts[1]),
            picture_card(difference, words["difference"]),
        ]
        scale = render_scale(maps.low, maps.high, words, "scale_maps")
        return scale + render_cards(cards, large=True) + render_scale(-half, half, words, "scale_difference")

    def run(path: str | None, first: str, second: str, opacity: float) -> tuple[str, str, HeatMaps]:
        picture = answers.read_picture(path)
        texts = [answers.read_text(first), answers.read_text(second)]
        scores = answers.label_picture(session.embedder, picture, texts, session.budget)
        maps = answers.map_phrases(session.embedder, picture, texts, session.budget)
        table = render_scores(scores, words, "score" if _is_sigmoid(session) else "share")
        return table, show(maps, opacity), maps

    (example, right, wrong), *_ = page.examples.contrasts
    state = gr.State()
    with gr.Row():
        with gr.Column():
            picture = _picture(page, "picture", "contrast-picture", example)
            first = gr.Textbox(right, label=words["first_caption"], elem_id="contrast-first")
            second = gr.Textbox(wrong, label=words["second_caption"], elem_id="contrast-second")
            button = gr.Button(words["compare"], variant="primary", elem_id="contrast-run")
            opacity = _opacity(words, "contrast-opacity")
        with gr.Column(scale=2):
            table = gr.HTML(elem_id="contrast-scores")
            shown = gr.HTML(elem_id="contrast-answer")
    _examples(page, page.examples.contrasts, [picture, first, second])
    events = [button.click, first.submit, second.submit]
    gr.on(events, page.saying(run, 2), [picture, first, second, opacity], [table, shown, state], **EVENT)
    opacity.release(page.saying(show), [state, opacity], shown, show_progress="hidden", **EVENT)


def _pair_tab(page: Page) -> None:
    words, session = page.words, page.session

    @page.saying
    def run(left: str | None, right: str | None, text: str) -> str:
        pictures = [answers.read_picture(left), answers.read_picture(right)]
        text = answers.read_text(text)
        scores, maps = answers.compare_pictures(session.embedder, pictures, text, session.budget)
        names = [words["first_picture"], words["second_picture"]]
        named = [score._replace(text=name) for score, name in zip(scores, names, strict=True)]
        best = max(range(2), key=lambda number: scores[number].cosine)
        shown = maps.overlays(0.55) if maps else list(map(answers.drawn, pictures))
        lines = [[name, *([f"✓ {words['better']}"] if number == best else [])] for number, name in enumerate(names)]
        cards = [picture_card(picture, *its) for picture, its in zip(shown, lines, strict=True)]
        scale = render_scale(maps.low, maps.high, words, "scale_maps") if maps else ""
        return render_scores(named, words, of="picture") + scale + render_cards(cards, large=True)

    (one, other, about), *_ = page.examples.pairs
    with gr.Row():
        with gr.Column():
            with gr.Row():
                left = _picture(page, "first_picture", "pair-first", one, height=200)
                right = _picture(page, "second_picture", "pair-second", other, height=200)
            text = gr.Textbox(about, label=words["caption"], elem_id="pair-text")
            button = gr.Button(words["compare"], variant="primary", elem_id="pair-run")
        with gr.Column():
            answer = gr.HTML(elem_id="pair-answer")
    _examples(page, page.examples.pairs, [left, right, text], pictures=2)
    gr.on([button.click, text.submit], run, [left, right, text], answer, **EVENT)


# ---------------------------------------------------------------------------------------------------------------------
# Parts of tabs
# ---------------------------------------------------------------------------------------------------------------------


def _picture(page: Page, key: str, name: str, example: str | None, height: int = PICTURE_HEIGHT) -> Any:
    """Return a field for a picture, whose value is the path of what was uploaded."""
    value = None if example is None else example_path(example)
    field = gr.Image(
        value,
        type="filepath",
        sources=["upload", "clipboard"],
        label=page.words[key],
        height=height,
        buttons=[],
        elem_id=name,
        elem_classes="picture-field",
    )
    field.preprocess = _path_of  # its own opens the file, and fails in English
    return field


def _path_of(payload: Any) -> str | None:
    return None if payload is None else payload.path


def _opacity(words: Mapping[str, str], name: str) -> Any:
    return gr.Slider(0, 1, value=0.55, step=0.05, label=words["opacity"], elem_id=name)


def _examples(page: Page, rows: Sequence[Sequence[str]], fields: Sequence[Any], pictures: int = 1) -> None:
    """Add examples, whose first columns are pictures, that fill fields when they are chosen."""
    values = [[*map(example_path, row[:pictures]), *row[pictures:]] for row in rows]
    gr.Examples(values, list(fields), label=page.words["examples"])
