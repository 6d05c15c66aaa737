"""What was not asked for longest is forgotten first."""

from fgclip2.serving.lru import LeastRecentlyUsed


def test_the_least_recently_used_goes_first():
    kept = LeastRecentlyUsed(2)
    kept.put("一", 1)
    kept.put("二", 2)
    assert kept.get("一") == 1
    kept.put("三", 3)
    assert [kept.get(key) for key in "一二三"] == [1, None, 3]
    nothing = LeastRecentlyUsed(0)
    nothing.put("一", 1)
    assert len(nothing) == 0
