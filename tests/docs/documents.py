"""What the tests of documents share: their blocks, tables and links, and a reader who runs all their code."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fgclip2.cli.main import app

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?<!<!-- not run -->\n)^```(\w+)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
RESULT = re.compile(r"^# => (.*(?:\n#    .*)*)|  # => (.*)", re.MULTILINE)
NUMBER = re.compile(r"(?<![\w@])\d+(?:\.\d+)?")
SECONDS = re.compile(r"\d+ s,")  # the clock's


def read(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def blocks(document: Path, language: str) -> list[str]:
    """Return the code of a language, without what is marked as not run."""
    return [block for its, block in BLOCK.findall(read(document)) if its == language]


def without_comments(code: str) -> str:
    """Return code without its comments, those that state a result excepted."""
    return re.sub(r"\s*#(?! =>|    ).*", "", code)


def tables(document: Path) -> list[list[list[str]]]:
    """Return the rows of cells of each table, its first row included."""
    found = re.findall(r"(?:^\|.*\n)+", read(document), flags=re.MULTILINE)
    rows = [[row for row in table.splitlines() if not row.startswith("|--")] for table in found]
    return [[[cell.strip() for cell in row.strip("|").split("|")] for row in table] for table in rows]


def rows_of_first_cells(document: Path, names: set[str]) -> dict[str, list[str]]:
    """Return the rows of the table whose first cells are these names, in backticks."""
    for table in tables(document):
        rows = {row[0].strip("`"): row[1:] for row in table[1:]}
        if set(rows) == names:
            return rows
    raise AssertionError(f"no table has exactly the rows {sorted(names)}")


def assert_same_parts(english: Path, chinese: Path) -> None:
    """Two pages have the same code, results, headings and shapes of tables; commands may ask for another language."""
    for language in ("python", "bash", "yaml", "json", "text"):
        code = [[without_comments(block) for block in blocks(page, language)] for page in (english, chinese)]
        assert code[0] == [block.replace(" --language zh", "") for block in code[1]], language
    headings = [re.findall(r"^#+ ", read(page), re.MULTILINE) for page in (english, chinese)]
    assert headings[0] == headings[1]
    shapes = [[[len(row) for row in table] for table in tables(page)] for page in (english, chinese)]
    assert shapes[0] == shapes[1]


def is_output(line: str, printed: str) -> bool:
    """The same but for the clock, and for 1% of what is no count; on one CPU neither threads nor kernels change it."""
    line, printed = SECONDS.sub("… s,", line), SECONDS.sub("… s,", printed)
    pairs = list(zip(NUMBER.findall(line), NUMBER.findall(printed), strict=False))
    same_text = NUMBER.sub("#", line) == NUMBER.sub("#", printed)
    return same_text and all(a == b or ("." in a and float(a) == pytest.approx(float(b), rel=0.01)) for a, b in pairs)


def assert_shown(expected: list[str], printed: str) -> None:
    """Each expected line is a printed one, in this order; others may stand between them."""
    lines = iter(printed.splitlines())
    for line in expected:
        assert any(is_output(line.rstrip(), other.rstrip()) for other in lines), f"{line!r} is not in\n{printed}"


def run_python(code: str, name: str, namespace: dict) -> str:
    """Run what a reader types; return what it prints, which must have the results stated in the code's comments."""
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        exec(compile(code, name, "exec"), namespace)
    stated = [one or other for one, other in RESULT.findall(code)]
    assert_shown([line.removeprefix("#    ") for result in stated for line in result.splitlines()], stream.getvalue())
    return stream.getvalue()


def run_command(line: str) -> str:
    """Run a command of this package in this process; return what it prints."""
    program, *arguments = shlex.split(line, comments=True)
    assert program == "fgclip2"
    done = CliRunner().invoke(app, arguments, prog_name="fgclip2")
    assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
    return done.stdout


def run_document(document: Path) -> dict:
    """Run the code of a document from its top, in this folder.

    A block of text is the output of the block before it; a block of YAML is a file, named by its first line.

    Returns:
        The variables that its Python code leaves.
    """
    namespace: dict = {}
    printed = ""
    for language, block in BLOCK.findall(read(document)):
        if language == "python":
            printed = run_python(block, document.name, namespace)
        elif language == "bash":
            printed = "".join(run_command(line) for line in block.splitlines() if line.startswith("fgclip2 "))
        elif language == "yaml":
            name = re.match(r"# (\S+\.yaml)\n", block)[1]  # type: ignore[index]
            Path(name).write_text(block, encoding="utf-8")
        elif language == "text":
            assert_shown(block.splitlines(), printed)
    return namespace
