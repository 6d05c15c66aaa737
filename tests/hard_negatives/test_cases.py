"""Every phrase of `cases.py`; a failure lists all that are wrong."""

from .cases import CHINESE, ENGLISH, KEPT, NEVER
from .conftest import texts


def test_hand_checked_negatives_are_made():
    missing = [
        f"{negative!r} is not made of {text!r} ({kind})"
        for text, kind, negative in [*ENGLISH, *CHINESE]
        if negative not in texts(text, kind)
    ]
    assert missing == []


def test_there_are_sixty_cases_in_each_language():
    assert min(len(ENGLISH), len(CHINESE)) >= 60


def test_hand_checked_words_are_left_alone():
    changed = [
        f"{negative!r} is made of {text!r} ({kind}), where {kept or 'everything'!r} must stay"
        for text, kind, kept in KEPT
        for negative in texts(text, kind)
        if kept is None or kept not in negative
    ]
    assert changed == []


def test_what_may_be_true_is_not_made():
    made = [f"{wrong!r} is made of {text!r} ({kind})" for text, kind, wrong in NEVER if wrong in texts(text, kind)]
    assert made == []
