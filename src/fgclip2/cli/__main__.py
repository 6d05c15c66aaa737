"""Run the command by `python -m fgclip2.cli`, and so by `torchrun -m fgclip2.cli` and `accelerate launch -m ...`."""

from .main import app

if __name__ == "__main__":
    app(prog_name="fgclip2")
