"""How the package is built stays within its bounds."""

from scripts import structure


def test_helpers_with_one_caller_are_few():
    rooms, references = structure.count()
    bound = structure.BOUNDS["private functions with one caller per 1,000 code lines"]
    assert structure.one_caller_rate(rooms["all"], references) <= bound


def test_a_call_of_encode_regions_is_followed_in_few_steps():
    passed = structure.trace_encode_regions()
    assert len(passed) <= structure.BOUNDS["functions passed"], passed
    assert len({file for file, _ in passed}) <= structure.BOUNDS["files passed"], passed


def test_the_table_has_every_room(capsys):
    structure.main()
    printed = capsys.readouterr().out
    for name in ("embedding", "modeling", "all", "encode_regions passes"):
        assert name in printed
