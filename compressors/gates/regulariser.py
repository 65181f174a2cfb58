"""Training with gates: what the tuner has to add to the loss, to do after each step, and to train how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal, final

import torch
from torch import nn

from compressors.gates.insert import gates_of
from compressors.gates.penalty import collapse_penalty, folding_penalty, pulled
from compressors.tune.regulariser import ParameterGroup


@dataclass(frozen=True)
class GateRecipe:
    """How gates are trained.

    Attributes:
        penalty: "folding" is |1 - a^2|, "collapse" is (a - 1)^2, "none" leaves it to `pull`.
        strength: Weight of the penalty's sum in the loss, >= 0.
        weights: Factor per site (node name) on penalty and pull; 1 where none is given, see `saving_weights`.
        power: p of the folding penalty.
        pull: Peak learning rate times strength of LayerCollapse's decoupled step, which is done beside the gradient's.
        clamp: "unit" keeps gates in [0, 1], "positive" at 0 or above (Layer Folding), "none" lets them go anywhere
            (LayerCollapse).
        learning_rate: Of the gates; that of the other parameters where it is None.
        decay: Weight decay of the gates, which pulls them to 0; published once by mistake.
        travel: Instead of a rate, see `ParameterGroup`: how far a gate gets in the whole training that nothing but a
            penalty of slope `strength` moves. So gates arrive in short trainings as well.
        savings: Seconds by site (node name) that a closed gate saves.
        needed: Seconds; while the gates, each in proportion to its amount, save as many, nothing is pulled.
    """

    penalty: Literal["folding", "collapse", "none"] = "collapse"
    strength: float = 0.25
    weights: Mapping[str, float] = field(default_factory=dict)
    power: float = 2.0
    pull: float = 0.0
    clamp: Literal["unit", "positive", "none"] = "unit"
    learning_rate: float | None = None
    decay: float = 0.0
    travel: float | None = None
    savings: Mapping[str, float] = field(default_factory=dict)
    needed: float = inf


FOLDING = GateRecipe("folding", 0.25, clamp="positive")
"""Layer Folding as published; gates start at 0."""

COLLAPSE = GateRecipe("collapse", 0.2, clamp="none")
"""LayerCollapse as published; gates start at 0.01."""

COLLAPSE_DECOUPLED = GateRecipe("none", 0.0, pull=1e-4 * 10, clamp="none")
"""LayerCollapse as published for language models: learning rate 1e-4, strength 10."""


@final
class GateRegulariser:
    """A `compressors.tune.regulariser.Regulariser` of the gates of whatever module it is given; keeps no state.

    Args:
        recipe: How.
    """

    def __init__(self, recipe: GateRecipe | None = None) -> None:
        self._recipe = recipe or GateRecipe()

    def penalty(self, module: nn.Module) -> torch.Tensor:
        """Returns what to add to the loss: a scalar, 0 without gates."""
        terms = [
            self._recipe.weights.get(name, 1.0) * self._one(gate.amount) for name, gate in gates_of(module).items()
        ]
        if not terms or self._recipe.penalty == "none" or self._saved(module) >= self._recipe.needed:
            return torch.zeros((), device=next(module.parameters(), torch.empty(0)).device)
        return self._recipe.strength * torch.stack(terms).sum()

    def after_step(self, module: nn.Module, rate: float = 1.0) -> None:
        """Pulls the gates where the recipe says so, and brings them back into their range.

        Args:
            module: That was stepped.
            rate: Learning rate of the step as a share of its peak; the pull is in proportion to it.
        """
        low = None if self._recipe.clamp == "none" else 0.0
        high = 1.0 if self._recipe.clamp == "unit" else None
        pull = rate * self._recipe.pull if self._saved(module) < self._recipe.needed else 0.0
        with torch.no_grad():
            for name, gate in gates_of(module).items():
                if pull > 0:
                    gate.amount.copy_(pulled(gate.amount, pull * self._recipe.weights.get(name, 1.0)))
                if low is not None:
                    gate.amount.clamp_(low, high)

    def parameter_groups(self, module: nn.Module) -> tuple[ParameterGroup, ...]:
        """Returns one group with all gates; none without gates."""
        gates = tuple(gate.amount for gate in gates_of(module).values())
        recipe = self._recipe
        slope = recipe.strength or 1.0
        return (ParameterGroup(gates, recipe.learning_rate, recipe.decay, recipe.travel, slope),) if gates else ()

    def metrics(self, module: nn.Module) -> dict[str, float]:
        """Returns number, mean and least of the gates, and how many are linear (0.9 and more); nothing for none."""
        found = [float(gate.amount.detach()) for gate in gates_of(module).values()]
        if not found:
            return {}
        linear = sum(amount >= 0.9 for amount in found)
        return {
            "gates": float(len(found)),
            "gates_mean": sum(found) / len(found),
            "gates_least": min(found),
            "gates_linear": float(linear),
        }

    def _saved(self, module: nn.Module) -> float:
        """Returns the seconds that the gates save where they are now."""
        savings = self._recipe.savings
        return sum(savings.get(name, 0.0) * float(gate.amount.detach()) for name, gate in gates_of(module).items())

    def _one(self, amount: torch.Tensor) -> torch.Tensor:
        return (
            folding_penalty(amount, self._recipe.power)
            if self._recipe.penalty == "folding"
            else collapse_penalty(amount)
        )
