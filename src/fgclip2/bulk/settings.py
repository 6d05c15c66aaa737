"""What the vectors of a bulk run depend on, and where its work runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..checks import check_choice, check_positive_integer
from ..embedding import Embedder
from ..modeling.inputs import MAX_PIXELS

KINDS = ("image", "text", "region")
BACKENDS = ("torch", "onnx", "openvino")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class BulkSettings:
    """What is embedded, by which model, and from which columns.

    All but `batch_size` are kept with the output, which only the same settings go on with.

    Args:
        kind: `"image"`, `"text"`, or `"region"`: the boxes of each image.
        model: Folder of a checkpoint, or of exported graphs; `None`: the checkpoint in the package. Workers download
            nothing.
        backend, precision: What runs the model, as in [`Embedder.from_pretrained`].
        dtype: What torch computes in; `None`: float32 on CPUs, bfloat16 elsewhere.
        max_num_patches: Patch budget of each image; `None`: the processor's setting.
        max_pixels: Most pixels of an image file.
        role: What texts are to the model, as in [`Embedder.encode_texts`].
        id_column: The column of the ids, which are texts or whole numbers, each of them once.
        image_column: The column of the images: encoded, a struct with `bytes`, or paths below `images_folder`.
        text_column: The column of the texts.
        boxes_column: The column of the boxes, lists of (x1, y1, x2, y2) in pixels.
        images_folder: Folder, or address that fsspec opens, that paths of images start from.
        batch_size: Images of 256 patches per forward pass.
    """

    kind: str = "image"
    model: str | None = None
    backend: str = "torch"
    precision: str | None = None
    dtype: str | None = None
    max_num_patches: int | str | None = None
    max_pixels: int = MAX_PIXELS
    role: str = "auto"
    id_column: str = "id"
    image_column: str = "image"
    text_column: str = "text"
    boxes_column: str = "boxes"
    images_folder: str | None = None
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_choice("backend", self.backend, BACKENDS)
        if self.dtype is not None:
            check_choice("dtype", self.dtype, DTYPES)
        check_positive_integer("batch_size", self.batch_size)
        if self.model is not None and not Path(self.model).is_dir():
            raise ValueError(
                f"model={self.model!r} is no folder: workers download nothing, so give a folder that all of them have"
            )

    @property
    def columns(self) -> list[str]:
        """The columns of a table that are read."""
        content = {
            "image": [self.image_column],
            "text": [self.text_column],
            "region": [self.image_column, self.boxes_column],
        }
        return [self.id_column, *content[self.kind]]

    def kept(self) -> dict[str, Any]:
        """Return what the output keeps of the settings; the model is kept by its fingerprint."""
        return {name: value for name, value in asdict(self).items() if name not in ("model", "batch_size")}

    def load_embedder(self, device: str = "cpu") -> Embedder:
        """Load the model on one device."""
        options = {"precision": self.precision} if self.backend != "torch" else {}
        dtype = self.dtype or "float32"
        embedder = Embedder.from_pretrained(self.model, device, dtype, backend=self.backend, **options)  # type: ignore
        embedder.max_pixels = self.max_pixels
        if self.kind == "region" and "regions" in embedder.lacks:
            raise ValueError(f"{embedder.name} has {embedder.lacks['regions']}: choose kind='image'")
        return embedder
