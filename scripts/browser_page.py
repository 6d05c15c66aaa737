"""Build the page of `examples/browser`, which searches the bundled drawings in the browser, as a folder of plain files.

    npm ci --prefix examples/browser
    python -m scripts.browser_page site
    python -m http.server --directory site

Both towers of the embedded checkpoint are there with weights in 8 bit. Vectors of the pictures are computed here.
"""

import argparse
import json
import shutil
from pathlib import Path

from fgclip2 import Embedder
from fgclip2.assets import demo_images
from fgclip2.files import new_folder, read_json
from fgclip2.hub.onnx import graphs
from fgclip2.hub.onnx.standalone import StandaloneGraphs, end_with, normalise

from .environments import ROOT

SOURCE = ROOT / "examples" / "browser"
PAGE = ("index.html", "search.js")
PACKAGES = {  # file of a package -> its name beside the page
    "onnxruntime-web/dist/ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    "@huggingface/tokenizers/dist/tokenizers.min.mjs": "tokenizers.min.mjs",
}


def build_page(folder: Path, packages: Path = SOURCE / "node_modules") -> Path:
    """Write the page and all it needs into a new folder, and return it.

    Args:
        folder: Where to write; new or empty.
        packages: The folder `node_modules` in which npm has installed what `examples/browser/package.json` names.

    Raises:
        FileNotFoundError: A package is not installed.
    """
    missing = [source for source in PACKAGES if not (packages / source).is_file()]
    if missing:
        raise FileNotFoundError(f"{packages} lacks {', '.join(missing)}: run `npm ci --prefix examples/browser`")
    embedder = Embedder.from_pretrained(device="cpu")
    drawings = [row for row in read_json(demo_images() / "manifest.json")["pictures"] if row["kind"] == "thing"]
    with new_folder(folder) as staging:
        for name in PAGE:
            shutil.copyfile(SOURCE / name, staging / name)
        for source, name in PACKAGES.items():
            shutil.copyfile(packages / source, staging / name)
        for name in ("NOTICE", "LICENSE"):
            shutil.copyfile(ROOT / name, staging / name)
        (staging / "pictures").mkdir()
        for row in drawings:
            shutil.copyfile(demo_images() / row["file"], staging / row["file"])
        vectors = embedder.encode_images([demo_images() / row["file"] for row in drawings])
        (staging / "vectors.bin").write_bytes(vectors.astype("<f4").tobytes())
        write_model(staging, embedder)
        write_json(staging / "pictures.json", drawings)
    return folder


def write_model(folder: Path, embedder: Embedder) -> None:
    """Write both towers, the vocabulary, and what the page has to know of them."""
    from onnx import TensorProto

    model, processor = embedder.model, embedder.processor
    towers = StandaloneGraphs(model, processor, None, "a browser")
    of_towers = {
        "text": (towers.captions("int8", TensorProto.INT64), "caption"),
        "image": (towers.squares("int8"), "image"),
    }
    for name, (graph_model, features) in of_towers.items():
        shape = [graphs.BATCH.__name__, model.embedding_size]
        end_with(graph_model.graph, normalise(features, "embedding"), {"embedding": shape})
        (folder / f"{name}.onnx").write_bytes(graph_model.SerializeToString())
    processor.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    mean, std = towers.mean_and_std()
    settings = {
        "size": model.embedding_size,
        "length": towers.length,
        "pad_id": processor.tokenizer.pad_token_id,
        "side": towers.side,
        "mean": mean,
        "std": std,
    }
    write_json(folder / "settings.json", settings)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="new folder")
    folder = build_page(parser.parse_args().output)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
