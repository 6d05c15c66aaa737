"""Readers meet damaged files with the errors that they promise: known damage, random damage, and what Atheris finds."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgclip2.data import read_finehard, read_image_folder, read_pairs
from fgclip2.data.box_files import read_boxes
from fgclip2.data.records import InvalidRecordError
from fgclip2.data.shard_files import count_shard
from fgclip2.search import ImageIndex
from scripts.environments import ROOT, make_environment
from tests.fuzzing.targets import CORPUS, TARGETS, seeds

FUZZING_SECONDS = 40

quickly = settings(max_examples=40)

# Kinds of damage, each at a position given as a share of the file.
damage = st.lists(
    st.tuples(
        st.sampled_from(["cut", "remove", "insert", "overwrite", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, data in changes:
        place = int(share * len(content))
        behind = place + len(data)
        content = {
            "cut": content[:place],
            "remove": content[:place] + content[behind:],
            "insert": content[:place] + data + content[place:],
            "overwrite": content[:place] + data + content[behind:],
            "repeat": content[:behind] + content[place:],
        }[kind]
    return content


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzzing")


def test_the_corpus_is_small_and_whole(scratch):
    """Of whole files, so that damage gets far into the readers: after a change of a format, make_corpus.py."""
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*.*")) < 30_000
    for name in ("plain.json", "yolo.txt", "instances.json", "detections.json"):
        assert read_boxes(CORPUS / "boxes" / name, [CORPUS / "image" / "000042.png"]).boxes[0]
    assert len(read_finehard(CORPUS / "records" / "lines.jsonl", scratch)[1].regions) == 1
    assert read_pairs(CORPUS / "records" / "open_clip.tsv", scratch)[0].short_caption == "猫"
    assert count_shard(str(CORPUS / "shard" / "finehard.tar")).samples == 2
    shutil.copytree(CORPUS / "index", scratch / ".fgclip2_index")
    assert len(ImageIndex.load(scratch)) == 2


@pytest.mark.parametrize("name", TARGETS)
def test_files_of_the_corpus(name, scratch):
    for content in seeds(name):
        TARGETS[name](content, scratch)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files(name, scratch):
    @quickly
    @given(st.sampled_from(seeds(name)), damage)
    def check(content, changes):
        TARGETS[name](damaged(content, changes), scratch)

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_files_of_any_bytes(name, scratch):
    @quickly
    @given(st.binary(max_size=64))
    def check(content):
        TARGETS[name](content, scratch)

    check()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
regions = st.lists(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("bbox", "short_expr", "long_expr", "flag_short_neg", "short_expr_negs"), values)
    ),
    max_size=2,
)


@quickly
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                **dict.fromkeys(("f_path", "image", "filepath", "caption", "short_caption", "title", "is_cn"), values),
                "bbox_info": values | regions,
            },
        )
        | values,
        max_size=3,
    )
)
def test_records_of_any_values(scratch, rows):
    """JSON can spell halves of surrogate pairs, infinity and numbers of any length."""
    content = json.dumps(rows).encode()
    TARGETS["records"](content, scratch)
    TARGETS["records"]("\n".join(map(json.dumps, rows)).encode(), scratch)
    TARGETS["boxes"](content, scratch)


@quickly
@given(st.lists(values, max_size=6), st.dictionaries(st.sampled_from(["images", "annotations", "boxes"]), values))
def test_boxes_of_any_values(scratch, box, content):
    for annotation in ({"image_id": 42, "category_id": 1, "bbox": box}, content):
        TARGETS["boxes"](json.dumps([annotation]).encode(), scratch)
        TARGETS["boxes"](json.dumps({"images": [], "annotations": [annotation], **content}).encode(), scratch)
    TARGETS["boxes"](json.dumps([box]).encode(), scratch)


@quickly
@given(st.lists(st.text("ab猫\U0001f431\udcff ._-/\\:\n\u202e", min_size=1, max_size=60), max_size=4))
def test_names_of_any_characters_in_records(scratch, names):
    """What a record calls its image is one of its errors or stays in the folder."""
    rows = [{"f_path": name, "short_caption": "猫"} for name in names]
    path = scratch / "names.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, {}])), encoding="utf-8")
    dataset = read_finehard(path, scratch)
    for number in range(len(dataset)):
        try:
            image = dataset[number].image
        except InvalidRecordError:
            continue
        assert Path(os.path.realpath(image)).is_relative_to(scratch)


def test_folders_of_images_with_any_names(tmp_path):
    labels = ["猫", "a dog", "\u202egnp", "line\nbreak", os.fsdecode(b"caf\xe9")]
    for label in labels:
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.png").symlink_to("0.png")  # to itself
    dataset = read_image_folder(tmp_path)
    assert len(dataset) == len(labels)
    for number in range(len(dataset)):
        if "caf" in dataset.source(number):  # no UTF-8, so no caption
            with pytest.raises(InvalidRecordError, match="must be valid Unicode"):
                dataset[number]
        else:
            assert dataset[number].short_caption in labels


@pytest.mark.slow
def test_atheris_finds_nothing(tmp_path):
    """All targets in turn; what breaks one is named in the output and left as a file."""
    python = make_environment(ROOT / ".cache" / "fuzzing", ["atheris>=2.3"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "HF_HUB_OFFLINE": "1"}
    command = [python, "-m", "tests.fuzzing.run_atheris", tmp_path, f"-max_total_time={FUZZING_SECONDS}", "-timeout=20"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    patterns = (r"Done (\d+) runs", r"INITED cov: (\d+)", r"DONE +cov: (\d+)")
    runs, first, last = (int(re.findall(pattern, done.stderr)[0]) for pattern in patterns)
    assert runs > 500
    assert last >= first > 400  # of the package: so it is instrumented, and the corpus gets into it
