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
from typing import Any

FOLDER = Path(__file__).parent


def metric_info(description: str | None, inputs: str | None, **features: Any) -> Any:
    """Return what a module tells `evaluate` of itself.

    Args:
        description: What it computes.
        inputs: What `compute` takes and returns.
        features: Inputs of each item: the name of a type, `[of the elements]` or `{name: feature}`.
    """
    import datasets
    import evaluate

    def typed(feature: Any) -> Any:
        if isinstance(feature, list):
            return datasets.Sequence(typed(feature[0]))
        if isinstance(feature, dict):
            return {name: typed(part) for name, part in feature.items()}
        return datasets.Value(feature)

    return evaluate.MetricInfo(
        description=description, citation="", inputs_description=inputs, features=datasets.Features(typed(features))
    )
