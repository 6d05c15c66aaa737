"""`python -m fgclip2.cli`, and so `torchrun -m fgclip2.cli` and `accelerate launch -m fgclip2.cli`."""

from .main import app

if __name__ == "__main__":
    app(prog_name="fgclip2")
