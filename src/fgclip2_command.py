"""The console script `fgclip2`.

It stands beside the package because importing any part of a package imports the package itself, and `import fgclip2`
registers the models with transformers, which takes seconds. Help, version and shell completion don't need that.
"""

import os
import sys

# True in the process of the console script only, and only once it runs: processes that are spawned from it import this
# module too, and register at import as any other program does.
registers_before_a_command = False


def main() -> None:
    """Run the command `fgclip2`, whose commands register with transformers just before they run."""
    global registers_before_a_command
    registers_before_a_command = True
    if "_FGCLIP2_COMPLETE" in os.environ:
        # Completion would take twice as long: typer sends descriptions through rich, if there is one. Ours are plain.
        sys.modules["rich"] = None  # type: ignore[assignment]

    from fgclip2.cli.main import app

    app(prog_name="fgclip2")
