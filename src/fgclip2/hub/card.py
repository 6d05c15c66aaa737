"""The model card of an exported folder, in English and Chinese; its snippets run as they stand, in the folder."""

from string import Template
from typing import Any

_CARD = Template("""---
license: $license
language:
- en
- zh
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags:
- fgclip2
- clip
- siglip
- bilingual
---

# $name

[中文](#中文)

A bilingual (English and Chinese) image-text model of the FG-CLIP 2 architecture: embeddings of images, texts and
regions, and dense features. Layers x width: $vision (vision), $text (text); embeddings of $width values.
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
    probabilities = model(**inputs).logits_per_image.sigmoid()  # (images, texts)
```

Regions, compared with short phrases of the walk `box`, and long captions (up to 196 tokens):

```python
regions = processor(images=[image], boxes=[[[0, 0, 320, 240], [320, 240, 640, 480]]])
phrases = processor(text=["the upper left part", "the lower right part"], walk_type="box")
caption = processor(text="A plain red picture, without any object in it.", walk_type="long")
with torch.no_grad():
    region_features = model.get_image_region_features(**regions)[0]  # (boxes, D)
    phrase_features = model.get_text_features(**phrases, walk_type="box")  # (phrases, D)
    caption_features = model.get_text_features(**caption, walk_type="long")  # (1, D)
similarity = torch.cosine_similarity(region_features[:, None], phrase_features[None], dim=-1)
```

As a pipeline; each score is a probability of its own, they need not sum to 1:

```python
from transformers import pipeline

classifier = pipeline("zero-shot-image-classification", model=checkpoint, trust_remote_code=True)
scores = classifier(image, candidate_labels=["red", "blue"], hypothesis_template="a {} picture")
```

sentence-transformers 6.2 or later loads it by `SentenceTransformer(checkpoint, trust_remote_code=True)`, for images and
short texts; `processing_kwargs={"text": {"walk_type": "long"}}` of `encode` is for long ones.

## 中文

这是 FG-CLIP 2 结构的中英双语图文模型：提供图像、文本、区域的向量以及稠密特征。
层数 x 宽度：$vision（视觉），$text（文本）；向量维度 $width。
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
inputs = processor(text=["一个红色方块", "一只黑猫"], images=[image], return_tensors="pt")
with torch.no_grad():
    probabilities = model(**inputs).logits_per_image.sigmoid()  # (图像数, 文本数)
```

区域特征与 `box` 方式编码的短语比较；长文本（最多 196 个词元）用 `long`：

```python
regions = processor(images=[image], boxes=[[[0, 0, 320, 240], [320, 240, 640, 480]]])
phrases = processor(text=["左上部分", "右下部分"], walk_type="box")
caption = processor(text="一张纯红色的图片，里面没有任何物体。", walk_type="long")
with torch.no_grad():
    region_features = model.get_image_region_features(**regions)[0]  # (区域数, D)
    phrase_features = model.get_text_features(**phrases, walk_type="box")  # (短语数, D)
    caption_features = model.get_text_features(**caption, walk_type="long")  # (1, D)
similarity = torch.cosine_similarity(region_features[:, None], phrase_features[None], dim=-1)
```

用 pipeline；每个分数都是独立的概率，总和不必为 1：

```python
from transformers import pipeline

classifier = pipeline("zero-shot-image-classification", model=checkpoint, trust_remote_code=True)
scores = classifier(image, candidate_labels=["红色", "蓝色"], hypothesis_template="一张{}的图片")
```

sentence-transformers 6.2 及以上用 `SentenceTransformer(checkpoint, trust_remote_code=True)` 加载，
用于图像和短文本；长文本请给 `encode` 传 `processing_kwargs={"text": {"walk_type": "long"}}`。
""")


def model_card(name: str, license: str, config: dict[str, Any]) -> str:
    """Return the card as Markdown with the hub's front matter.

    Args:
        name: Title.
        license: Licence of the weights, an identifier of the hub, e.g. `"apache-2.0"`.
        config: Content of config.json.
    """
    towers = {
        tower: f"{config[f'{tower}_config']['num_hidden_layers']} x {config[f'{tower}_config']['hidden_size']}"
        for tower in ("vision", "text")
    }
    return _CARD.substitute(name=name, license=license, width=config["vision_config"]["hidden_size"], **towers)
