"""docs/gpu.md and docs/gpu_zh.md, from what the parts have left, or from nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .parts import PARTS, load_part
from .records import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    NOT_AVAILABLE,
    NOT_INSTALLED,
    OUT_OF_MEMORY,
    TIMED_OUT,
    Column,
    Part,
    Record,
)

LANGUAGES = ("en", "zh")
Results = Mapping[str, Mapping[str, Any]]  # name of a part -> content of its file

CHINESE = {  # of labels and problems; what is not here is a name, the same in both languages
    "features": "特征",
    "training loss": "训练损失",
    "gradients": "梯度",
    "sdpa, torch's choice": "sdpa，由 torch 选择",
    "images, one shape": "图像，一种形状",
    "images, batch sizes": "图像，多种批大小",
    "images, numbers of patches": "图像，多种图块数",
    "captions, one shape": "描述，一种形状",
    "training step": "训练步",
    "matrices": "矩阵",
    "images": "图像",
    "texts": "文本",
    "compiled": "编译后",
    "yes": "是",
    "no": "否",
    "**no**": "**否**",
    OUT_OF_MEMORY: "显存不足",
    NOT_INSTALLED: "未安装",
    NOT_AVAILABLE: "不可用",
    TIMED_OUT: "超时",
    FAILED: "失败",
    INTERRUPTED: "中断",
}

HEAD = {
    "en": """\
# On a GPU

[中文](gpu_zh.md)

One script checks the package on a GPU: whether the results are the known ones in each precision, how fast it is, and
whether the memory is what the plan of a run says. It needs one device with 80 GB; on a smaller one some rows say that
the memory is not enough. Each of its parts takes 5 minutes at most. The machine may be without a network and have an
older transformers: what is missing travels along as wheels. PyTorch is not among them, the machine has its own (2.6 or
newer).

Where there is a network, on any machine, after `make setup`:

```bash
python -m scripts.device_check --prepare device_wheels --python 3.12
```

`--python` is the release on the machine with the GPU. Then there, in a copy of this repository with that folder, by the
Python that has torch; it needs pip (22.3 or newer) and venv as well:

```bash
python -m scripts.device_check --wheels device_wheels --output docs/gpu.md
```

It writes this page in both languages, and the numbers beside it as `gpu.json`. Where the packages are there already,
`--wheels` is left out. `--parts parity loss` runs these two parts only. What has been measured is kept in
`device_check_output`: a run that was interrupted, and a part whose time was up, go on where they were when the same
command is given again. A part that came to its end starts anew with `--again`. With `--dry-run` all shapes are tiny,
the CPU will do, and this page stays as it is.

Accelerators other than NVIDIA's take `--device mps` or `--device xpu`; only `parity` is meant for these.

""",
    "zh": """\
# 在 GPU 上

[English](gpu.md)

一个脚本在 GPU 上检查本包：各精度下的结果是否与已知结果一致，速度如何，显存是否与训练计划所说的相符。
它需要一块 80 GB 的设备；显存较小时，部分行会注明显存不足。每个部分最多 5 分钟。机器可以没有网络，transformers
也可以较旧：缺少的软件包以 wheel 的形式随行。其中没有 PyTorch，机器用自己的（2.6 或更新）。

在任何有网络的机器上，`make setup` 之后：

```bash
python -m scripts.device_check --prepare device_wheels --python 3.12
```

`--python` 是带 GPU 的机器上的 Python 版本。然后在那台机器上，在带有该文件夹的本仓库副本中，
用装有 torch 的 Python 运行；它还需要 pip（22.3 或更新）和 venv：

```bash
python -m scripts.device_check --wheels device_wheels --output docs/gpu.md
```

它写出本页的两种语言，数据则写入旁边的 `gpu.json`。如果软件包已经齐全，就省略 `--wheels`。`--parts parity loss`
只运行这两个部分。测得的结果保存在 `device_check_output` 中：运行中断或某部分超时后，再次执行同一命令即可接着运行。
已经运行完的部分用 `--again` 重新开始。使用 `--dry-run` 时，所有形状都很小，只用 CPU 即可，本页保持不变。

NVIDIA 以外的加速器用 `--device mps` 或 `--device xpu`；对它们只应运行 `parity`。

""",
}
NOT_RUN = {
    "en": "**It has not been run**: this was made on a machine without a GPU, where only the dry run was possible. "
    "What will be measured is said below.\n",
    "zh": "**它还没有运行过**：制作本包的机器没有 GPU，只能进行试运行。下面各节说明将要测量的内容。\n",
}
DRY = {
    "en": "**This is a dry run**: its numbers mean nothing.\n",
    "zh": "**这是试运行**：其中的数字没有意义。\n",
}
MACHINE = {
    "en": "{device}{memory}, {cores} CPU cores, torch {torch}, CUDA {cuda}, "
    "transformers {transformers}, Python {python}, "
    "fgclip2 {fgclip2}\n",
    "zh": "{device}{memory}，{cores} 个 CPU 核心，torch {torch}，CUDA {cuda}，"
    "transformers {transformers}，Python {python}，"
    "fgclip2 {fgclip2}\n",
}
NO_TABLE = {"en": "Not run.\n", "zh": "未运行。\n"}
ENDED = {"en": "This part did not come to its end: {}.\n", "zh": "本节没有运行完：{}。\n"}


def page(results: Results, language: str) -> str:
    """Return the page in a language."""
    texts = [HEAD[language]]
    machines = [content["machine"] for content in results.values() if "machine" in content]
    if not machines:
        texts.append(NOT_RUN[language])
    else:
        memory = f", {machines[0]['memory_gib']} GiB" if machines[0]["memory_gib"] else ""
        texts.append(MACHINE[language].format(**machines[0], memory=memory))
        if machines[0]["dry_run"]:
            texts.append("\n" + DRY[language])
    texts += (section(load_part(name), name, results, language) for name in PARTS)
    return "".join(texts)


def section(part: Part, name: str, results: Results, language: str) -> str:
    """Return what the page has of a part."""
    number, content = LANGUAGES.index(language), results.get(name)
    text = f"\n## {part.title[number]}\n\n`--parts {name}`\n\n{part.explanation[number]}\n"
    if content is None or not content["records"]:
        return f"{text}\n{NO_TABLE[language]}" if results else text
    text += f"\n{table(part.columns, content['records'], language)}"
    ended = content.get("ended", FAILED)
    return text if ended == COMPLETE else f"{text}\n{ENDED[language].format(in_language(ended, language))}"


def table(columns: tuple[Column, ...], records: list[Record], language: str) -> str:
    """Return a table; what went wrong in a row stands where its first value would."""
    number = LANGUAGES.index(language)
    lines = [f"| {' | '.join(column.title[number] for column in columns)} |", "|---" * len(columns) + "|"]
    for record in records:
        cells = [cell(record.get(column.key), column, language) for column in columns]
        if "problem" in record:
            kind, detail = (record["problem"][key] for key in ("kind", "detail"))
            empty = next((place for place, column in enumerate(columns) if column.key not in record), -1)
            of_kind = in_language(kind, language)
            separator = ": " if language == "en" else "："
            cells[empty] = f"{of_kind}{separator}{detail}".replace("|", "\\|") if detail else of_kind
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(value: Any, column: Column, language: str) -> str:
    """Return a value as the table has it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        missed = "**no**" if column.key == "held" else "no"
        return in_language("yes" if value else missed, language)
    return in_language(value, language) if isinstance(value, str) else format(value, column.form)


def in_language(text: str, language: str) -> str:
    """Return a label or a kind of problem in a language."""
    return CHINESE.get(text, text) if language == "zh" else text


def write_pages(results: Results, path: Path) -> None:
    """Write the page, and its Chinese twin beside it."""
    path.write_text(page(results, "en"), encoding="utf-8")
    path.with_name(f"{path.stem}_zh{path.suffix}").write_text(page(results, "zh"), encoding="utf-8")
