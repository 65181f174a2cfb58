"""When to stop taking sites away, and what to go back to.

Step by step a network loses sites; each step's network is judged by one figure. A network is admissible if the figure
is within a tolerance of the original's. The answer is the last admissible network: the shallowest one. Curves are not
monotone, by about a point of accuracy in what was published for EASIER, so a search may look past a network that is not
admissible: `patience` says how many in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, final

State = TypeVar("State")

_ROUNDING = 1e-9
"""Relative; a drop of exactly the tolerance is allowed, whatever binary fractions make of it."""


@dataclass(frozen=True)
class Tolerance:
    """How much worse a network may be.

    Attributes:
        drop: In units of the figure, or as a share of the original's where `relative`; >= 0.
        relative: Whether `drop` is a share.
        higher_is_better: False for losses and divergences.
    """

    drop: float
    relative: bool = False
    higher_is_better: bool = True

    def allows(self, figure: float, original: float) -> bool:
        """Returns whether a figure is good enough; NaN is not."""
        allowed = self.drop * abs(original) if self.relative else self.drop
        worse = original - figure if self.higher_is_better else figure - original
        return worse <= allowed + _ROUNDING * max(abs(original), abs(allowed))


@final
class Descent(Generic[State]):
    """One search; keeps the last admissible state.

    Args:
        start: The original, which is admissible.
        figure: Its figure.
        tolerance: How much worse a state may be.
        patience: How many inadmissible states in a row are looked past.
    """

    def __init__(self, start: State, figure: float, tolerance: Tolerance, patience: int = 0) -> None:
        self._original = figure
        self._tolerance = tolerance
        self._patience = patience
        self._failed = 0
        self.kept = start
        self.figure = figure
        self.steps = 0
        self.kept_step = 0

    def offer(self, state: State, figure: float) -> bool:
        """Takes the next state; returns whether to go on from it."""
        self.steps += 1
        if self._tolerance.allows(figure, self._original):
            self.kept, self.figure, self.kept_step, self._failed = state, figure, self.steps, 0
            return True
        self._failed += 1
        return self._failed <= self._patience
