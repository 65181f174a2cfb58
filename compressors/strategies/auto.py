"""`auto`: `layerfit`, and in what time it leaves the other strategies; the best of what they found.

`layerfit` comes first and to its end, fine-tuning included, asked what it would be asked alone and by the same clocks.
Only then do the others get what is left (`compressors.problem.Staged`), and their network takes the place of
`layerfit`'s only where it is measured to be better. So `auto` is never worse, by construction and not by luck with the
clock. The others follow in the order of what they cost: those that only plan differently before those that train. All
of them share the latency table, since every measured operator is kept by its signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from compressors.strategies import easier, layer_merge, layerfit, tlc
from compressors.strategies.options import (
    AutoOptions,
    EasierOptions,
    LayerfitOptions,
    LayerMergeOptions,
    Options,
    TlcOptions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressors.plan import Plan
    from compressors.problem import Candidate, Problem, Search

NAME = "auto"


@final
class AutoSearch:
    """`layerfit`, and who waits behind it (`compressors.problem.Search`, `compressors.problem.Staged`)."""

    def __init__(self, problem: Problem, options: AutoOptions) -> None:
        """Begins with `layerfit`."""
        self._options = options
        self._first = layerfit.begin(problem, LayerfitOptions(**_shared(options, LayerfitOptions)))

    def floor(self) -> Plan:
        """Returns the fastest plan that `layerfit` knows, which may take out whatever the others may."""
        return self._first.floor()

    def candidates(self, budget_seconds: float) -> Sequence[Candidate]:
        """Returns what `layerfit` found for a budget."""
        return self._first.candidates(budget_seconds)

    def others(self, problem: Problem) -> OtherSearches:
        """Returns the other strategies, one after the other as far as the problem's clock allows."""
        return OtherSearches(problem, self._options)


@final
class OtherSearches:
    """Several searches on one problem (`compressors.problem.Search`); each is begun when it is its turn."""

    def __init__(self, problem: Problem, options: AutoOptions) -> None:
        """Begins with `layer_merge`."""
        self._problem = problem
        first = layer_merge.begin(problem, LayerMergeOptions(**_shared(options, LayerMergeOptions)))
        self._begun: list[Search] = [first]
        self._waiting: list[Callable[[], Search]] = [
            lambda: easier.begin(problem, EasierOptions(**_shared(options, EasierOptions))),
            lambda: tlc.begin(problem, TlcOptions(**_shared(options, TlcOptions))),
        ]

    def floor(self) -> Plan:
        """Returns the fastest plan of the first of them."""
        return self._begun[0].floor()

    def candidates(self, budget_seconds: float) -> Sequence[Candidate]:
        """Returns what all searches found for a budget, the best of them first."""
        found = [candidate for search in self._begun for candidate in search.candidates(budget_seconds)]
        while self._waiting and self._problem.seconds_left() > 0:
            search = self._waiting.pop(0)()
            self._begun.append(search)
            found += search.candidates(budget_seconds)
        distinct = {candidate.plan.steps: candidate for candidate in reversed(found)}
        return sorted(distinct.values(), key=lambda one: _rank(one, budget_seconds))


def _shared(options: AutoOptions, kind: type[Options]) -> dict[str, object]:
    """Returns the options that another strategy has too."""
    return {name: value for name, value in options.model_dump().items() if name in kind.model_fields}


def _rank(candidate: Candidate, budget_seconds: float) -> tuple[bool, float]:
    over = candidate.seconds is None or candidate.seconds > budget_seconds
    return over, candidate.score.divergence


def begin(problem: Problem, options: AutoOptions) -> AutoSearch:
    """Starts with `layerfit`."""
    return AutoSearch(problem, options)
