"""What came of a file that could be opened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Opened:
    """A file that a loader took.

    Attributes:
        kind: What it was.
        shown: Texts about it that users get to see.
    """

    kind: str
    shown: tuple[str, ...] = ()
