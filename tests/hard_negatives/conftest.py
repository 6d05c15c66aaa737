from functools import cache

from fgclip2.hard_negatives import KINDS, generate_hard_negatives


@cache
def texts(text: str, *kinds: str) -> set[str]:
    """Everything that can be made of a text."""
    return {negative.text for negative in generate_hard_negatives(text, count=10_000, kinds=kinds or KINDS)}
