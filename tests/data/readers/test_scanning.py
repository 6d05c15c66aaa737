"""Pieces of files: wherever a file is cut, its index is that of one scan from its beginning to its end."""

import json
from dataclasses import fields

import numpy as np
import pytest

from fgclip2.data.readers import files, scanning
from fgclip2.data.readers.files import FileRecords, FileScanner
from fgclip2.data.readers.finehard import FineHARDParser
from fgclip2.data.readers.pairs import Columns, PairParser
from fgclip2.data.readers.record_index import RecordIndex
from fgclip2.data.readers.zero import ZeroParser, ZeroRecords

from ..samples import item, items, write_json, write_lines

TRICKY = '},{"f_path": "1.png"}, {"a": "\\"}, {'  # looks like items, and is a text
ROWS = [json.dumps(row, ensure_ascii=False) for row in [*items(5), item("zh", caption=TRICKY), item(caption=TRICKY)]]
LONG = json.dumps(item(caption=TRICKY * 100, short_caption="猫" * 900), ensure_ascii=False)
NESTED = json.dumps(item("zh", bbox_info=[{"bbox": [0, 0, 1, 1], "short_expr": "猫"}] * 60), ensure_ascii=False)
BROKEN = ['{"f_path": ', "{nonsense}", "null", "7", '"}, {"', "[" * 3000, b'{"f_path": "\xc4\xe3.png"}']

LINES = {
    "whole": "\n".join(ROWS),
    "with a byte order mark, line ends of Windows and blank lines": "\ufeff" + "\r\n\r\n  \r\n".join(ROWS) + "\r\n\r\n",
    "with spaces before": "\n".join(" " * 40 + row for row in ROWS) + "\n",
    "broken and too long": [*BROKEN, "", *ROWS, LONG, *BROKEN, LONG, *ROWS[:2]],
    "one line": LONG,
    "blank": "\n" * 300,
    "empty": "",
}
LISTS = {
    "whole": f"[{', '.join(ROWS)}]",
    "with a byte order mark and line ends of Windows": "\ufeff[\r\n" + "\r\n,\r\n".join(ROWS) + "\r\n]\r\n",
    "without spaces": f"[{','.join(ROWS)}]",
    "on many lines": json.dumps([json.loads(row) for row in ROWS], indent=4),
    "in ASCII": json.dumps([json.loads(row) for row in ROWS]),
    "with long items": f"[{', '.join([*ROWS, LONG, NESTED, LONG, *ROWS, NESTED])}]",
    "with malformed items": f"[{', '.join([ROWS[0], '{nonsense}', ROWS[1], LONG, '[' * 3000 + ']' * 3000, *ROWS])}]",
    "without a comma": f"[{', '.join(ROWS)} {', '.join(ROWS)}]",
    "cut off within an item": f"[{', '.join([*ROWS, NESTED])}"[:-90],
    "cut off behind an item": f"[{', '.join(ROWS)}",
    "with more behind it": f"[{', '.join(ROWS)}] {', '.join(ROWS)}]",
    "with something else": f"[{', '.join([*ROWS, 'nonsense', *ROWS])}]",
    "of numbers": "[" + ", ".join(["1"] * 300) + "]",
    "of blanks": f"[{' ' * 500}]",
}
CELLS = [
    "猫",
    "a dog",
    '"一行\n两行"',
    '"a 12"" pizza,\r\n\r\n1.png,with"',
    '"' + "x\n" * 700 + '"',
    'a 12" pizza',
    '"open',
]
TABLES = {
    "whole": [f"{number}.png,{cell}" for number, cell in enumerate(CELLS[:4] * 9)],
    "broken and too long": [f"{number}.png,{cell}" for number, cell in enumerate((*CELLS, "a,b", "") * 5)],
    "with blank lines": ["", "0.png,猫", "", "", "1.png,a dog", *[""] * 300],
}


@pytest.fixture(params=[17, 100, 1009])
def piece_bytes(request, monkeypatch):
    """Pieces are of so many bytes, and records are short."""
    monkeypatch.setattr(scanning, "PIECE_BYTES", request.param)
    monkeypatch.setattr(files, "MAX_RECORD_BYTES", 2000)
    monkeypatch.setattr(files, "_BLOCK_BYTES", 256)
    return request.param


def check(path, scanner) -> int:
    """Compare pieces with one scan; returns the number of records."""
    (cut,) = scanning.scan_files(scanner, [path], 1)
    whole = scanner.scan(path, 0, path.stat().st_size).index
    for name in (field.name for field in fields(RecordIndex) if field.type == "np.ndarray"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name), name, strict=True)
    assert cut.malformed == whole.malformed
    return len(whole.starts)


@pytest.mark.parametrize("name", LINES)
def test_lines(tmp_path, piece_bytes, name):
    path = tmp_path / "记录.jsonl"
    if isinstance(LINES[name], list):
        write_lines(path, LINES[name])
    else:
        path.write_bytes(LINES[name].encode())
    count = check(path, FileScanner(FileRecords, FineHARDParser(tmp_path)))
    assert count == {"broken and too long": 25, "one line": 1, "blank": 0, "empty": 0}.get(name, 7)


@pytest.mark.parametrize("name", LISTS)
def test_lists(tmp_path, piece_bytes, name):
    path = tmp_path / "a.json"
    path.write_bytes(LISTS[name].encode())
    assert check(path, FileScanner(FileRecords, FineHARDParser(tmp_path))) >= (name != "of blanks")


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path, piece_bytes, name):
    header = "image,caption"
    for suffix, separator in ((".csv", ","), (".csv", "\t"), (".tsv", "\t")):
        path = tmp_path / f"a{suffix}"
        path.write_text("\n".join([header, *TABLES[name]]).replace(",", separator), encoding="utf-8", newline="")
        assert check(path, FileScanner(FileRecords, PairParser(tmp_path, Columns()))) > 0


def test_rows_of_several_records_and_of_none(tmp_path, piece_bytes):
    rows = [{"ImageKey": "a", "Title": "一只猫" * (number % 2), "Content": "a dog"} for number in range(30)]
    path = write_lines(tmp_path / "a.jsonl", [*rows, "{", *rows])
    assert check(path, FileScanner(ZeroRecords, ZeroParser(None, ("Title", "Content")))) == 91


@pytest.mark.parametrize("form", ["lines", "list", "indented list", "table"])
def test_pieces_of_whole_files_are_scanned_once(tmp_path, monkeypatch, form):
    """Else one process would scan again what all have scanned."""
    monkeypatch.setattr(files, "_BLOCK_BYTES", 2000)
    monkeypatch.setattr(scanning, "PIECE_BYTES", 5000)
    rows, parser = items(50), FineHARDParser(tmp_path)
    if form == "lines":
        path = write_lines(tmp_path / "a.jsonl", rows)
    elif form == "table":
        table = "image,caption\n" + "".join(f"{number}.png,一只猫 and a dog\n" for number in range(3000))
        path, parser = tmp_path / "a.csv", PairParser(tmp_path, Columns())
        path.write_text(table, encoding="utf-8")
    else:
        path = write_json(tmp_path / "a.json", rows, indent=2 if form == "indented list" else None)
    scanned = []

    class Counting(FileScanner):
        def scan(self, path, start, end):
            scanned.append(start)
            return super().scan(path, start, end)

    scanning.scan_files(Counting(FileRecords, parser), [path], 1)
    assert len(scanned) == len(set(scanned)) == -(-path.stat().st_size // 5000) > 5
