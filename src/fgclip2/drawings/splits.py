"""Who is trained on and who is not: the splits of the demo data, all in this file.

Training and shipping use permissive licences only; share-alike and GPL material serves validation and tests and is
never shipped.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

ArtistSplit = Literal["train", "validation", "style", "test"]
BackgroundSplit = Literal["train", "validation", "test"]

# The three Fluent sets are one design in three renderings, so they stay on one side. EmojiOne 1 and EmojiTwo
# (EmojiOne 2) are different drawings, but by the same company: validation is somewhat easier than the test.
ARTIST_SPLITS: dict[str, ArtistSplit] = {
    "noto": "train",
    "noto-v1": "train",
    "fluent-emoji-3d": "train",
    "fluent-emoji-flat": "train",
    "fluent-emoji": "train",
    "emojitwo": "train",
    "fxemoji": "train",
    "streamline": "train",
    "emojione-v1": "validation",  # share-alike
    "openmoji": "style",  # share-alike; black outlines, a hard change of style
    "twemoji": "test",  # no setting may be chosen by looking at it
}

# Photographs by file name: nobody meets the same photograph, or a crop of it, in two splits.
BACKGROUND_SPLITS: dict[str, BackgroundSplit] = {
    "aitzgorri_by_Aitzol_Berasategi": "train",
    "friends_by_Aitzol_Berasategi": "train",
    "life_by_Aitzol_Berasategi": "train",
    "Picture_0B_by_freespace": "train",
    "Picture_1A_by_freespace": "train",
    "seeding_by_Clements_Engelhardt": "train",
    "umang_by_Abhishek_Mudgal": "train",
    "sunset_by_Aitzol_Berasategi": "validation",
    "Bridge_by_Sander_Klootwijk": "validation",  # share-alike or GPL from here to the end of each split
    "greentock_by_Peter_Nerlich": "validation",
    "Blinds": "validation",
    "Garden": "validation",
    "LadyBird": "validation",
    "TwoWings": "validation",
    "picosdeeuropa_by_Aitzol_Berasategi": "test",
    "Wine_by_Jakkub_Mede": "test",
    "Dragonfly_by_Bolly": "test",
    "Kleiber_by_Lukas_Baubkus": "test",
    "free_by_Peter_Nerlich": "test",
    "Aqua": "test",
    "Dune": "test",
    "FreshFlower": "test",
    "GreenMeadow": "test",
    "RainDrops": "test",
    "Storm": "test",
    "Wood": "test",
    "YellowFlower": "test",
}

HELD_OUT_SALT = "fgclip2-demo-1"
HELD_OUT_COUNT = 80


def artists(split: ArtistSplit) -> list[str]:
    """Return the names of the artists of a split, in table order."""
    return [artist for artist, its_split in ARTIST_SPLITS.items() if its_split == split]


def held_out_keys(
    groups: Sequence[str], eligible: Mapping[str, Sequence[str]], count: int = HELD_OUT_COUNT
) -> set[str]:
    """Choose the concepts that no training picture or text shows.

    The choice is a salted hash of the concept's code points, so it depends on no order and no random state, and each
    group gives its share of the things (largest remainders first).

    Args:
        groups: The group of each thing that scenes and tests use.
        eligible: Group -> keys (hex code points) of its things that have no near synonym; the others would leak
            through it.
        count: How many to hold out.

    Returns:
        Keys of the concepts held out.

    Raises:
        ValueError: A group has fewer eligible concepts than its share.
    """
    exact = {group: count * size / len(groups) for group, size in sorted(Counter(groups).items())}
    shares = {group: int(share) for group, share in exact.items()}
    by_remainder = sorted(exact, key=lambda group: shares[group] - exact[group])
    for group in by_remainder[: count - sum(shares.values())]:
        shares[group] += 1
    chosen: set[str] = set()
    for group, share in shares.items():
        keys = sorted(
            eligible.get(group, ()), key=lambda key: hashlib.sha256(f"{HELD_OUT_SALT}:{key}".encode()).hexdigest()
        )
        if len(keys) < share:
            raise ValueError(f"group {group!r} must have {share} concepts that can be held out, and has {len(keys)}")
        chosen.update(keys[:share])
    return chosen
