"""EASIER as published: the activation of least entropy goes, the network is trained whole, and so on.

Source: Quetu, Liao, Tartaglione, ECML PKDD 2024, and the rules of its published code: one entropy per batch of the
network in training mode, exact zeros counted as on, and every activation of entropy zero goes together with the lowest.
The tolerance on accuracy of the paper's algorithm is the job's budget here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

from compressors.batches import in_order
from compressors.channel_line import identity_line
from compressors.collapse import linearise
from compressors.scores.entropy import PARITY, entropies, lowest
from compressors.strategies.fitted import mask_input
from compressors.strategies.parity import Stage, rectifiers, train_evenly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressors.analysis.segments import Site
    from compressors.problem import Problem

_BATCH = 128
"""Samples per batch, as published for CIFAR-10; the estimate depends on it."""


@final
@dataclass(frozen=True)
class LowestEntropy:
    """EASIER's order (`compressors.strategies.parity.ParityMethod`).

    Attributes:
        problem: What is to be made faster.
        samples: Calibration samples that entropies are estimated on, at most.
    """

    problem: Problem
    samples: int

    def sites(self) -> Sequence[Site]:
        """Returns every ReLU, ReLU6 and GELU."""
        return rectifiers(self.problem.analysis.sites)

    def advance(self, stage: Stage, waiting: Sequence[Site]) -> Stage:
        """Returns the network without the activation of least entropy, trained."""
        batches = (batch.inputs for batch in in_order(self.problem.calibration, _BATCH, self.samples))
        found = entropies(stage.graph, batches, waiting, replace(PARITY, mask=mask_input(stage.graph)))
        chosen = lowest({name: entropy.layer for name, entropy in found.items()}, parity=True)
        graph = linearise(stage.graph, dict.fromkeys(chosen, identity_line()))
        return Stage(train_evenly(self.problem, "easier", graph, waiting), (*stage.gone, *chosen))
