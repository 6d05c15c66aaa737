"""Classification of images, with numbers known by hand."""

import pytest

from fgclip2.benchmarks.tasks import ClassificationData, ClassificationSettings, classification

from .colors import values


def test_classes_in_templates(encoder, picture, broken):
    images = [picture("a.png", "red"), picture("b.png", "green"), broken, picture("c.png", "green")]
    names = {"en": ["red", "green"], "zh": ["红", "绿"]}
    data = ClassificationData(images, [0, 1, 0, 0], names)
    for language in names:
        for templates in ("none", "imagenet"):
            scores = classification.evaluate(data, encoder, ClassificationSettings(templates=templates), language)
            assert scores.per_item["rank"].tolist() == [1, 1, 0, 2]
            assert values(scores)["top1_macro"] == pytest.approx((1 / 2 + 1) / 2)


def test_images_after_the_last_whole_batch_do_not_count_if_so_set(encoder, picture):
    images = [picture(f"{index}.png", "red") for index in range(5)]
    data = ClassificationData(images, [0, 0, 0, 1, 1], {"en": ["red", "green"], "zh": ["红", "绿"]})
    settings = ClassificationSettings(templates="none", whole_batches_of=2)
    scores = classification.evaluate(data, encoder, settings, "zh")
    assert scores.per_item["rank"].tolist() == [1, 1, 1, 2, 0]
    assert scores.metrics["top1"].value == pytest.approx(3 / 4)


def test_fewer_images_than_a_whole_batch_are_an_error(encoder, picture):
    data = ClassificationData([picture("a.png", "red")], [0], {"en": ["red"]})
    with pytest.raises(ValueError, match="1 images are no whole batch; whole_batches_of=128"):
        classification.evaluate(data, encoder, ClassificationSettings(whole_batches_of=128), "en")
