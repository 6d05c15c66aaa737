"""Run Python as an interpreter of its own would, at a third of the CPU time: forked from one that has imported torch.

What was imported there is torch alone. Transformers, the hub's client and this package, which read the environment and
change one another when they are imported, are imported anew each time.
"""

import gc
import os
import pickle
import runpy
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path


@cache
def _server() -> subprocess.Popen:
    """Start the interpreter that is forked. It ends with this process, which closes its input."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, __file__], env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)


def run_python(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: str | Path | None = None
) -> subprocess.CompletedProcess:
    """Run `python ARGUMENTS`, where the first argument is `-c`, `-m` or a script, with nothing to read.

    Args:
        env: Its environment, this process's if left out.
        cwd: Its working folder, this process's if left out.

    Returns:
        The exit code and the texts of both outputs, as `subprocess.run` gives them.
    """
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        request = (list(map(str, arguments)), dict(os.environ if env is None else env), str(cwd or Path.cwd()))
        pickle.dump((*request, list(map(str, outputs))), server.stdin)
        server.stdin.flush()
        exit_code = pickle.load(server.stdout)
        return subprocess.CompletedProcess(arguments, exit_code, *(path.read_text("utf-8") for path in outputs))


def _serve() -> None:
    """Fork for each request and answer with the exit code; a fork returns when it has done what it was asked for."""
    import torch._dynamo
    import torch.distributed.tensor  # noqa: F401

    gc.freeze()  # nor is any of it garbage in a fork
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    packages = [path for path in sys.path[1:] if path not in given]
    while True:
        try:
            arguments, environment, folder, outputs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        process = os.fork()
        if not process:
            break
        exit_code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        pickle.dump(exit_code, sys.stdout.buffer)
        sys.stdout.flush()

    for number, path in enumerate((os.devnull, *outputs)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    given = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    first, *others = arguments
    sys.path[:] = ["" if first.startswith("-") else str(Path(first).parent), *given, *packages]
    sys.modules["__main__"] = types.ModuleType("__main__")
    if first == "-c":
        sys.argv = ["-c", *others[1:]]
        exec(compile(others[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    elif first == "-m":
        sys.argv = others
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    _serve()
