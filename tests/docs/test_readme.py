"""The code of both READMEs runs as it stands, and the two say the same."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fgclip2 import embedded_checkpoint
from fgclip2.assets import demo_images

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README_zh.md")


def code_blocks(readme: str, language: str) -> list[str]:
    text = (ROOT / readme).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with the pictures that the READMEs speak of."""
    bundled = demo_images()
    pictures = [bundled / "pictures" / f"{name}.webp" for name in ("dog-face-noto", "red-apple-noto-v1")]
    dog, apple = (Image.open(path).convert("RGB").resize((80, 80)) for path in pictures)
    dog.save(tmp_path / "dog.png")
    apple.save(tmp_path / "苹果.png")
    scene = Image.new("RGB", (192, 96), "white")
    scene.paste(dog, (8, 8))
    scene.paste(apple, (104, 8))
    scene.save(tmp_path / "scene.png")
    (tmp_path / "photos").mkdir()
    for path in pictures:
        shutil.copy(path, tmp_path / "photos")
    for name, path in zip(("狗", "苹果"), pictures, strict=True):
        (tmp_path / "albums" / name).mkdir(parents=True)
        shutil.copy(path, tmp_path / "albums" / name)
    records = [
        _record("dog-face-noto.webp", "a dog", "a drawing of a dog's face", "a cat"),
        _record("red-apple-noto-v1.webp", "an apple", "a drawing of a red apple", "a pear"),
        {**_record("dog-face-noto.webp", "一只狗", "画着一张狗脸", "一只猫"), "is_cn": True},
        {**_record("red-apple-noto-v1.webp", "一个苹果", "画着一个红苹果", "一个梨"), "is_cn": True},
    ]
    (tmp_path / "records.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _record(file: str, short: str, long: str, negative: str) -> dict:
    region = {"bbox": [0.1, 0.1, 0.9, 0.9], "short_expr": short, "long_expr": long, "flag_short_neg": 1}
    region["short_expr_negs"] = {"0": negative}
    return {"f_path": file, "short_caption": short, "caption": long, "bbox_info": [region]}


@pytest.mark.parametrize("readme", READMES)
def test_python_blocks_run_one_after_another(readme, folder):
    blocks = code_blocks(readme, "python")
    assert len(blocks) >= 5
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, readme, "exec"), namespace)  # what a reader types
    assert (folder / "exported" / "model.safetensors").is_file()
    assert namespace["skipped"][0].index == 1


@pytest.mark.slow
@pytest.mark.parametrize("readme", READMES)
def test_commands_run(readme, folder):
    commands = [
        line for block in code_blocks(readme, "bash") for line in block.splitlines() if line.startswith("fgclip2 ")
    ]
    assert len(commands) >= 7
    script = Path(sys.executable).with_name("fgclip2")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    for command in commands:
        offline = command.replace("google/siglip2-base-patch16-naflex", str(embedded_checkpoint()))
        arguments = shlex.split(offline, comments=True)[1:]
        done = subprocess.run([script, *arguments], capture_output=True, text=True, env=environment, cwd=folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (folder / "heat.png").is_file()


def test_both_readmes_have_the_same_code_and_parts():
    def without_comments(block: str) -> str:
        return re.sub(r"\s*#.*", "", block)

    for language in ("python", "bash"):
        english, chinese = ([without_comments(block) for block in code_blocks(readme, language)] for readme in READMES)
        assert english == chinese
    headings = [re.findall(r"^#+ ", (ROOT / readme).read_text(encoding="utf-8"), re.MULTILINE) for readme in READMES]
    assert headings[0] == headings[1]
    tables = [re.findall(r"^\|", (ROOT / readme).read_text(encoding="utf-8"), re.MULTILINE) for readme in READMES]
    assert len(tables[0]) == len(tables[1])


def test_links_lead_somewhere():
    for page in [*READMES, "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]:
        path = ROOT / page
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{page}: {target}"
