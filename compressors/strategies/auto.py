"""`auto`: `layerfit`, and in what time it leaves the other strategies; the best of what they found.

`layerfit` comes first and to its end, fine-tuning included, asked what it would be asked alone and by the same clocks.
Only then do the others get what is left (`compressors.problem.Staged`), and their network takes the place of
`layerfit`'s only where it is measured to be better. So `auto` is never worse, by construction and not by luck with the
clock. The others follow in the order of what they cost: first those that only plan differently; those that train
gates to find out what matters wait behind them in turn, and get what they leave. All of them share the latency table,
since every measured operator is kept by its signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from compressors.strategies import find
from compressors.strategies.options import AutoOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressors.plan import Plan
    from compressors.problem import Candidate, Problem, Search

NAME = "auto"
_FIRST: Final = "layerfit"
_STAGES: Final = (("layer_merge", "easier", "tlc"), ("layer_folding", "layer_collapse"))
"""Who waits: the first behind `layerfit`, the next behind them."""


@final
class AutoSearch:
    """`layerfit`, and who waits behind it (`compressors.problem.Search`, `compressors.problem.Staged`)."""

    def __init__(self, problem: Problem, options: AutoOptions) -> None:
        """Begins with `layerfit`."""
        self._options = options
        self._first = _begun(_FIRST, problem, options)

    def floor(self) -> Plan:
        """Returns the fastest plan that `layerfit` knows, which may take out whatever the others may."""
        return self._first.floor()

    def candidates(self, budget_seconds: float) -> Sequence[Candidate]:
        """Returns what `layerfit` found for a budget."""
        return self._first.candidates(budget_seconds)

    def others(self, problem: Problem) -> OtherSearches:
        """Returns the first of the other strategies, one after the other as far as the problem's clock allows."""
        return OtherSearches(problem, self._options, 0)


@final
class OtherSearches:
    """Several searches on one problem (`compressors.problem.Search`); each is begun when it is its turn.

    Args:
        problem: With the clocks that they share.
        options: Those of `auto`.
        stage: Which of those who wait.
    """

    def __init__(self, problem: Problem, options: AutoOptions, stage: int) -> None:
        self._problem, self._options, self._stage = problem, options, stage
        first, *self._waiting = _STAGES[stage]
        self._begun = [_begun(first, problem, options)]

    def floor(self) -> Plan:
        """Returns the fastest plan of the first of them."""
        return self._begun[0].floor()

    def candidates(self, budget_seconds: float) -> Sequence[Candidate]:
        """Returns what all searches found for a budget, the best of them first."""
        found = [candidate for search in self._begun for candidate in search.candidates(budget_seconds)]
        while self._waiting and self._problem.seconds_left() > 0:
            search = _begun(self._waiting.pop(0), self._problem, self._options)
            self._begun.append(search)
            found += search.candidates(budget_seconds)
        distinct = {candidate.plan.steps: candidate for candidate in reversed(found)}
        return sorted(distinct.values(), key=lambda one: _rank(one, budget_seconds))

    def others(self, problem: Problem) -> OtherSearches | None:
        """Returns those who wait behind these."""
        after = self._stage + 1
        return OtherSearches(problem, self._options, after) if after < len(_STAGES) else None


def _begun(name: str, problem: Problem, options: AutoOptions) -> Search:
    """Returns a search of another strategy, with the options of `auto` that it has too."""
    strategy = find(name)
    shared = {key: value for key, value in options.model_dump().items() if key in strategy.options.model_fields}
    return strategy.start(problem, strategy.parse(shared))


def _rank(candidate: Candidate, budget_seconds: float) -> tuple[bool, float]:
    over = candidate.seconds is None or candidate.seconds > budget_seconds
    return over, candidate.score.divergence


def begin(problem: Problem, options: AutoOptions) -> AutoSearch:
    """Starts with `layerfit`."""
    return AutoSearch(problem, options)
