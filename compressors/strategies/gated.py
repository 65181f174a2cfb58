"""Activations that training itself turns into lines: what Layer Folding and LayerCollapse have in common.

Every activation that some merge would take out gets a gate, a line(x) + (1 - a) s(x), that starts just above a = 0,
where the network computes what it did. A penalty pulls the gates to 1 while the network trains, the more the more time
the merges behind a gate would save. What the task does not let go stays low: 1 - a is the activation's score.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

from compressors.gates import (
    GateRecipe,
    GateRegulariser,
    amounts,
    gate_lines,
    insert_gates,
    remove_gates,
    saving_weights,
)
from compressors.strategies.fitted import site_lines
from compressors.strategies.rounds import Look, State, misfit, restored

if TYPE_CHECKING:
    from compressors.analysis.segments import Site
    from compressors.channel_line import Line
    from compressors.problem import Problem
    from compressors.strategies.options import RoundOptions
    from compressors.table import Alternative

_START = 0.02
"""Of every gate. At 0, Layer Folding's penalty has no slope."""
_TRAVEL = 3.0
"""How far a gate gets that nothing holds: Layer Folding's penalty takes it to 1 in two thirds of the training."""
_RESERVE = 1.25
"""Gates are pulled until they save so many times what has to go: some stay half open, and a merge takes several."""
_SHARE = 0.5
"""Of the time for training, what goes into the gates; the rest is for what was chosen."""
_OF_PLANNING = 0.5
"""Of the time for planning that is left, what goes into the gates; plans have to be measured, compared and fitted."""


@final
@dataclass(frozen=True)
class Gates:
    """Gates' idea of what matters (`compressors.strategies.rounds.SiteMethod`).

    Attributes:
        problem: What is to be made faster.
        options: The strategy's.
        recipe: Penalty and range; weights are put in here.
    """

    problem: Problem
    options: RoundOptions
    recipe: GateRecipe

    def look(self, state: State, sites: Sequence[Site], alternatives: Sequence[Alternative], needed: float) -> Look:
        """Trains with gates and returns how far each is from 1.

        Without training, or with no time for one that says anything, it is how badly the best line fits.
        """
        lines = site_lines(state.graph, sites, self.options.way, self.problem.calibration)
        untrained = Look({s.node: misfit(lines.get(s.node)) for s in sites}, state, lambda chosen: _of(lines, chosen))
        if self.problem.train is None or not sites:
            return untrained
        gated = insert_gates(state.graph, [site.node for site in sites], _START, lines)
        saved = savings(alternatives)
        open_sites = {site.node: saved.get(site.node, 0.0) for site in sites}
        gone = sum(saved.get(name, 0.0) for name in state.lines)
        recipe = replace(
            self.recipe,
            weights=saving_weights(open_sites),
            travel=_TRAVEL,
            savings=open_sites,
            needed=_RESERVE * (needed - gone),
        )
        seconds = _OF_PLANNING * max(0.0, self.problem.seconds_left())
        trained = self.problem.train(gated, _SHARE, GateRegulariser(recipe), seconds)
        found_at = amounts(trained.module)
        if found_at == amounts(gated.module):
            return untrained
        scores = {name: _kept_apart(amount) for name, amount in found_at.items()}
        found, opened = gate_lines(trained), remove_gates(trained)
        after = State(opened, restored(self.problem.graph, opened), state.lines)
        return Look(scores, after, lambda chosen: _of(found, chosen))


def savings(alternatives: Sequence[Alternative]) -> dict[str, float]:
    """Returns the most seconds that one merge saves for each activation that it takes out, by node name."""
    found: dict[str, float] = defaultdict(float)
    for one in alternatives:
        for site in one.cut.sites:
            found[site] = max(found[site], one.saved / len(one.cut.sites))
    return dict(found)


def _of(lines: Mapping[str, Line], sites: Sequence[Site]) -> dict[str, Line]:
    return {site.node: lines[site.node] for site in sites if site.node in lines}


def _kept_apart(amount: float) -> float:
    """Returns how far a gate is from 1, in [0, 1]; 1 where it is not finite, and nothing is known."""
    return min(1.0, max(0.0, 1 - amount)) if math.isfinite(amount) else 1.0
