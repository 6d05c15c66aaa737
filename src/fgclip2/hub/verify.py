"""Check that others get this package's vectors from a folder, by loading it in interpreters of their own."""

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from ..modeling.auto import find_family

# What each check needs, by the name under which the new process knows it: a module to import -> a requirement of pip.
CHECKS = {"transformers": "transformers", "sentence_transformers": "sentence-transformers>=6.2"}
TOLERANCE = 1e-4  # of vectors of length 1, whatever library and release multiplied them
TEXTS = ["A black CAT on the window", "一只黑猫趴在窗台上"]
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def missing_checks() -> list[str]:
    """Return the requirements, as pip takes them, of the checks that can't run here."""
    return [requirement for module, requirement in CHECKS.items() if find_spec(module) is None]


def verify_folder(folder: str | os.PathLike) -> dict[str, float]:
    """Load an exported folder by each library of [`CHECKS`] that is installed, and compare its vectors with ours.

    Each runs in a new interpreter in which this package can't be imported, offline, with an empty cache of the hub, and
    runs the code of the folder: of [`TEXTS`] and a picture it makes vectors.

    Args:
        folder: A folder that [`export_checkpoint`] wrote.

    Returns:
        By library, the largest difference of a component of the vectors, of length 1.

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
    script = Path(__file__).with_name("fresh_process.py").read_text(encoding="utf-8")
    differences: dict[str, float] = {}
    for library in filter(find_spec, CHECKS):
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
            found = load_file(work / "vectors.safetensors")
        difference = max(float((found[name] - rows).abs().max()) for name, rows in expected.items())
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{library} gives other vectors of {folder} than this package: they differ by {difference:.2g}, and "
                f"{TOLERANCE} is allowed"
            )
        differences[library] = difference
    return differences
