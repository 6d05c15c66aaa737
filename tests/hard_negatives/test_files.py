"""Hard negatives for whole files of records."""

import json

import pytest

from fgclip2.data import read_finehard
from fgclip2.hard_negatives import generate_hard_negatives, write_hard_negatives


def region(text: str, **more) -> dict:
    return {"bbox": [0.1, 0.1, 0.9, 0.9], "short_expr": text, **more}


RECORDS = [
    {"f_path": "a.jpg", "caption": "A dog.", "bbox_info": [region("a red dog", extra=1), region("a photograph")]},
    {"f_path": "甲.jpg", "caption": "狗", "is_cn": True, "bbox_info": [region("两只黑狗")], "note": {"keep": "我"}},
    {"f_path": "b.jpg", "caption": "没有框"},
    {
        "f_path": "c.jpg",
        "caption": "A cat.",
        "bbox_info": [
            region("a cat", flag_short_neg=1, short_expr_negs={"0": "a fish"}),
            region("a scene", flag_short_neg=1, short_expr_negs={"0": "a void"}),
            region("an owl", flag_short_neg=0, short_expr_negs={}),
        ],
    },
]


def write(path, records=RECORDS):
    if path.suffix == ".json":
        path.write_text(json.dumps(records, ensure_ascii=False, indent=1), encoding="utf-8-sig")
    else:
        path.write_text("".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records), encoding="utf-8")
    return path


def read(path) -> list:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_files_are_filled(tmp_path, suffix):
    source, target = write(tmp_path / f"记录{suffix}"), tmp_path / f"输出{suffix}"
    before = source.read_bytes()
    report = write_hard_negatives(source, target, count=5, seed=1)
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, target.name])
    assert (report.records, report.regions, report.kept, report.filled) == (4, 6, 2, 3)
    assert report.without == [(f"{source}:1: bbox_info[1]", "a photograph")]
    assert sum(report.by_kind.values()) == 15

    after = read(target)
    dog, photograph = after[0]["bbox_info"]
    made = generate_hard_negatives("a red dog", count=5, seed=1)
    assert dog["short_expr_negs"] == {str(number): negative.text for number, negative in enumerate(made)}
    assert dog["neg_kinds"] == {str(number): negative.kind for number, negative in enumerate(made)}
    assert (dog["flag_short_neg"], dog["extra"], photograph["flag_short_neg"]) == (1, 1, 0)
    assert "short_expr_negs" not in photograph
    assert len(after[1]["bbox_info"][0]["short_expr_negs"]) == 5
    assert (after[1]["note"], after[2]) == ({"keep": "我"}, RECORDS[2])
    assert after[3]["bbox_info"][:2] == RECORDS[3]["bbox_info"][:2]
    assert len(after[3]["bbox_info"][2]["short_expr_negs"]) == 5

    records = read_finehard(target, tmp_path)
    assert [len(region.hard_negatives) for region in records[0].regions] == [5, 0]
    assert len(records[1].regions[0].hard_negatives) == 5


def test_existing_negatives_are_replaced_on_request(tmp_path):
    report = write_hard_negatives(write(tmp_path / "in.jsonl"), tmp_path / "out.jsonl", replace=True)
    cat, scene, _ = read(tmp_path / "out.jsonl")[3]["bbox_info"]
    assert len(cat["short_expr_negs"]) == 10
    assert "a fish" not in cat["short_expr_negs"].values()
    assert scene["short_expr_negs"] == {"0": "a void"}  # nothing new could be made: nothing is lost
    assert (report.filled, report.kept, len(report.without)) == (4, 1, 2)


def test_neither_the_input_nor_another_file_is_overwritten(tmp_path):
    source = write(tmp_path / "in.json")
    for target in (source, write(tmp_path / "out.json", [])):
        before = target.read_bytes()
        with pytest.raises(FileExistsError, match=r"exists; choose a new name"):
            write_hard_negatives(source, target)
        assert target.read_bytes() == before


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"bbox_info": [{"bbox": [0, 0, 1, 1]}]}], r"in.jsonl:2: bbox_info\[0\].short_expr is missing"),
        ([{"bbox_info": [region("  ")]}], r"in.jsonl:2: bbox_info\[0\].short_expr is '  '"),
        ([{"bbox_info": {}}, {"bbox_info": {"a": 1}}], "in.jsonl:3: bbox_info is {'a': 1}; it must be a list"),
        ([{"bbox_info": ["box"]}], r"in.jsonl:2: bbox_info\[0\] is 'box'; it must be one JSON object"),
        ([["no record"]], r"in.jsonl:2: the record is \['no record'\]"),
        ([{"is_cn": "yes", "bbox_info": []}], "in.jsonl:2: is_cn is 'yes'; it must be true or false"),
    ],
)
def test_broken_records_are_named_and_leave_no_output(tmp_path, records, message):
    source = write(tmp_path / "in.jsonl", [RECORDS[0], *records])
    with pytest.raises(ValueError, match=message):
        write_hard_negatives(source, tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"bbox_info": []}\n{"f_path"', "in.json:2: the record is malformed"),
        (b"[{}, {]", "in.json: the list is malformed"),
        (
            '{"caption": "狗"}'.encode("gb18030"),
            r"in.json:1: the record is malformed \('utf-8' codec.*well-formed JSON in UTF-8",
        ),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    (tmp_path / "in.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        write_hard_negatives(tmp_path / "in.json", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_a_generator_fills_files_and_its_mistakes_are_placed(tmp_path):
    source = write(tmp_path / "in.jsonl", RECORDS[:2])
    write_hard_negatives(source, tmp_path / "out.jsonl", generator=lambda text, count, language: [f"{text} {language}"])
    assert read(tmp_path / "out.jsonl")[1]["bbox_info"][0]["short_expr_negs"] == {"0": "两只黑狗 zh"}
    with pytest.raises(ValueError, match=r"in.jsonl:1: bbox_info\[0\].short_expr: generator must give"):
        write_hard_negatives(source, tmp_path / "other.jsonl", generator=lambda *_: [""])


def test_lines_are_read_one_at_a_time(tmp_path):
    """A broken last line does not keep the first from being worked on."""
    source = write(tmp_path / "in.jsonl", RECORDS[:1])
    with source.open("a") as file:
        file.write("{broken")
    seen = []
    with pytest.raises(ValueError, match=r"in.jsonl:2"):
        write_hard_negatives(
            source, tmp_path / "out.jsonl", generator=lambda text, *_: [seen.append(text) or f"{text} x"]
        )
    assert seen == ["a red dog", "a photograph"]
    assert not list(tmp_path.glob(".*"))
