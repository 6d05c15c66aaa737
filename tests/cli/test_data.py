"""`fgclip2 data validate`."""

import json
import subprocess
import sys
import time

import pytest

from tests.data.samples import item, items, write_images, write_json


@pytest.fixture
def validate(run):
    def call(*arguments, **options):
        return run("data", "validate", *arguments, model=False, **options)

    return call


@pytest.fixture
def records(folder):
    """`记录.json` with four good records, and their pictures beside it."""
    write_images(folder, 4)
    return write_json(folder / "记录.json", items(4))


def test_a_good_data_set(validate, records):
    result = validate("记录.json", "--images", "open")
    assert "format: finehard (by f_path in 记录.json)" in result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["records", "4"] in lines
    assert ["languages", "en", "2,", "zh", "2"] in lines
    assert ["hard", "negatives", "40"] in lines
    assert ["problems", "0"] in lines


def test_what_is_wrong_goes_to_stdout_and_into_the_exit_code(validate, folder):
    write_images(folder, 2)
    rows = [item(), *(item("zh", f"没有{number}.png") for number in range(3)), item(caption=" ")]
    write_json(folder / "a.json", rows)
    result = validate("a.json", "--show", "2", code=1)
    assert "a.json:2: the image is missing at 没有0.png; it must be an existing file" in result.stdout
    assert "a.json:4" not in result.stdout
    assert "… and 2 more" in result.stdout
    remedy = "mend them, or train with on_error='skip', which leaves such records out"
    assert result.stderr.splitlines()[-1] == f"fgclip2: a.json has 4 problems, in 4 of 5 records: {remedy}"
    report = json.loads(validate("a.json", "--json", code=1).stdout)
    assert [problem["source"] for problem in report["problems"]] == [f"a.json:{number}" for number in (2, 3, 4, 5)]
    assert report["problems_by_field"] == {"the image": 3, "caption": 1}
    assert report["format"] == "finehard"
    assert report["languages"] == {"en": 1, "zh": 3}
    assert len(json.loads(validate("a.json", "--images", "none", "--json", code=1).stdout)["problems"]) == 1


def test_images_elsewhere(validate, folder):
    write_images(folder / "图片", 4)
    write_json(folder / "a.json", items(4))
    assert "the image is missing" in validate("a.json", code=1).stdout
    assert "problems" in validate("a.json", "--images-folder", "图片").stdout


def test_links_out_of_the_folder_are_followed_on_demand_only(validate, folder, tmp_path_factory):
    outside = write_images(tmp_path_factory.mktemp("elsewhere"), 2)
    for number in range(2):
        (folder / f"{number}.png").symlink_to(outside / f"{number}.png")
    write_json(folder / "a.json", items(2))
    refused = validate("a.json", code=1).stdout
    assert "1.png', a link that leads out of its folder; it must be a file within" in refused
    assert "problems" in validate("a.json", "--images", "open", "--follow-links").stdout


def test_tables_with_other_columns(validate, folder):
    (folder / "图文.csv").write_text("路径,描述,长,语\nphoto.png,照片,,en\n", encoding="utf-8")
    columns = ("--image-column", "路径", "--short-caption-column", "描述", "--long-caption-column", "长")
    assert "no column 'image'" in validate("图文.csv", code=1).stderr
    report = json.loads(validate("图文.csv", *columns, "--json").stdout)
    assert report["languages"] == {"en": 0, "zh": 1}
    report = json.loads(validate("图文.csv", *columns, "--language-column", "语", "--json").stdout)
    assert report["languages"] == {"en": 1, "zh": 0}
    assert "got 'cn'" in validate("图文.csv", *columns, "--language", "cn", code=1).stderr


def test_folders_and_shards(validate, records, folder):
    from fgclip2.data import read_finehard, write_shards

    write_images(folder / "标签/黑猫", 2)
    report = json.loads(validate("标签", "--json").stdout)
    assert (report["format"], report["records"], report["languages"]["zh"]) == ("folder", 2, 2)
    write_shards(read_finehard(records, folder), folder / "shards", 2)
    report = json.loads(validate("shards", "--images", "open", "--json").stdout)
    assert (report["format"], report["records"]) == ("shards", 4)
    shard = folder / "shards/000001.tar"
    shard.write_bytes(shard.read_bytes()[:-9000])
    assert "the shard is cut off" in validate("shards", code=1).stdout


def test_records_become_shards(run, records, folder):
    def shards(*arguments, **options):
        return run("data", "shards", *arguments, "--processes", "1", model=False, **options)

    write_images(folder / "标签/黑猫", 2)
    command = ("记录.json", "标签", "分片", "--samples-per-shard", 4)
    result = shards(*command)
    assert "format: finehard (by f_path in 记录.json)" in result.stderr
    assert "6 records in 2 shards in 分片, in " in result.stdout
    before = (folder / "分片/index.json").stat().st_mtime_ns
    again = json.loads(shards(*command, "--json").stdout)
    assert (again["shards"], again["records"], again["left_out"]) == (2, 6, 0)
    assert (folder / "分片/index.json").stat().st_mtime_ns == before
    refused = shards("记录.json", "标签", "分片", code=1).stderr
    assert "分片 was begun with samples_per_shard=4, and now it is 1000" in refused
    (folder / "1.png").unlink()
    (folder / "3.png").write_bytes(b"no picture")
    assert "记录.json:2: " in shards("记录.json", "新", code=1).stderr
    result = shards("记录.json", "别", "--on-error", "skip")
    assert "2 records are left out; 别/left_out.jsonl says which, and why" in result.stdout
    assert len((folder / "别/left_out.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_bytes(folder):
    """As users run it, by two processes; all of them are gone soon after the first is killed."""
    write_images(folder, 600)
    write_json(folder / "记录.json", items(600))
    command = [sys.executable, "-m", "fgclip2.cli", "data", "shards", "记录.json", "--samples-per-shard", "10"]
    killed = subprocess.Popen([*command, "分片", "--processes", "2"], cwd=folder)
    while not list((folder / "分片").glob("*.tar")):
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert not (folder / "分片/index.json").exists()
    done = subprocess.run([*command, "分片", "--processes", "2", "--json"], cwd=folder, capture_output=True, check=True)
    assert json.loads(done.stdout)["records"] == 600
    subprocess.run([*command, "整", "--processes", "1"], cwd=folder, check=True)
    files = [{path.name: path.read_bytes() for path in (folder / name).iterdir()} for name in ("分片", "整")]
    assert files[0] == files[1]
    assert len(files[0]) == 60 + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--on-error", "stop"), "on_error must be 'raise' or 'skip', got 'stop'"),
        (("--format", "finehard", "--format", "pairs"), "`--format` must have one value, or one for each of 1 sources"),
        (("--images-folder", "没有"), "没有"),
    ],
)
def test_wrong_usage_of_shards(run, records, arguments, message):
    assert message in run("data", "shards", "记录.json", "分片", *arguments, code=1, model=False).stderr


def test_wrong_usage(validate, records):
    assert "'pairs', 'folder' or 'shards', got 'csv'" in validate("记录.json", "--format", "csv", code=2).stderr
    assert (
        "only the format pairs has columns, and this is finehard"
        in validate("记录.json", "--image-column", "x", code=2).stderr
    )
    assert "--images-folder" in validate(".", "--format", "folder", "--images-folder", ".", code=2).stderr
    assert "'exists' or 'open', got 'all'" in validate("记录.json", "--images", "all", code=1).stderr
    assert "no such file or folder" in validate("没有.json", code=1).stderr
    assert "no such file or folder" in validate("没有.json", "--format", "finehard", code=1).stderr


def test_the_guessed_format_can_be_checked(validate, records):
    result = validate("记录.json", "--format", "fineregion-cn", "--json")
    assert "guess" in result.stderr
    assert json.loads(result.stdout)["languages"] == {"en": 0, "zh": 4}
