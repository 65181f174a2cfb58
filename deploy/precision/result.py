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
        operators: How many operators work on numbers that could have been converted, `kept` included.
    """

    precision: str
    kept: tuple[Kept, ...]
    operators: int
