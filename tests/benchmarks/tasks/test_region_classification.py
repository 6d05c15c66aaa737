"""Classification of boxes, with numbers known by hand."""

import pytest

from fgclip2.benchmarks.catalogue import find_benchmark
from fgclip2.benchmarks.checking import check
from fgclip2.benchmarks.tasks import (
    RegionData,
    RegionSettings,
    RetrievalData,
    RetrievalSettings,
    region_classification,
    retrieval,
)

from ...data.samples import write_json
from .colors import values

LEFT, RIGHT = (0.0, 0.0, 16.0, 16.0), (16.0, 0.0, 32.0, 16.0)


@pytest.mark.parametrize(("language", "names"), [("en", ["red", "green", "blue"]), ("zh", ["红", "绿", "蓝"])])
def test_boxes_are_classified_by_what_is_in_them(encoder, picture, broken, language, names):
    images = [picture("a.png", "red", "green"), broken, picture("b.png", "blue")]
    # The second box of the first image is labelled wrongly: green, called blue.
    data = RegionData(images, [[LEFT, RIGHT], [LEFT], [RIGHT]], [[0, 2], [1], [2]], {language: names})
    settings = RegionSettings(method="crop", templates="none")
    scores = region_classification.evaluate(data, encoder, settings, language)
    assert scores.per_item["rank"].tolist() == [1, 3, 0, 1]
    got = values(scores)
    assert got["top1"] == pytest.approx(2 / 3)
    assert got["top5"] == 1
    assert got["top1_macro"] == pytest.approx((1 + 1 / 2) / 2)
    assert len(scores.left_out) == 1


def test_checking_says_of_an_image_what_a_run_says(encoder, picture, broken, tmp_path):
    """Which is not the address of a buffer."""
    picture("a.png", "red")
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": broken.path.name}],
        "annotations": [{"image_id": each, "bbox": [0, 0, 9, 9], "category_id": 1} for each in (1, 2)],
        "categories": [{"id": 1, "name": "红"}],
    }
    write_json(tmp_path / "valid_category_data_total_zh.json", content)
    benchmark = find_benchmark("boxclass-cn")
    (problem,) = check(benchmark, tmp_path, opened=True).problems
    data = benchmark.read(tmp_path, None, benchmark.paper)
    settings = RegionSettings(method="crop", templates="none")
    assert region_classification.evaluate(data, encoder, settings, "zh").left_out == [problem]
    assert str(problem) == f"{broken}: 6 bytes of no known image format"


def test_nothing_readable_is_an_error(encoder, broken):
    with pytest.raises(
        ValueError, match=r"no image can be used; 1 can't be read: .*坏\.png: 6 bytes of no known image"
    ):
        retrieval.evaluate(RetrievalData([broken], ["红"], [(0, 0)]), encoder, RetrievalSettings(), "zh")
    regions = RegionData([broken], [[(0, 0, 1, 1)]], [[0]], {"zh": ["红"]})
    with pytest.raises(ValueError, match="no image can be used"):
        region_classification.evaluate(regions, encoder, RegionSettings(method="crop"), "zh")
