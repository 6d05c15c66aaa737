"""The kinds of benchmarks: each file has the settings, the data and the evaluation of one.

A kind is a module with a function `evaluate(data, encoder, settings, language) -> Scores`; results call it by the name
of its file. What kinds share is in `base.py` (data sets, settings), `encoding.py`, `labels.py` and `scores.py`.
"""

from ..base import Box, DataSet, LabelSettings, Problem, Settings, as_dict, change
from .classification import ClassificationData, ClassificationSettings
from .detection import DetectionData, DetectionSettings
from .hard_negatives import HardNegativeData, HardNegativeSettings
from .matching import MatchingData, MatchingSettings
from .region_classification import RegionData, RegionSettings
from .retrieval import RetrievalData, RetrievalSettings
from .segmentation import SegmentationData, SegmentationSettings

__all__ = [
    "Box",
    "ClassificationData",
    "ClassificationSettings",
    "DataSet",
    "DetectionData",
    "DetectionSettings",
    "HardNegativeData",
    "HardNegativeSettings",
    "LabelSettings",
    "MatchingData",
    "MatchingSettings",
    "Problem",
    "RegionData",
    "RegionSettings",
    "RetrievalData",
    "RetrievalSettings",
    "SegmentationData",
    "SegmentationSettings",
    "Settings",
    "as_dict",
    "change",
]
