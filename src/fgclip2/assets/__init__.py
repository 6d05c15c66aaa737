"""Data files inside the package: the embedded checkpoint and the pictures of the demo."""

from importlib import resources
from pathlib import Path


def embedded_checkpoint() -> Path:
    """Return the folder of the small bilingual checkpoint inside this package.

    Raises:
        FileNotFoundError: This installation has none.
    """
    return _folder("checkpoint", "config.json")


def demo_images() -> Path:
    """Return the folder of the bundled pictures, with `manifest.json`: names, artists, licences.

    Raises:
        FileNotFoundError: This installation has none.
    """
    return _folder("demo", "manifest.json")


def _folder(name: str, required: str) -> Path:
    folder = Path(str(resources.files(__name__) / name))
    if not (folder / required).is_file():
        raise FileNotFoundError(f"this installation of fgclip2 lacks {folder / required}; install the package anew")
    return folder
