"""Scenes are written so that the reader of FineHARD reads them."""

from fgclip2.data.readers import read_finehard
from fgclip2.data.validation import validate
from fgclip2.drawings.scenes import NEGATIVES, SceneBuilder, write_scenes


def test_written_scenes_are_read_in_both_languages(tmp_path, table, drawings, photographs):
    write_scenes(tmp_path, SceneBuilder(table, {"noto": drawings}, photographs), count=3, seed=1)
    for language in ("en", "zh"):
        dataset = read_finehard(tmp_path / f"scenes_{language}.json", tmp_path)
        assert validate(dataset, "open").problems == []
        assert {record.language for record in dataset} == {language}
        regions = [region for record in dataset for region in record.regions]
        assert len(regions) >= 2 * len(dataset)
        assert {len(region.hard_negatives) for region in regions} == {NEGATIVES}
