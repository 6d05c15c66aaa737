"""Metrics of this package as modules of Hugging Face's `evaluate`, to be loaded by path, also offline.

```python
import evaluate
from fgclip2.benchmarks import evaluate_modules

recall = evaluate.load(f"{evaluate_modules.FOLDER}/retrieval_recall.py")
recall.compute(predictions=[[0.9, 0.2, 0.3], [0.1, 0.2, 0.8]], references=[[0], [1, 2]], ks=[1])  # {"recall@1": 1.0}
```

`retrieval_recall`, `top_k_accuracy`, `hard_negative_wins`, `box_average_precision`, `mean_class_iou`: the names differ
from those on the Hub.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
