"""The model card of an exported folder, in English and Chinese; its snippets run as they stand, in the folder."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

from huggingface_hub import EvalResult, ModelCardData, metadata_load

from ..modeling.auto import Family
from ..modeling.weights import find_file

Score = tuple[str, str, str, str, float]  # (benchmark, kind of benchmark, language, metric, share of 1)
UNKNOWN = "unknown"  # what the hub calls a licence that nobody has named
LICENSE = r"[a-z0-9]+([.-][a-z0-9]+)*"  # its identifiers


@dataclass(frozen=True)
class Facts:
    """The statements of a card that the weights don't make.

    Args:
        license: Licence of the weights, an identifier of the hub, e.g. `"apache-2.0"`.
        base_model: Id on the hub of the model that this one was made from.
        datasets: Ids on the hub of the data that it was trained on.
        results: Its scores.
        precisions: Precisions of the ONNX graphs in the folder `onnx`; none: there is no such folder.

    Raises:
        ValueError: The licence is no such identifier, or an id is none.
    """

    license: str = UNKNOWN
    base_model: str | None = None
    datasets: Sequence[str] = ()
    results: Sequence[Score] = ()
    precisions: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(LICENSE, self.license):
            raise ValueError(
                f"`license` must be an identifier of the hub such as 'apache-2.0', 'cc-by-4.0' or 'other', got "
                f"{self.license!r}"
            )
        for name, values in (("base_model", filter(None, [self.base_model])), ("datasets", self.datasets)):
            for value in values:
                if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", value, re.ASCII):
                    raise ValueError(f"`{name}` must be ids of the hub such as 'namespace/name', got {value!r}")


def stated_license(source: str | os.PathLike, **hub_arguments: Any) -> str:
    """Return the licence that the card of a checkpoint names, an identifier of the hub; [`UNKNOWN`] if it names none.

    Args:
        source, hub_arguments: What [`locate_checkpoint`] returned.
    """
    import yaml

    path = find_file(source, "README.md", **hub_arguments)
    try:
        stated = (metadata_load(path) or {}).get("license") if path else None
    except (ValueError, yaml.YAMLError):  # which the hub would not take either
        stated = None
    return stated if isinstance(stated, str) and re.fullmatch(LICENSE, stated) else UNKNOWN


def license_of(model: Any) -> str:
    """Return the licence that the card beside the weights of a loaded model names; [`UNKNOWN`] if there is none.

    The card is looked for in the folder, or the cache of the hub, that the model was loaded from. Nothing is fetched.
    """
    source = getattr(model.config, "_name_or_path", "")
    revision = getattr(model.config, "_commit_hash", None)
    try:
        return stated_license(source, local_files_only=True, revision=revision) if source else UNKNOWN
    except OSError:  # the folder is gone, or nothing is in the cache
        return UNKNOWN


_STOCK_CODE = """```python
from transformers import AutoImageProcessor, AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
image_processor = AutoImageProcessor.from_pretrained(checkpoint, trust_remote_code=False)
ids = tokenizer($stock_texts, padding="max_length", truncation=True, max_length=$short_length, return_tensors="pt")
with torch.no_grad():
    text_vectors = model.get_text_features(**ids$stock_walk)
    image_vectors = model.get_image_features(**image_processor(image, $stock_images))
```"""

_CARD = Template("""---
$front_matter
---

# $name

[中文](#中文)

$about
Layers x width: $vision (vision), $text (text); embeddings of $width values; $parameters parameters.
Weights: $license. The code files in this folder: Apache-2.0.

It loads with transformers 4.57 and with 5.18 or later (not 5.0 to 5.17). `trust_remote_code=True` runs the `.py` files
of this folder. From the hub, pin the commit that you have read, `revision="<40 digits of the commit>"`, in every
`from_pretrained`: a branch may change under you. With `pip install fgclip2` and `import fgclip2` the same calls run
that package's code instead, and need no `trust_remote_code`.

```python
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

checkpoint = "."  # this folder
model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)

image = Image.new("RGB", (640, 480), "red")  # or Image.open("photo.jpg")
inputs = processor(text=["a red square", "a black cat"], images=[image], return_tensors="pt")
with torch.no_grad():
    probabilities = model(**inputs).logits_per_image.$score  # (images, texts)
```

$more

As a pipeline; $score_about:

```python
from transformers import pipeline

classifier = pipeline("zero-shot-image-classification", model=checkpoint, trust_remote_code=True)
scores = classifier(image, candidate_labels=["red", "blue"], hypothesis_template="a {} picture")
```

sentence-transformers 6.2 or later loads it by `SentenceTransformer(checkpoint, trust_remote_code=True)`, for images and
$st_texts.

Without `trust_remote_code`, `AutoTokenizer` and `AutoImageProcessor` are transformers' own classes. They give the same
ids where `padding="max_length"` is said in every call, and $stock_pixels; $stock_about:

$stock_code
$graphs$results
## 中文

$about_zh
层数 x 宽度：$vision（视觉），$text（文本）；向量维度 $width；参数量 $parameters。
权重许可：$license；本文件夹中的代码文件：Apache-2.0。

支持 transformers 4.57 以及 5.18 及以上版本（不支持 5.0 至 5.17）。
`trust_remote_code=True` 会运行本文件夹中的 `.py` 文件。从 hub 加载时，请在每个 `from_pretrained` 中用
`revision="<40 位提交号>"` 固定您审阅过的提交：分支随时可能改变。
安装 `pip install fgclip2` 并 `import fgclip2` 之后，同样的调用会运行该软件包的代码，不再需要 `trust_remote_code`。

```python
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

checkpoint = "."  # 本文件夹
model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)

image = Image.new("RGB", (640, 480), "red")  # 或 Image.open("照片.jpg")
inputs = processor(text=$captions_zh, images=[image], return_tensors="pt")
with torch.no_grad():
    probabilities = model(**inputs).logits_per_image.$score  # (图像数, 文本数)
```

$more_zh

用 pipeline；$score_about_zh：

```python
from transformers import pipeline

classifier = pipeline("zero-shot-image-classification", model=checkpoint, trust_remote_code=True)
scores = classifier(image, candidate_labels=$labels_zh, hypothesis_template=$template_zh)
```

sentence-transformers 6.2 及以上用 `SentenceTransformer(checkpoint, trust_remote_code=True)` 加载，
用于图像和$st_texts_zh。

不加 `trust_remote_code` 时，`AutoTokenizer` 和 `AutoImageProcessor` 是 transformers 自带的类。
只要每次调用都写明 `padding="max_length"`，得到的编号就相同；$stock_pixels_zh。$stock_about_zh：

$stock_code
$graphs_zh$results_zh""")

_GRAPHS = Template("""
$about

```python
from fgclip2_onnx import OnnxEmbedder

embedder = OnnxEmbedder.from_pretrained("onnx", precision="$precision")
vectors = embedder.encode_images([image]), embedder.encode_texts($texts)  # float32, L2-normalised
```
""")
_ABOUT_GRAPHS = {
    "graphs": """\
The folder `onnx` has the same model as ONNX graphs ({precisions}), for `pip install fgclip2-onnx`, which needs neither
torch nor transformers; its README says how far their vectors are from those of torch:""",
    "graphs_zh": """\
文件夹 `onnx` 中是同一模型的 ONNX 计算图（{precisions}），用 `pip install fgclip2-onnx` 运行，
不需要 torch 和 transformers；与 torch 向量的差别见其中的 README：""",
}

_RESULTS = Template("""
$title

| $benchmark | $metric | % |
|---|---|---|
$rows
""")


_REGIONS = """\
Regions, compared with short phrases of the walk `box`, and long captions (up to $long_length tokens):

```python
regions = processor(images=[image], boxes=[[[0, 0, 320, 240], [320, 240, 640, 480]]])
phrases = processor(text=["the upper left part", "the lower right part"], walk_type="box")
caption = processor(text="A plain red picture, without any object in it.", walk_type="long")
with torch.no_grad():
    region_features = model.get_image_region_features(**regions)[0]  # (boxes, D)
    phrase_features = model.get_text_features(**phrases, walk_type="box")  # (phrases, D)
    caption_features = model.get_text_features(**caption, walk_type="long")  # (1, D)
similarity = torch.cosine_similarity(region_features[:, None], phrase_features[None], dim=-1)
```"""

_REGIONS_ZH = """\
区域特征与 `box` 方式编码的短语比较；长文本（最多 $long_length 个词元）用 `long`：

```python
regions = processor(images=[image], boxes=[[[0, 0, 320, 240], [320, 240, 640, 480]]])
phrases = processor(text=$phrases_zh, walk_type="box")
caption = processor(text=$caption_zh, walk_type="long")
with torch.no_grad():
    region_features = model.get_image_region_features(**regions)[0]  # (区域数, D)
    phrase_features = model.get_text_features(**phrases, walk_type="box")  # (短语数, D)
    caption_features = model.get_text_features(**caption, walk_type="long")  # (1, D)
similarity = torch.cosine_similarity(region_features[:, None], phrase_features[None], dim=-1)
```"""

_OF_LONG_TEXTS = {
    "more": _REGIONS,
    "more_zh": _REGIONS_ZH,
    "st_texts": 'short texts; `processing_kwargs={"text": $long_texts}` of `encode` is for long ones',
    "st_texts_zh": '短文本；长文本请给 `encode` 传 `processing_kwargs={"text": $long_texts}`',
    "stock_walk": ', walk_type="short"',
}

_RANKING = """\
Pairs worth it, compared token by token: the mean match probability of two cross encoders, plus the cosine:

```python
with torch.no_grad():
    outputs = model(**inputs)
    images = outputs.image_tokens.expand(2, -1, -1)  # the image with each of the two texts
    scores_of_pairs = model.rank_scores(images, outputs.text_tokens, inputs["attention_mask"])  # (pairs,)
```"""

_RANKING_ZH = """\
对值得的图文对逐词元比较：两个交叉编码器的平均匹配概率，加上余弦：

```python
with torch.no_grad():
    outputs = model(**inputs)
    images = outputs.image_tokens.expand(2, -1, -1)  # 图像与两条文本各配一对
    scores_of_pairs = model.rank_scores(images, outputs.text_tokens, inputs["attention_mask"])  # (图文对数,)
```"""

# What the card of one family says, and that of another does not, by model type.
_OF_FAMILY = {
    "fgclip2": {
        **_OF_LONG_TEXTS,
        "stock_texts": '["a red square", "一只黑猫"]',
        "stock_images": 'max_num_patches=256, return_tensors="pt"',
        "stock_pixels": "the same pixels for a `max_num_patches` that is an integer",
        "stock_pixels_zh": "`max_num_patches` 为整数时像素也相同",
        "stock_about": """\
`padding=True` pads to the longest text whatever tokenizer.json says, which gives other vectors and a warning, and
"auto" is no `max_num_patches` to them""",
        "stock_about_zh": """\
无论 tokenizer.json 怎么写，`padding=True` 都只补到最长的文本，得到的向量会不同，模型会给出警告；
这些类的 `max_num_patches` 没有 "auto" 这种设置""",
        "about": """\
A bilingual (English and Chinese) image-text model of the FG-CLIP 2 architecture: embeddings of images, texts and
regions, and dense features.""",
        "about_zh": "这是 FG-CLIP 2 结构的中英双语图文模型：提供图像、文本、区域的向量以及稠密特征。",
        "score": "sigmoid()",
        "score_about": "each score is a probability of its own, they need not sum to 1",
        "score_about_zh": "每个分数都是独立的概率，总和不必为 1",
        "long_texts": '{"walk_type": "long"}',
        "captions_zh": '["一个红色方块", "一只黑猫"]',
        "phrases_zh": '["左上部分", "右下部分"]',
        "caption_zh": '"一张纯红色的图片，里面没有任何物体。"',
        "labels_zh": '["红色", "蓝色"]',
        "template_zh": '"一张{}的图片"',
    },
    "fgclip": {
        **_OF_LONG_TEXTS,
        "stock_texts": '["a red square", "a black cat"]',
        "stock_images": 'return_tensors="pt"',
        "stock_pixels": "pixels within one level of 255",
        "stock_pixels_zh": "像素相差不超过 255 级中的一级",
        "stock_about": "texts are not cut by themselves; `padding=True` gives the same vectors here",
        "stock_about_zh": "文本不会自动截断；这里 `padding=True` 得到的向量相同",
        "about": """\
An image-text model of the FG-CLIP architecture, the first version
([arXiv 2505.05071](https://arxiv.org/abs/2505.05071)): embeddings of images, texts and regions, and dense features.
Images become squares of $image_size pixels, whatever their aspect ratio. Texts should be English: the vocabulary is
that of CLIP, to which Chinese characters are bytes.""",
        "about_zh": """\
这是 FG-CLIP 第一版（[arXiv 2505.05071](https://arxiv.org/abs/2505.05071)）结构的图文模型：
提供图像、文本、区域的向量以及稠密特征。图像一律缩放成边长 $image_size 像素的正方形，不保持长宽比。
文本请用英文：词表是 CLIP 的，中文字符会被拆成字节。""",
        "score": "softmax(-1)",
        "score_about": "the scores of an image are a softmax over the labels, and sum to 1",
        "score_about_zh": "每张图像的分数是对各标签的 softmax，总和为 1",
        # Texts of few tokens too: without a walk the model takes the head by the length.
        "long_texts": '{"padding": "max_length", "max_length": 248}',
        "captions_zh": '["a red square", "a black cat"]',
        "phrases_zh": '["the upper left part", "the lower right part"]',
        "caption_zh": '"A plain red picture, without any object in it."',
        "labels_zh": '["red", "blue"]',
        "template_zh": '"a {} picture"',
    },
    "r2d2": {
        "more": _RANKING,
        "more_zh": _RANKING_ZH,
        "st_texts": "texts",
        "st_texts_zh": "文本",
        "stock_walk": "",
        "stock_texts": '["a red square", "一只黑猫"]',
        "stock_images": 'return_tensors="pt"',
        "stock_pixels": "pixels within one level of 255",
        "stock_pixels_zh": "像素相差不超过 255 级中的一级",
        "stock_about": "texts are not cut by themselves; padding is masked, and `padding=True` gives the same vectors",
        "stock_about_zh": "文本不会自动截断；补齐的部分被遮住，`padding=True` 得到的向量相同",
        "about": """\
An image-text model of the R2D2 architecture ([arXiv 2205.03860](https://arxiv.org/abs/2205.03860)): vectors of images
and texts, and two cross encoders that compare pairs (none in PRD2). Images become squares of $image_size pixels,
whatever their aspect ratio. Texts should be Chinese; they have up to $short_length tokens.""",
        "about_zh": """\
这是 R2D2（[arXiv 2205.03860](https://arxiv.org/abs/2205.03860)）结构的图文模型：提供图像和文本的向量，
以及比较图文对的两个交叉编码器（PRD2 没有）。图像一律缩放成边长 $image_size 像素的正方形，不保持长宽比。
文本请用中文，最多 $short_length 个词元。""",
        "score": "softmax(-1)",
        "score_about": "the scores of an image are a softmax over the labels, and sum to 1",
        "score_about_zh": "每张图像的分数是对各标签的 softmax，总和为 1",
        "captions_zh": '["一个红色方块", "一只黑猫"]',
        "labels_zh": '["红色", "蓝色"]',
        "template_zh": '"一张{}的图片"',
    },
}

_LANGUAGES = {"fgclip2": ["en", "zh"], "fgclip": ["en"], "r2d2": ["zh"]}
_TAGS = {
    "fgclip2": ["fgclip2", "clip", "siglip", "bilingual"],
    "fgclip": ["fgclip", "clip"],
    "r2d2": ["r2d2", "clip", "reranking"],
}


def model_card(name: str, facts: Facts, family: Family, model: Any, processor: Any) -> str:
    """Return the card as Markdown with the hub's front matter.

    Args:
        name: Title.
        facts: What only the user knows, and the model's scores.
        family: Family of the model.
        model, processor: Of which the card gives sizes.
    """
    scores = [
        EvalResult(
            task_type=kind.replace("_", "-"),
            dataset_type=benchmark,
            dataset_name=f"{benchmark} ({language})",
            metric_type=metric,
            metric_value=round(value, 6),
        )
        for benchmark, kind, language, metric, value in facts.results
    ]
    data = ModelCardData(
        license=facts.license,
        language=_LANGUAGES[family.model_type],
        library_name="transformers",
        pipeline_tag="zero-shot-image-classification",
        tags=_TAGS[family.model_type],
        base_model=facts.base_model,
        datasets=list(facts.datasets) or None,
        model_name=name if scores else None,
        eval_results=scores or None,
    )
    rows = "\n".join(
        f"| {score.dataset_type} | {score.metric_type} | {100 * score.metric_value:.1f} |" for score in scores
    )
    titles = {
        "results": {"title": "Results of `fgclip2 bench run`:", "benchmark": "Benchmark", "metric": "Metric"},
        "results_zh": {"title": "`fgclip2 bench run` 的结果：", "benchmark": "评测", "metric": "指标"},
    }
    tables = {place: _RESULTS.substitute(words, rows=rows) if rows else "" for place, words in titles.items()}
    graphs = dict.fromkeys(_ABOUT_GRAPHS, "")
    if facts.precisions:
        words = {"precision": facts.precisions[0], "texts": _OF_FAMILY[family.model_type]["stock_texts"]}
        for place, about in _ABOUT_GRAPHS.items():
            graphs[place] = _GRAPHS.substitute(words, about=about.format(precisions=", ".join(facts.precisions)))
    towers = {"vision": model.config.vision_config, "text": model.config.text_config}
    parts = {**_OF_FAMILY[family.model_type], "stock_code": _STOCK_CODE}
    if not getattr(model.config, "has_cross_encoders", True):
        parts = {**parts, "more": "It has no cross encoders.", "more_zh": "它没有交叉编码器。"}
    card = Template(Template(_CARD.safe_substitute(parts)).safe_substitute(parts))  # twice, for parts name others
    return card.substitute(
        {**tables, **graphs},
        front_matter=data.to_yaml(),
        name=name,
        license=facts.license,
        width=model.embedding_size,
        parameters=f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        image_size=getattr(towers["vision"], "image_size", None),  # of families with squares
        short_length=processor.text_length("caption"),
        long_length=processor.text_length("long_caption") if "long_caption" in processor.text_roles else None,
        **{tower: f"{config.num_hidden_layers} x {config.hidden_size}" for tower, config in towers.items()},
    )
