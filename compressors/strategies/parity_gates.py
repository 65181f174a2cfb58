"""Layer Folding and LayerCollapse as published: gates on the way to the identity, and a threshold.

1. Layer Folding (Ben Dror et al., BMVC 2022): gates at every activation, start 0, penalty |1 - a^2|, a >= 0, one
   training of the whole network. On residual networks an activation goes from 0.9 on, on plain ones from one half. The
   others become activations again; the published code leaves the PReLU that a gate below the threshold is, with a
   slope that was within 0.008 of 0 in its checkpoint.
2. LayerCollapse (Shabgahi et al., 2023): the MLP nearest to the output gets a PReLU for its activation, start 0.01,
   penalty (a - 1)^2, no limits; once |a - 1| < 0.05 its two linears are one, and the next MLP is up. On language
   models the pull is a step of its own beside the gradient's instead of a penalty, falls with the rate, and its end is
   waited for by nobody: the linears are one after the training wherever the slope is. Elsewhere an MLP whose gate does
   not arrive in its share of the time stays as it was, and so do the weights; the published runs train until it
   arrives. MLPs where h (i + o + 1) <= i o would grow and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

from compressors.gates import GateRecipe, GateRegulariser, amounts, insert_gates, remove_gates
from compressors.gates.decide import at_least, near_one, rounded
from compressors.gates.regulariser import COLLAPSE, COLLAPSE_DECOUPLED, FOLDING
from compressors.strategies.parity import Stage, rectifiers, train_evenly, trainer_of
from compressors.strategies.parity_recipes import FOLDING_PLAIN, is_plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressors.analysis.segments import Site
    from compressors.problem import Problem

_FOLDING_START = 0.0
_COLLAPSE_START = 0.01
_BOUNDED = frozenset({"tanh", "sigmoid"})
"""Kinds of activations that stay: a BERT's pooler has a tanh between two linears, and is no MLP."""
_FOLDING_SHARE = 0.5
"""Of the time for training, what goes into the gates; the published schedule spends as much on fine-tuning."""


@final
@dataclass(frozen=True)
class Folding:
    """Layer Folding's order: all at once (`compressors.strategies.parity.ParityMethod`).

    Attributes:
        problem: What is to be made faster.
        penalty: Weight of the penalty in the loss, > 0.
    """

    problem: Problem
    penalty: float

    def sites(self) -> Sequence[Site]:
        """Returns every ReLU, ReLU6 and GELU."""
        return rectifiers(self.problem.analysis.sites)

    def advance(self, stage: Stage, waiting: Sequence[Site]) -> Stage:
        """Returns the network without the activations whose gates passed the threshold."""
        train = trainer_of(self.problem, "layer_folding")
        gated = insert_gates(stage.graph, [site.node for site in waiting], _FOLDING_START)
        trained = train(gated, _FOLDING_SHARE, GateRegulariser(self._recipe()))
        found = amounts(trained.module)
        linear = rounded(found) if is_plain(self.problem.graph) else at_least(found)
        rest = tuple(site.node for site in waiting if site.node not in linear)
        return Stage(remove_gates(trained, linear), (*stage.gone, *linear), (*stage.kept, *rest))

    def _recipe(self) -> GateRecipe:
        """Returns the published one; on plain networks the gates decay with everything else."""
        decay = FOLDING_PLAIN.weight_decay if is_plain(self.problem.graph) else 0.0
        return replace(FOLDING, strength=self.penalty, decay=decay)


@final
@dataclass(frozen=True)
class Collapse:
    """LayerCollapse's order: MLPs from the end (`compressors.strategies.parity.ParityMethod`).

    Attributes:
        problem: What is to be made faster.
        penalty: Weight of the penalty in the loss, > 0. A language model's pull is the published one at the published
            weight, 0.2, and in proportion elsewhere.
        pairs: Node names of the activations between two linears that one linear may replace.
    """

    problem: Problem
    penalty: float
    pairs: frozenset[str]

    def sites(self) -> Sequence[Site]:
        """Returns the activations between two linears, those left out that a PReLU is nothing like."""
        sites = self.problem.analysis.sites
        return [site for site in sites if site.node in self.pairs and site.kind not in _BOUNDED]

    def advance(self, stage: Stage, waiting: Sequence[Site]) -> Stage:
        """Returns the network without the last waiting activation if its gate arrived; else the one that came in."""
        last = waiting[-1].node
        gated = insert_gates(stage.graph, [last], _COLLAPSE_START, rectified=True)
        trained = train_evenly(self.problem, "layer_collapse", gated, waiting, GateRegulariser(self._recipe()))
        if not self._text and not near_one(amounts(trained.module)):
            return replace(stage, kept=(*stage.kept, last))
        return Stage(remove_gates(trained, [last]), (*stage.gone, last), stage.kept)

    def _recipe(self) -> GateRecipe:
        """Returns the published one for what the network reads: tokens, or anything else."""
        if not self._text:
            return replace(COLLAPSE, strength=self.penalty)
        return replace(COLLAPSE_DECOUPLED, pull=COLLAPSE_DECOUPLED.pull * self.penalty / COLLAPSE.strength)

    @property
    def _text(self) -> bool:
        return not self.problem.graph.inputs[0].dtype.is_floating_point
