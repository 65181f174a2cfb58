"""`auto`: the strategies one after the other, as far as the time goes, and the best of what they found.

`layerfit` comes first: it needs no training, so it gains most per minute, and whatever `auto` returns is at least as
good. The others follow in the order of what they cost: those that only plan differently before those that train. All of
them share the latency table, since every measured operator is kept by its signature.
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
    """Several searches on one problem (`compressors.problem.Search`); each is begun when it is its turn."""

    def __init__(self, problem: Problem, options: AutoOptions) -> None:
        """Begins with `layerfit`."""
        self._problem = problem
        first = layerfit.begin(problem, LayerfitOptions(**_shared(options, LayerfitOptions)))
        self._begun: list[Search] = [first]
        self._waiting: list[Callable[[], Search]] = [
            lambda: layer_merge.begin(problem, LayerMergeOptions(**_shared(options, LayerMergeOptions))),
            lambda: easier.begin(problem, EasierOptions(**_shared(options, EasierOptions), rounds=1)),
            lambda: tlc.begin(problem, TlcOptions(**_shared(options, TlcOptions), rounds=1)),
        ]

    def floor(self) -> Plan:
        """Returns the fastest plan that `layerfit` knows, which may take out whatever the others may."""
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
