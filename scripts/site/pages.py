"""The pages of the site, laid out as MkDocs and its plugin for languages want them.

The README, all pages of `docs`, and whatever these link to. `X_zh.md` becomes `X.zh.md`, and the README the first page;
links between them are changed accordingly. Without MkDocs, whose settings are in `mkdocs.yml`.
"""

import os
import re
import shutil
from pathlib import Path

LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
FENCE = re.compile(r"(^```.*?^```\n)", re.DOTALL | re.MULTILINE)
# The way to the same page in the other language, for which the site has a menu, and the sign behind it.
OTHER_LANGUAGE = re.compile(r"(?:English \| )?\[(?:中文|English)\]\((?:\w+\.md|#\S+)\)(?: \| 中文)?(?: · )?")
# Pictures that a server elsewhere would have to send, each with the page that it leads to.
BADGE = re.compile(r"^\[?!\[[^\]]*\]\(https?:[^)]*\)(?:\]\([^)]*\))?\n", re.MULTILINE)
CHINESE = "[\u3000-\u9fff\uff00-\uffef“”]"
# A line that ends where Chinese has no space, though browsers would show one.
BREAK_IN_CHINESE = re.compile(
    rf"^(?!#)(.*(?:{CHINESE}(?=\n *{CHINESE})|[，。；：、）！？](?=\n *(?:[^\W\d]|[`\[*]))))\n *", re.MULTILINE
)


def is_outside(target: str) -> bool:
    """Tell whether a link leads out of this repository, or nowhere else than to its own page."""
    return target.startswith(("http:", "https:", "mailto:", "#"))


def place_in_site(source: Path) -> Path:
    """Return where the file or folder of this path, relative to the repository, stands in the site.

    `docs` is the root of the site, where the README is `index.md`. Files without an ending get `.txt`, for browsers to
    show them.
    """
    if source.parts[0] == "docs":
        source = source.relative_to("docs")
    if source.stem in ("README", "README_zh"):
        source = source.with_name(source.name.replace("README", "index"))
    if source.stem.endswith("_zh"):
        return source.with_name(f"{source.stem.removesuffix('_zh')}.zh{source.suffix}")
    return source if source.suffix else source.with_suffix(".txt")


def linked(page: str) -> list[str]:
    """Return the targets of the links of a page that lead to other files of the repository, without anchors."""
    text = "".join(FENCE.split(page)[::2])
    return [target.partition("#")[0] for target in LINK.findall(text) if not is_outside(target)]


def sources(root: Path) -> list[Path]:
    """Return the README, the pages of `docs` and all that they link to, directly or not, as paths in `root`."""
    waiting = [Path("README.md"), Path("README_zh.md")]
    waiting += (path.relative_to(root) for path in (root / "docs").rglob("*.md"))
    found: set[Path] = set()
    while waiting:
        source = waiting.pop()
        if source in found:
            continue
        found.add(source)
        if (root / source).is_dir():
            waiting += (path.relative_to(root) for path in (root / source).iterdir() if path.is_file())
        elif source.suffix == ".md":
            page = (root / source).read_text(encoding="utf-8")
            waiting += (Path(os.path.normpath(source.parent / target)) for target in linked(page))
    return sorted(found)


def for_site(page: str, source: Path, folders: set[Path], both_languages: bool = True) -> str:
    """Return the text of a page with its links as they are in the site.

    Args:
        page: Text of the page.
        source: Its path relative to the repository.
        folders: Those of the linked paths that are folders.
        both_languages: Whether the page has a twin. One without is shown in both languages, where the headings of the
            pages that it links to differ: its links lead to their tops.
    """
    here = place_in_site(source).parent

    def relative(match: re.Match) -> str:
        target, anchor, name = match[0].partition("#")
        if is_outside(match[0]):
            return match[0]
        path = Path(os.path.normpath(source.parent / target))
        place = path / "index.md" if path in folders else place_in_site(path)
        # The plugin for languages finds the page in the language of the page that links.
        place = place.with_name(place.name.replace(".zh.md", ".md"))
        address = Path(os.path.relpath(place, here)).as_posix()
        return address + anchor + name if both_languages else address

    prose_and_code = FENCE.split(BADGE.sub("", page))
    for position in range(0, len(prose_and_code), 2):  # code has the odd ones
        text = OTHER_LANGUAGE.sub("", prose_and_code[position]).replace("<!-- not run -->\n", "")
        text = BREAK_IN_CHINESE.sub(r"\1", text)
        prose_and_code[position] = LINK.sub(relative, text)
    return "".join(prose_and_code)


def list_of_files(folder: Path) -> str:
    """Return a page that lists the files of a folder."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    lines = [f"- [{name}]({place_in_site(Path(name))})" for name in names]
    return "\n".join([f"# {folder.name}", "", *lines, ""])


def lay_out(root: Path, folder: Path) -> None:
    """Write all pages of the site, and the files that they show, into a new folder.

    Args:
        root: The repository.
        folder: Its former content is removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    paths = sources(root)
    folders = {path for path in paths if (root / path).is_dir()}
    for source in paths:
        if source in folders:
            place, text = folder / source / "index.md", list_of_files(root / source)
        else:
            place, text = folder / place_in_site(source), None
            if source.suffix == ".md":
                both_languages = source.stem.endswith("_zh") or source.with_name(f"{source.stem}_zh.md") in paths
                text = for_site((root / source).read_text(encoding="utf-8"), source, folders, both_languages)
        place.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            shutil.copyfile(root / source, place)
        else:
            place.write_text(text, encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("site.css"), folder / "site.css")
