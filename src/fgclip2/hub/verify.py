"""Check that others get this package's vectors from a folder, by loading it in interpreters of their own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from ..modeling.auto import find_family

# What each check needs, by the name under which the new process knows it: a module to import -> a requirement of pip.
CHECKS = {"transformers": "transformers", "sentence_transformers": "sentence-transformers>=6.2"}
CHECKS_OF_GRAPHS = {"fgclip2_onnx": "fgclip2-onnx"}
TOLERANCE = 1e-4  # of vectors of length 1, whatever library and release multiplied them
# Of graphs in fewer bits: what cosines of 0.9999, 0.998 and 0.99 allow. Their reports say how good they are.
TOLERANCE_OF_PRECISION = {"fp16": 0.015, "int8": 0.07, "int8-fast": 0.15}
TEXTS = ["A black CAT on the window", "一只黑猫趴在窗台上"]
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def missing_checks(has_graphs: bool = False) -> list[str]:
    """Return the requirements, as pip takes them, of the checks of a folder that can't run here."""
    checks = {**CHECKS, **(CHECKS_OF_GRAPHS if has_graphs else {})}
    return [requirement for module, requirement in checks.items() if find_spec(module) is None]


def verify_folder(folder: str | os.PathLike) -> dict[str, float]:
    """Load an exported folder by each library of [`CHECKS`] that is installed, and compare its vectors with ours.

    Each runs in a new interpreter in which this package can't be imported, offline, with an empty cache of the hub, and
    runs the code of the folder: of [`TEXTS`] and a picture it makes vectors. Where the folder has ONNX graphs,
    fgclip2-onnx does so too, by each precision.

    Args:
        folder: A folder that [`export_checkpoint`] wrote.

    Returns:
        By library, and by precision of graphs (`"fgclip2_onnx fp32"`), the largest difference of a component of the
        vectors, of length 1.

    Raises:
        ValueError: The folder is of no family of this package, a library can't load it, or its vectors differ; the
            message has what the library said.
    """
    folder = Path(folder).absolute()
    family = find_family(folder)
    if family is None:
        raise ValueError(f"{folder} is no checkpoint of this package")
    model = family.model.from_pretrained(folder, dtype=torch.float32).eval()
    processor = family.processor.from_pretrained(folder)
    y, x = np.mgrid[0:150, 0:200]
    picture = Image.fromarray(np.stack([x, y, (x + y) % 256], -1).astype(np.uint8))
    with torch.no_grad():
        expected = {
            "images": model.get_image_features(**processor(images=[picture])),
            "texts": model.get_text_features(**processor(text=TEXTS)),
        }
    expected = {name: torch.nn.functional.normalize(rows, dim=-1) for name, rows in expected.items()}
    checks = {**CHECKS, **(CHECKS_OF_GRAPHS if (folder / "onnx").is_dir() else {})}
    differences: dict[str, float] = {}
    for library in filter(find_spec, checks):
        found = vectors_of(library, folder, picture)
        for precision in {name.partition(" ")[0]: None for name in found}:  # "" but for graphs
            name = f"{library} {precision}".rstrip()
            allowed = TOLERANCE_OF_PRECISION.get(precision, TOLERANCE)
            rows = [(found[f"{precision} {kind}"], values) for kind, values in expected.items()]
            differences[name] = largest_difference(rows)
            if not differences[name] <= allowed:
                raise ValueError(
                    f"{name} gives other vectors of {folder} than this package: they differ by "
                    f"{differences[name]:.2g}, and {allowed} is allowed"
                )
    return differences


def vectors_of(library: str, folder: Path, picture: Image.Image) -> dict[str, torch.Tensor]:
    """Return what `fresh_process.py` writes: by precision and kind of input, e.g. `"fp32 texts"`, vectors of length 1.

    Raises:
        ValueError: The library can't load the folder.
    """
    script = Path(__file__).with_name("fresh_process.py").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        picture.save(work / "picture.png")
        (work / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
        inputs = [folder, work / "picture.png", work / "texts.json", work / "vectors.safetensors"]
        # The code that runs there is that of the folder: it gets no token.
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", script, library, *map(str, inputs)],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ValueError(f"{library} can't load {folder}: {done.stderr.strip()[-1000:]}")
        return load_file(work / "vectors.safetensors")


def largest_difference(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Return the largest difference of two numbers of two tensors of one shape; NaN if there is one in any of them."""
    # Python's own max may pass over NaN.
    return float(torch.stack([(first - second).abs().max() for first, second in pairs]).max())
