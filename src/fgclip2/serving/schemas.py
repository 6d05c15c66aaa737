"""What goes in and comes out of the endpoints: the models of the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1, description="A text in Chinese or English.")]
ImageSource = Annotated[
    str,
    Field(
        min_length=1,
        description="An image file as base64, or as a data: URL of it; or an address below one that the operator has "
        "allowed.",
    ),
]
Box = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=4, max_length=4)]
Templates = Annotated[
    list[Annotated[str, Field(min_length=2, pattern=r"\{\}")]],
    Field(min_length=1, description="Texts with {} for the label; a label's vector is the mean over them."),
]
Role = Literal["auto", "caption", "long_caption", "region_phrase"]


class Request(BaseModel):
    """What all requests have in common: fields that are not known are errors, not typing mistakes without effect."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="The name of the model that `/v1/models` says, or nothing.")


class MatchRequest(Request):
    """A request whose answer says how likely matches are, where the model has a calibration."""

    min_probability: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Least probability of a match: where nothing has it, the answer says so. Without it 0.5. A model "
        "without a calibration refuses it.",
    )


class TextInput(BaseModel):
    """A text among inputs of both kinds."""

    model_config = ConfigDict(extra="forbid")

    text: Text


class ImageInput(BaseModel):
    """An image among inputs of both kinds."""

    model_config = ConfigDict(extra="forbid")

    image: ImageSource


Input = Annotated[str, Field(min_length=1)] | TextInput | ImageInput


class EmbeddingsRequest(Request):
    """OpenAI's request for embeddings, and images in it."""

    input: Input | Annotated[list[Input], Field(min_length=1)] = Field(
        description="One input or a list of them. A string is a text, or an image if it begins with `data:image/`."
    )
    encoding_format: Literal["float", "base64"] = Field("float", description="base64: of little-endian float32.")
    dimensions: int | None = Field(None, description="The length of the vectors, which can't be changed.")
    user: str | None = Field(None, description="Taken for the sake of OpenAI's clients; not used, and not logged.")
    role: Role = Field(
        "auto",
        description="What texts are to the model: captions, long or not, compare with images, region phrases with "
        "regions; auto chooses the caption's head by its length.",
    )


class RegionsRequest(MatchRequest):
    """A request for the vectors of boxes, or for their labels."""

    image: ImageSource
    boxes: list[Box] = Field(min_length=1, description="In pixels of the upright image.")
    box_format: Literal["xyxy", "xywh"] = "xyxy"
    labels: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="Region phrases; with them the answer has labels instead of vectors."
    )
    templates: Templates = ["{}"]
    top_k: int = Field(3, ge=1, le=1000, description="Labels of each box.")
    encoding_format: Literal["float", "base64"] = "float"


class ClassifyRequest(MatchRequest):
    """A request for the labels of whole images."""

    images: list[ImageSource] = Field(min_length=1)
    labels: list[Text] = Field(min_length=1)
    templates: Templates = ["{}"]
    top_k: int = Field(5, ge=1, le=1000, description="Labels of each image.")


class SearchRequest(MatchRequest):
    """A request for images of the index, by a text or by an image."""

    query: Text | None = None
    image: ImageSource | None = None
    top_k: int = Field(10, ge=1, le=10_000)
    rerank: Literal["phrases", "model"] | None = Field(
        None, description="Order the first hits of a text anew: by its phrases, or by the model's ranking stage."
    )
    candidates: int = Field(20, ge=1, le=10_000, description="How many first hits are ordered anew.")
    where: Text | None = Field(
        None,
        description="An SQL expression on the metadata of the index, e.g. `year > 2020`; only such images are hits.",
    )


class Embedding(BaseModel):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens of the texts; images count none."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """OpenAI's answer with embeddings."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


Probability = Annotated[
    float | None,
    Field(
        description="How likely it is a match, by the model's calibration; left out where that has no curve for this "
        "head, language and patch budget."
    ),
]


class Label(BaseModel):
    """A label: `score` is the model's own probability, or its share among the labels, as of `Embedder.classify`."""

    label: str
    score: float
    cosine: float
    probability: Probability = None


class LabelledImage(BaseModel):
    """The best labels of an image, and whether none of all is likely a match, where the model has a calibration."""

    index: int
    labels: list[Label]
    nothing_matches: bool | None = None


class ClassifyResponse(BaseModel):
    """Labels of images."""

    model: str
    results: list[LabelledImage]


class Region(BaseModel):
    """A box (x1, y1, x2, y2) as it was sent, and its vector, or its best labels with their shares.

    Where the model has a calibration, `none_of_these` says whether none of all labels is likely a match.
    """

    index: int
    box: list[float]
    embedding: list[float] | str | None = None
    labels: list[Label] | None = None
    none_of_these: bool | None = None


class RegionsResponse(BaseModel):
    """The boxes of an image."""

    model: str
    regions: list[Region]


class Phrase(BaseModel):
    """A phrase of a query, and the box (x1, y1, x2, y2 in pixels) where it fits best."""

    text: str
    box: list[float]
    cosine: float


class Hit(BaseModel):
    """An image of the index: its path there or its id, cosine and metadata; after re-ranking that score, too."""

    path: str
    score: float
    metadata: dict[str, Any]
    probability: Probability = None
    reranked: float | None = None
    phrases: list[Phrase] | None = None


class SearchResponse(BaseModel):
    """The hits of a query, best first, and whether none is likely a match, where the model has a calibration."""

    model: str
    hits: list[Hit]
    nothing_matches: bool | None = None


class Model(BaseModel):
    """What OpenAI's clients may know of a model, and the length of its vectors."""

    id: str
    object: Literal["model"] = "model"
    owned_by: str = "fgclip2"
    embedding_size: int


class Models(BaseModel):
    """The models of the service: one."""

    object: Literal["list"] = "list"
    data: list[Model]


class State(BaseModel):
    """Whether the service lives, or takes work."""

    status: Literal["ok", "busy"]


class ErrorDetail(BaseModel):
    """What went wrong: `code` for programs, `message` for people."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorResponse(BaseModel):
    """The answer to a request that is refused."""

    error: ErrorDetail
