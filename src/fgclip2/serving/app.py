"""create_app: the endpoints of the service over an [`Engine`]."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ..calibration import LEAST_PROBABILITY, none_matches
from ..files import printable
from . import schemas
from .engine import Engine
from .errors import ServiceError
from .gate import Gate
from .keys import ApiKeys

REFUSALS = (400, 401, 404, 405, 408, 413, 421, 422, 429, 504)
MOST_LISTED_ERRORS = 5
MOST_CHARACTERS_OF_A_FIELD = 100


def create_app(engine: Engine, keys: ApiKeys | None = None, hosts: Collection[str] = ()) -> Gate:
    """Make the ASGI application of a service.

    Args:
        engine: What it asks; it is closed when the application ends.
        keys: The API keys that clients must show; `None`: none.
        hosts: The names under which it may be called; empty: any.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()

    app = FastAPI(
        title="fgclip2",
        version=version("fgclip2"),
        summary="Embeddings of texts, images and regions, labels and search, in Chinese and English.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        responses={status: {"model": schemas.ErrorResponse} for status in REFUSALS},
    )
    _add_errors(app)
    _add_state(app, engine)
    _add_embeddings(app, engine)
    _add_labels(app, engine)
    if engine.index is not None:
        _add_search(app, engine)
    paths = {getattr(route, "path", "") for route in app.routes}
    return Gate(app, engine.limits, keys or ApiKeys([]), hosts, engine.metrics, paths)


def _add_errors(app: FastAPI) -> None:
    """Give all errors the form of OpenAI's."""

    @app.exception_handler(ServiceError)
    async def refuse(request: Any, error: ServiceError) -> Response:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def refuse_call(request: Any, error: HTTPException) -> Response:
        code = {404: "path_not_found", 405: "method_not_allowed"}.get(error.status_code, "not_usable")
        body = ServiceError(error.status_code, code, str(error.detail)).body
        return JSONResponse(body, error.status_code, error.headers)

    @app.exception_handler(Exception)  # which goes on to the gate, and to the log
    async def fail(request: Any, error: Exception) -> Response:
        return JSONResponse(ServiceError(500, "internal_error", "the request failed; the log says where").body, 500)

    @app.exception_handler(RequestValidationError)
    async def refuse_content(request: Any, error: RequestValidationError) -> Response:
        # Not the values, which may be megabytes of an image.
        found = [(_name_of_field(one["loc"]), one["msg"]) for one in error.errors()[:MOST_LISTED_ERRORS]]
        message = "; ".join(f"{field}: {reason}" if field else reason for field, reason in found)
        is_broken = any(one["type"] == "json_invalid" for one in error.errors())
        status, code = (400, "json_not_valid") if is_broken else (422, "request_not_valid")
        return JSONResponse(ServiceError(status, code, message, found[0][0] or None).body, status)


def _name_of_field(location: Sequence[Any]) -> str:
    """Return the place of an error in a body, which may have names that the client made up."""
    return printable(".".join(map(str, location[1:])))[:MOST_CHARACTERS_OF_A_FIELD]


def _add_state(app: FastAPI, engine: Engine) -> None:
    """Add what those who run the service ask."""

    @app.get("/health")
    async def health() -> schemas.State:
        """Say that the service lives."""
        return schemas.State(status="ok")

    @app.get("/ready", responses={503: {"model": schemas.State}})
    async def ready() -> Response:
        """Say whether a request would be taken now: 503 while the queue is full."""
        is_busy = engine.queue.waiting >= engine.limits.waiting
        state = schemas.State(status="busy" if is_busy else "ok")
        return JSONResponse(state.model_dump(), 503 if is_busy else 200)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Return the metrics as Prometheus reads them."""
        return PlainTextResponse(await engine.help(engine.metrics.text))

    @app.get("/v1/models")
    async def models() -> schemas.Models:
        """List the model."""
        return schemas.Models(data=[schemas.Model(id=engine.name, embedding_size=engine.embedder.embedding_size)])


def _add_embeddings(app: FastAPI, engine: Engine) -> None:
    """Add the vectors of texts, images and regions."""

    @app.post("/v1/embeddings", response_model=schemas.EmbeddingsResponse)
    async def embeddings(request: schemas.EmbeddingsRequest) -> Response:
        """Embed texts and images, L2-normalised, in the form of OpenAI's API."""
        _check_model(engine, request.model)
        size = engine.embedder.embedding_size
        if request.dimensions not in (None, size):
            raise ServiceError(422, "dimensions_not_available", f"the vectors have {size} dimensions", "dimensions")
        inputs = request.input if isinstance(request.input, list) else [request.input]
        sources = {place: source for place, one in enumerate(inputs) if (source := _image_of(one)) is not None}
        texts = {place: _text_of(one) for place, one in enumerate(inputs) if place not in sources}
        images = await engine.read_images(list(sources.values()), "input")
        of_texts, tokens = await engine.embed_texts(list(texts.values()), request.role)
        of_images = await engine.embed_images(images)
        vectors = dict(zip([*texts, *sources], [*of_texts, *of_images], strict=True))

        def answer() -> BaseModel:
            data = [
                schemas.Embedding(index=place, embedding=_encoded(vectors[place], request.encoding_format))
                for place in sorted(vectors)
            ]
            usage = schemas.Usage(prompt_tokens=tokens, total_tokens=tokens)
            return schemas.EmbeddingsResponse(data=data, model=engine.name, usage=usage)

        return await _json(engine, answer)

    @app.post("/v1/regions", response_model=schemas.RegionsResponse)
    async def regions(request: schemas.RegionsRequest) -> Response:
        """Embed boxes of an image, or label them; the labels of a box share 1."""
        _check_model(engine, request.model)
        if "regions" in engine.embedder.lacks:
            raise ServiceError(422, "regions_not_available", "this model has no regions, it embeds whole images")
        _check_min_probability(engine, request, request.labels)
        (image,) = await engine.read_images([request.image], "image")
        vectors = await engine.embed_regions(image, request.boxes, request.box_format)  # (boxes, D)
        found: list[dict[str, Any]]
        if request.labels is None:
            found = [{"embedding": _encoded(vector, request.encoding_format)} for vector in vectors]
        else:
            phrases = await engine.embed_labels(request.labels, request.templates, "region_phrase")
            cosines = engine.embedder.similarity(vectors, phrases)  # (boxes, labels)
            probabilities = await engine.label_probabilities(
                cosines, request.labels, request.templates, "region_phrase"
            )
            rows = zip(engine.embedder.region_shares(cosines), cosines, probabilities, strict=True)
            found = [
                {
                    "labels": _best(request.labels, *its, request.top_k),
                    "none_of_these": _nothing_matches(its[-1], request.min_probability),
                }
                for its in rows
            ]

        def answer() -> BaseModel:
            boxes = enumerate(zip(request.boxes, found, strict=True))
            return schemas.RegionsResponse(
                model=engine.name,
                regions=[schemas.Region(index=place, box=box, **fields) for place, (box, fields) in boxes],
            )

        return await _json(engine, answer)


def _add_labels(app: FastAPI, engine: Engine) -> None:
    """Add the labels of whole images."""

    @app.post("/v1/classify", response_model=schemas.ClassifyResponse)
    async def classify(request: schemas.ClassifyRequest) -> Response:
        """Score images against labels, as `Embedder.classify`."""
        _check_model(engine, request.model)
        _check_min_probability(engine, request, request.labels)
        labels = await engine.embed_labels(request.labels, request.templates, "auto")
        images = await engine.read_images(request.images, "images")
        cosines = engine.embedder.similarity(await engine.embed_images(images), labels)  # (images, labels)
        probabilities = await engine.label_probabilities(cosines, request.labels, request.templates, "auto")
        rows = zip(engine.embedder.probabilities(cosines), cosines, probabilities, strict=True)
        results = [
            schemas.LabelledImage(
                index=place,
                labels=_best(request.labels, *its, request.top_k),
                nothing_matches=_nothing_matches(its[-1], request.min_probability),
            )
            for place, its in enumerate(rows)
        ]
        return await _json(engine, lambda: schemas.ClassifyResponse(model=engine.name, results=results))


def _add_search(app: FastAPI, engine: Engine) -> None:
    """Add the search in an index."""

    @app.post("/v1/search", response_model=schemas.SearchResponse)
    async def search(request: schemas.SearchRequest) -> Response:
        """Find the images of the index that are nearest to a text or an image."""
        _check_model(engine, request.model)
        _check_min_probability(engine, request, request.query)
        _check_search(engine, request)
        if request.query is None or request.image is not None:
            if request.rerank is not None:
                raise ServiceError(422, "rerank_not_possible", "only searches by a text are re-ranked", "rerank")
            (image,) = await engine.read_images([request.image or ""], "image")
            hits = await engine.search(await engine.embed_image_query(image), request.top_k, request.where)
        elif request.rerank is None:
            vectors, _ = await engine.embed_texts([request.query], param="query")
            hits = await engine.search(vectors[0], request.top_k, request.where, request.query)
        else:
            try:
                engine.embedder.require_reranking(request.rerank)
            except ValueError as error:
                raise ServiceError(422, "rerank_not_possible", str(error), "rerank") from error
            hits = await engine.search_again(
                request.query, request.top_k, request.rerank, request.candidates, request.where
            )
        found = [_hit(hit) for hit in hits]
        probabilities = np.array([hit.probability for hit in hits], np.float64)  # NaN for `None`
        nothing_matches = _nothing_matches(probabilities, request.min_probability)
        return await _json(
            engine, lambda: schemas.SearchResponse(model=engine.name, hits=found, nothing_matches=nothing_matches)
        )


def _check_search(engine: Engine, request: schemas.SearchRequest) -> None:
    """Refuse a search whose fields don't go together, or that asks for too much."""
    if (request.query is None) == (request.image is None):
        raise ServiceError(422, "query_not_single", "give one of `query`, a text, and `image`", "query")
    if request.where is not None and len(request.where) > engine.limits.text_characters:
        raise ServiceError(
            422, "text_too_long", f"`where` may have at most {engine.limits.text_characters} characters", "where"
        )
    if request.query is not None and not request.query.strip():
        raise ServiceError(422, "query_empty", "the query is blank: give a text", "query")
    if max(request.top_k, request.candidates) > engine.limits.hits:
        raise ServiceError(422, "too_many_hits", f"top_k and candidates may be at most {engine.limits.hits}", "top_k")


def _hit(hit: Any) -> schemas.Hit:
    # Not its whole path: clients need not know where the index lies.
    fields = {"path": hit.id, "score": hit.score, "metadata": hit.metadata, "probability": hit.probability}
    if not hasattr(hit, "reranked"):
        return schemas.Hit(**fields)
    phrases = [schemas.Phrase(text=one.text, box=list(one.box), cosine=one.cosine) for one in hit.phrases]
    return schemas.Hit(**fields, reranked=hit.reranked, phrases=phrases)


def _check_model(engine: Engine, name: str | None) -> None:
    """Refuse a request for another model than the service's: its vectors would not compare with those expected."""
    if name not in (None, engine.name):
        raise ServiceError(404, "model_not_found", f"the model of this service is {engine.name!r}", "model")


def _check_min_probability(engine: Engine, request: schemas.MatchRequest, texts: Any) -> None:
    """Refuse a least probability where there are no probabilities: nothing would come of it.

    Args:
        engine: Of the service.
        request: The request.
        texts: What of it images are compared with; `None` or empty: nothing, or another image.
    """
    if request.min_probability is None:
        return
    if engine.embedder.calibration is None:
        reason = "the model of this service has no calibration, so there are no probabilities"
    elif not texts:
        reason = "there are probabilities of texts alone, and this request has none"
    else:
        return
    raise ServiceError(422, "probability_not_available", f"{reason}: leave out min_probability", "min_probability")


def _nothing_matches(probabilities: np.ndarray, least: float | None) -> bool | None:
    return none_matches(probabilities.tolist(), LEAST_PROBABILITY if least is None else least)


def _image_of(one: Any) -> str | None:
    """Return the image of an input, or `None` for a text."""
    if isinstance(one, schemas.ImageInput):
        return one.image
    return one if isinstance(one, str) and one[:11].lower() == "data:image/" else None


def _text_of(one: Any) -> str:
    return one.text if isinstance(one, schemas.TextInput) else one


def _encoded(vector: np.ndarray, encoding_format: str) -> list[float] | str:
    if encoding_format == "float":
        return vector.tolist()
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _best(
    labels: Sequence[str], scores: np.ndarray, cosines: np.ndarray, probabilities: np.ndarray, top_k: int
) -> list[schemas.Label]:
    order = (-scores).argsort(kind="stable")[:top_k]
    return [
        schemas.Label(
            label=labels[row],
            score=float(scores[row]),
            cosine=float(cosines[row]),
            probability=None if np.isnan(probabilities[row]) else float(probabilities[row]),
        )
        for row in order
    ]


async def _json(engine: Engine, make: Callable[[], BaseModel]) -> Response:
    """Write an answer in a thread: thousands of numbers would keep the other requests waiting."""
    content = await engine.help(lambda: make().model_dump_json(exclude_none=True))
    return Response(content, media_type="application/json")
