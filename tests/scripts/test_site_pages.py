"""How pages are laid out for the site, and how a built site is looked through."""

from pathlib import Path

import pytest

from scripts.site.built import broken
from scripts.site.pages import for_site, lay_out, place_in_site

PAGE = """# 搜索

[English](search.md) · 整个包：[README](../README_zh.md)

[![PyPI](https://img.example.org/v.svg)](https://pypi.example.org/fgclip2)
![图](images/a.webp) [缓存](onnx_zh.md#缓存) [此处](#此处) [文件](../NOTICE) [文件夹](../examples/serving)

<!-- not run -->
```python
link = "[code](other_zh.md)"
```
"""


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("README.md", "index.md"),
        ("README_zh.md", "index.zh.md"),
        ("docs/search_zh.md", "search.zh.md"),
        ("docs/libraries/langchain.md", "libraries/langchain.md"),
        ("recipes/README.md", "recipes/index.md"),
        ("NOTICE", "NOTICE.txt"),
    ],
)
def test_places(source, place):
    assert place_in_site(Path(source)) == Path(place)


def test_links_are_those_of_the_site():
    text = for_site(PAGE, Path("docs/search_zh.md"), {Path("examples/serving")})
    assert text.splitlines()[2] == "整个包：[README](index.md)"
    assert (
        "![图](images/a.webp) [缓存](onnx.md#缓存) [此处](#此处) [文件](NOTICE.txt) [文件夹](examples/serving/index.md)"
    ) in text
    assert 'link = "[code](other_zh.md)"' in text
    assert "example.org" not in text
    assert "not run" not in text


def test_a_line_break_in_chinese_is_no_space():
    page = "# 标题\n一行\n两行，\nthree\nfour。\n\n1. 五，\n   `六`\n2. 七\n"
    expected = "# 标题\n一行两行，three\nfour。\n\n1. 五，`六`\n2. 七\n"
    assert for_site(page, Path("docs/a_zh.md"), set()) == expected


def test_a_page_of_one_language_links_to_the_tops_of_pages():
    text = for_site("[Train](docs/r2d2.md#train)", Path("CHANGELOG.md"), set(), both_languages=False)
    assert text == "[Train](r2d2.md)"


def test_all_that_is_linked_is_laid_out(tmp_path):
    files = {
        "README.md": "[one](docs/one.md)",
        "README_zh.md": "[一](docs/one_zh.md)",
        "docs/one.md": "[README](../README.md) [folder](../examples)",
        "docs/one_zh.md": "[README](../README_zh.md)",
        "docs/results.json": "{}",
        "examples/配置.yaml": "a: 1",
        "secret.md": "",
    }
    for name, text in files.items():
        path = tmp_path / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    lay_out(tmp_path / "repository", tmp_path / "pages")
    assert {path.relative_to(tmp_path / "pages").as_posix() for path in (tmp_path / "pages").rglob("*.*")} == {
        "index.md",
        "index.zh.md",
        "one.md",
        "one.zh.md",
        "examples/index.md",
        "examples/配置.yaml",
        "site.css",
    }
    assert "[配置.yaml](配置.yaml)" in (tmp_path / "pages/examples/index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<script src="https://cdn.example.org/a.js"></script>', "loads https://cdn.example.org/a.js"),
        ('<link rel="stylesheet" href="//fonts.example.org/css">', "loads //fonts.example.org/css"),
        ('<img src="http://example.org/a.png">', "loads http://example.org/a.png"),
        ("<style>@import 'https://example.org/a.css'</style>", "loads https://example.org/a.css"),
        ('<img src="missing.png">', "leads to missing.png, which is not there"),
        ('<a href="b/">b</a>', "leads to b/, which is not there"),
        ('<a href="#b">b</a>', "leads to #b, which has no such place"),
        ('<a href="https://example.org">b</a> <a href="#%E4%B8%80" id="一">一</a> <img src="data:,">', None),
    ],
)
def test_what_is_loaded_from_elsewhere_and_dead_links_are_found(tmp_path, html, problem):
    (tmp_path / "index.html").write_text(html, encoding="utf-8")
    assert broken(tmp_path) == ([f"index.html {problem}"] if problem else [])


def test_style_sheets_load_nothing_from_elsewhere(tmp_path):
    (tmp_path / "a.css").write_text("p { background: url('https://example.org/a.png') }", encoding="utf-8")
    assert broken(tmp_path) == ["a.css loads https://example.org/a.png"]
