"""The web app as a Space of the Hugging Face Hub, which runs this file and shows what answers on port 7860."""

import os

from fgclip2.cli.main import app

PORT = "7860"


def arguments(model: str | None) -> list[str]:
    """Return the arguments of `fgclip2 app` for a checkpoint; `None` or an empty name: the one inside the package."""
    return ["app", "--host", "0.0.0.0", "--port", PORT, *(["--model", model] if model else [])]


if __name__ == "__main__":
    app(arguments(os.environ.get("MODEL")))  # a variable in the settings of the Space
