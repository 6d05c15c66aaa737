"""One change of a text, and what both languages share in finding changes."""

from __future__ import annotations

from dataclasses import dataclass

from ..lexicon import Kind


@dataclass(frozen=True)
class Edit:
    """`text[start:end]` becomes `replacement`."""

    kind: Kind
    start: int
    end: int
    replacement: str

    def apply(self, text: str) -> str:
        return text[: self.start] + self.replacement + text[self.end :]


Slot = list[Edit]  # the changes that one place of a text allows
