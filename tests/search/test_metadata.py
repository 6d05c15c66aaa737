"""Files of metadata: what is read of them, and by which line what can't be used is named."""

import pytest

from fgclip2.search.metadata import check_metadata, kinds_of_columns, read_records


def test_csv_columns_get_the_type_of_all_their_values(tmp_path):
    path = tmp_path / "元数据.csv"
    path.write_text(
        'path,camera,year,score,sharp,code\n./a/狗.png,X100,2021,1,true,007\n"b,1.png",,,0.5,False,8\n',
        encoding="utf-8-sig",
    )
    records = read_records(path)
    assert records.metadata == {
        "a/狗.png": {"camera": "X100", "year": 2021, "score": 1.0, "sharp": True, "code": "007"},
        "b,1.png": {"camera": None, "year": None, "score": 0.5, "sharp": False, "code": "8"},
    }
    assert records.boxes is None
    kinds = kinds_of_columns(records.metadata)
    assert kinds == {"camera": str, "year": int, "score": float, "sharp": bool, "code": str}


def test_json_records_may_have_boxes(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"id": "狗.png", "year": 2020, "boxes": [[1, 2, 3, 4.5]]}\n\n{"path": "b.png", "year": null}\n')
    records = read_records(path)
    assert records.metadata == {"狗.png": {"year": 2020}, "b.png": {"year": None}}
    assert records.boxes == {"狗.png": [[1.0, 2.0, 3.0, 4.5]]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "file,year\na.png,1\n", "line 1: the header must have a column `path`, got 'file, year'"),
        ("a.csv", "path,year\na.png,1\nb.png\n", "line 3: 1 fields, but the header has 2"),
        ("a.csv", "path,year,year\na.png,1,2\n", "line 1: the header has the column 'year' twice"),
        ("a.csv", "path,boxes\na.png,1\n", "line 1: a column `boxes` needs a .jsonl file"),
        ("a.csv", "path,year\na.png,1\na.png,2\n", "line 3: path is 'a.png', which an earlier record has"),
        ("a.csv", "path,year\n,1\n", "line 2: a record needs `path`"),
        ("a.csv", b"path\n\xff.png\n", "line 2 is not UTF-8"),
        ("a.jsonl", '{"path": "a.png"}\n{"path": ', "line 2 is not JSON"),
        ("a.jsonl", "[1]", r"line 1 must be an object, got '\[1\]'"),
        ("a.jsonl", '{"year": 1}', "line 1: a record needs `path`.*got None"),
        ("a.jsonl", '{"path": "a.png", "tags": ["x"]}', r"line 1: tags is \['x'\]; allowed are text, numbers"),
        ("a.jsonl", '{"path": "a.png", "year": 1e400}', "line 1: year is inf, which is not finite"),
        ("a.jsonl", '{"path": "a.png", "n": 9223372036854775808}', "line 1: n is 9223372036854775808; allowed"),
        ("a.jsonl", '{"path": "a.png", "id": "x"}', "line 1: a field must have a name, and another one than 'id'"),
        ("a.jsonl", '{"path": "a.png", "boxes": [[1, 2, 3]]}', r"line 1: boxes\[0\] must be four numbers"),
        ("a.jsonl", '{"path": "a.png", "boxes": "all"}', "line 1: boxes must be a list of boxes"),
        ("a.txt", "", "must be a .csv or a .jsonl file, got '.txt'"),
    ],
)
def test_records_that_can_not_be_used_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_records(path)


def test_columns_of_two_types_are_named_by_both_entries():
    with pytest.raises(ValueError, match=r"'b': year is 'x', where 'a' has whole numbers: a field must have"):
        kinds_of_columns({"a": {"year": 1}, "b": {"year": "x"}})
    with pytest.raises(ValueError, match="fields 'Year' and 'year': give them one spelling"):
        kinds_of_columns({"a": {"Year": 1}, "b": {"year": 1}})
    assert kinds_of_columns({"a": {"n": None, "f": 1}, "b": {"n": None, "f": 0.5}}) == {"n": str, "f": float}
    with pytest.raises(ValueError, match="x: metadata must be an object"):
        check_metadata([], "x")
