"""What a conversion did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """An operator that computes in float32 as before.

    Attributes:
        node: Its name in the float32 file.
        operator: Its ONNX type.
        reason: Why, in a few words.
    """

    node: str
    operator: str
    reason: str


@dataclass(frozen=True)
class Converted:
    """What a file became.

    Attributes:
        precision: One of `deploy.precision.PRECISIONS`.
        kept: What stayed in float32, in the order it runs.
        names: Of the operators that were converted, in the float32 file.
    """

    precision: str
    kept: tuple[Kept, ...]
    names: tuple[str, ...]

    @property
    def operators(self) -> int:
        """How many could have been converted, those kept included."""
        return len(self.kept) + len(self.names)
