"""Run the command by `python -m fgclip2`."""

from .cli.main import app

if __name__ == "__main__":
    app(prog_name="fgclip2")
