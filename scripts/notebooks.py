"""Write the notebooks of examples/notebook from the pages of the same names: `python -m scripts.notebooks`.

A page is easier to read, to review and to keep in step with its twin of the other language than the JSON of a notebook.
"""

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "examples" / "notebook"
CODE = re.compile(r"^```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def cells_of(page: str) -> list[dict[str, Any]]:
    """Return the cells of a page in nbformat 4.5: its Python code, and the text between, without outputs."""
    cells: list[dict[str, Any]] = []
    for position, part in enumerate(CODE.split(page)):  # code has the odd positions
        text = part.strip()
        if not text:
            continue
        cell = {"id": f"cell-{len(cells)}", "metadata": {}, "source": text.splitlines(keepends=True)}
        if position % 2:
            cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
        else:
            cell |= {"cell_type": "markdown"}
        cells.append(cell)
    return cells


def notebook_of(page: str) -> str:
    """Return the notebook of a page as the text of its file."""
    notebook = {"cells": cells_of(page), "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    for page in FOLDER.glob("*.md"):
        page.with_suffix(".ipynb").write_text(notebook_of(page.read_text(encoding="utf-8")), encoding="utf-8")
