"""`fgclip2 index` and `fgclip2 search` on archives and tables, with metadata, filters and regions."""

import zipfile
from pathlib import Path

import pytest


def test_an_archive_is_indexed_and_searched_by_its_regions(run, folder):
    with zipfile.ZipFile("照片.zip", "w") as archive:
        for path in sorted(Path("照片").iterdir()):
            archive.write(path, path.name)
    said = run("index", "照片.zip", "--regions", "grid")
    assert said.stderr.splitlines() == ["2 images: 2 new, 0 changed, 0 removed, 0 not usable", "50 regions (grid)"]
    assert Path("照片.zip.fgclip2_index").is_dir()
    command = ("search", "照片.zip", "红色的门", "--no-update", "--regions")
    (result,) = run.json(*command, "best")["results"]
    assert {hit["id"] for hit in result["hits"]} == {"黑猫.png", "dog.png"}
    first = result["hits"][0]
    assert first["path"] == f"照片.zip/{first['id']}"
    shown = run(*command, "best").stdout.splitlines()[1]
    assert shown == f"  {first['score']:.4f}  {first['path']}  [{', '.join(f'{edge:.0f}' for edge in first['box'])}]"
    assert len(run(*command, "all", "--top-k", 50).stdout.splitlines()) == 51
    pictures = (
        "search",
        "照片.zip",
        "猫",
        "--rerank",
        "phrases",
        "--explain",
        "图",
        "--html",
        "页.html",
        "--no-update",
    )
    run(*pictures)
    assert len(list(Path("图").iterdir())) == 2
    assert Path("页.html").read_text(encoding="utf-8").count("data:image") >= 2
    assert "leave out --rerank" in run(*command, "best", "--rerank", "phrases", code=2).stderr
    assert "leave out --image" in run(*command, "best", "--image", "photo.png", code=2).stderr
    assert "all regions are compared" in run(*command, "best", "--approximate", code=2).stderr
    assert "must be best or all, got 'one'" in run(*command, "one", code=2).stderr
    assert "must be grid, given or none, got 'x'" in run("index", "照片.zip", "--regions", "x", code=2).stderr


def test_metadata_filter_hits(run, folder):
    pytest.importorskip("duckdb")
    Path("元数据.csv").write_text("path,camera,year\n黑猫.png,X100,2021\ndog.png,Y,2019\n", encoding="utf-8")
    run("index", "照片", "--metadata", "元数据.csv")
    command = ("search", "照片", "狗", "--where")
    (result,) = run.json(*command, "camera = 'X100' and year > 2020")["results"]
    (hit,) = result["hits"]
    assert (hit["id"], hit["metadata"]) == ("黑猫.png", {"camera": "X100", "year": 2021})
    assert run(*command, "year > 3000").stdout == "狗\n"
    assert "names the column 'yaer'; there are id, path, camera, year" in run(*command, "yaer > 1", code=1).stderr
    assert "has a subquery" in run(*command, "exists (select * from read_csv('/etc/passwd'))", code=1).stderr
    assert "updates nothing" in run("index", "照片", "--show-problems", "--metadata", "元数据.csv", code=2).stderr
    Path("元数据.csv").write_text("path,year\n黑猫.png,1,2\n")
    assert (
        "元数据.csv line 2: 3 fields, but the header has 2"
        in run("index", "照片", "--metadata", "元数据.csv", code=1).stderr
    )


def test_a_table_is_indexed_by_its_ids(run, folder):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"货号": path.stem, "图": path.read_bytes()} for path in sorted(Path("照片").iterdir())]
    parquet.write_table(pyarrow.Table.from_pylist(rows), "商品.parquet")
    run("index", "商品.parquet", "--id-column", "货号", "--image-column", "图")
    (result,) = run.json("search", "商品.parquet", "猫")["results"]  # which brings it up to date by the same columns
    assert {hit["id"] for hit in result["hits"]} == {"dog", "黑猫"}
