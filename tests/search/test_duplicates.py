"""Groups of near-duplicates: against a slow, obvious form, in blocks, and on files."""

from pathlib import Path

import numpy as np
import pytest

from fgclip2.search import ImageIndex, duplicates, find_duplicates
from fgclip2.search.duplicates import star_groups
from tests.search.fakes import FakeEmbedder


def slow_groups(vectors, order, threshold):
    """The same one by one: each joins the nearest centre so far, or becomes one."""
    centres, centre_of = [], {}
    for row in order:
        near = max(centres, key=lambda centre: vectors[row] @ vectors[centre], default=None)
        if near is not None and vectors[row] @ vectors[near] >= threshold:
            centre_of[row] = near
        else:
            centres.append(row)
            centre_of[row] = row
    return [centre_of[row] for row in range(len(vectors))]


def clustered(count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(7, 12))[generator.integers(0, 7, count)] + 0.3 * generator.normal(size=(count, 12))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.0, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("count", [0, 1, 2, 61])
def test_blocks_give_the_groups_of_one_by_one(monkeypatch, count, threshold):
    monkeypatch.setattr(duplicates, "ROWS_PER_BLOCK", 8)
    monkeypatch.setattr(duplicates, "COLUMNS_PER_BLOCK", 3)
    vectors = clustered(count)
    order = np.random.default_rng(1).permutation(count)
    centre_of, cosines = star_groups(vectors, order, threshold)
    assert centre_of.tolist() == slow_groups(vectors, order, threshold)
    members = centre_of != np.arange(count)
    expected = (vectors * vectors[centre_of]).sum(1)
    np.testing.assert_allclose(cosines, np.where(members, expected, 1), atol=1e-6)
    assert (cosines >= threshold).all()


def test_a_chain_is_no_group():
    angles = np.radians([0, 15, 30])  # cosines of 0.966 with the next one, 0.866 over two
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    assert star_groups(vectors, np.array([0, 1, 2]), 0.95)[0].tolist() == [0, 0, 2]


def test_many_equal_images_are_one_group_without_all_pairs():
    vectors = np.broadcast_to(np.float32([0.6, 0.8]), (30_000, 2))  # whose pairs would take 450 million places
    centre_of, _ = star_groups(vectors, np.arange(30_000), 0.99)
    assert not centre_of.any()


def test_the_largest_file_stands_for_its_group(tmp_path):
    folder = tmp_path / "照片"
    folder.mkdir()
    # A fake embedder embeds a file as the number in its name and its bytes: all in the direction of the bytes here.
    for name, size in {"猫1.png": 500, "cat2.png": 800, "副本/猫1.png": 500, "sign900.png": 9}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    index = ImageIndex.build(folder, FakeEmbedder())
    index.vectors = index.vectors / np.linalg.norm(index.vectors, axis=1, keepdims=True)
    before = sorted(path.stat().st_mtime_ns for path in folder.glob("*.png"))
    (group,) = find_duplicates(index, 0.99)
    assert (group.best.path, group.best.size, group.best.score) == (folder / "cat2.png", 800, 1)
    assert [image.path for image in group.others] == [folder / "副本/猫1.png", folder / "猫1.png"]
    assert all(image.score == pytest.approx(1, abs=1e-4) for image in group.others)
    assert before == sorted(path.stat().st_mtime_ns for path in folder.glob("*.png"))
    with pytest.raises(ValueError, match="threshold must be a number from 0 to 1, got 95"):
        find_duplicates(index, 95)


def test_an_index_without_images_has_no_groups(tmp_path):
    Path(tmp_path / "空").mkdir()
    assert find_duplicates(ImageIndex.build(tmp_path / "空", FakeEmbedder())) == []
