"""Load folders by sentence-transformers as its users do, and write what comes out.

Run by the tests in an interpreter of an environment that has that library:

    python check_sentence_transformers.py {remote-code,package} OUTPUT.safetensors PICTURE FOLDER ...
"""

import sys

from PIL import Image
from safetensors.numpy import save_file

TEXTS = ["A black CAT on the window", "一只黑猫趴在窗台上"]
LONG = {"fgclip2": {"walk_type": "long"}, "fgclip": {"padding": "max_length", "max_length": 248}}  # by model type


def main() -> None:
    way, output, picture, *folders = sys.argv[1:]
    if way == "remote-code":
        sys.modules["fgclip2"] = None  # so that importing it fails, wherever it is installed
    else:
        import fgclip2  # noqa: F401
    from sentence_transformers import SentenceTransformer

    outputs = {}
    for folder in folders:
        model = SentenceTransformer(folder, trust_remote_code=way == "remote-code", device="cpu")
        outputs[f"{folder} texts"] = model.encode(TEXTS)
        outputs[f"{folder} images"] = model.encode([Image.open(picture), Image.open(picture).rotate(90, expand=True)])
        outputs[f"{folder} paths"] = model.encode([picture])
        long = {"text": LONG[model[0].config.model_type]}
        outputs[f"{folder} long"] = model.encode(TEXTS, processing_kwargs=long)
        similarity = model.similarity(outputs[f"{folder} texts"], outputs[f"{folder} images"])
        outputs[f"{folder} similarity"] = similarity.numpy()
    save_file(outputs, output)


if __name__ == "__main__":
    main()
