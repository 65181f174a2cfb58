"""Samples that cannot be used: counted, named, and no more than a few in a hundred."""

from __future__ import annotations

from typing import Final, final

from service.data.errors import DataError
from service.wording import fit

MAX_BROKEN_FRACTION: Final = 0.05

_NAMED = 3
_MAX_REASON = 200
_MAX_NAME = 200


@final
class Broken:
    """The broken samples of one source as far as they are known. A few are kept with their reasons, all by index."""

    def __init__(self, field: str, what: str = "images cannot be decoded") -> None:
        """Starts with none; `what` completes "3 of 20 ..." in messages."""
        self._field = field
        self._what = what
        self._indices: set[int] = set()
        self._examples: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._indices)

    def __contains__(self, index: int) -> bool:
        return index in self._indices

    @property
    def indices(self) -> frozenset[int]:
        """Which ones they are."""
        return frozenset(self._indices)

    def note(self, index: int, name: str, why: str) -> None:
        """Counts a sample; again changes nothing."""
        self._indices.add(index)
        if index not in self._examples and (len(self._examples) < _NAMED or index < max(self._examples)):
            self._examples[index] = fit(f"{name[-_MAX_NAME:]}: {why[:_MAX_REASON]}")
            for surplus in sorted(self._examples)[_NAMED:]:
                del self._examples[surplus]

    def describe(self) -> tuple[str, ...]:
        """Names the first few, each with its reason."""
        return tuple(text for _, text in sorted(self._examples.items()))

    def refuse_too_many(self, tried: int) -> None:
        """Gives up where too many of `tried` samples are broken.

        Raises:
            DataError: They are more than `MAX_BROKEN_FRACTION`.
        """
        if len(self._indices) > MAX_BROKEN_FRACTION * tried:
            raise DataError(
                self._field,
                f"{len(self._indices)} of {tried} {self._what}, at most {MAX_BROKEN_FRACTION:.0%} are passed over; "
                f"for example {'; '.join(self.describe())}; remove or replace them",
            )
