"""`layer_folding`: activations that training can turn into lines go, and convolutions around them fold.

Source: Ben Dror et al., "Layer Folding: Neural Network Depth Reduction using Activation Linearization", BMVC 2022. What
is different by default: a gate leads to the line that fits best instead of the identity, starts above zero, stays in
[0, 1] and is pulled as hard as the device would gain from its fold; whole residual blocks fold, their additions
included; padding moves to the front before training, so that the network that is trained is the one that ships.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from compressors.gates import GateRecipe
from compressors.strategies.gated import Gates
from compressors.strategies.options import refuse_with_parity
from compressors.strategies.parity import ParitySearch, ParitySettings, merge_cuts
from compressors.strategies.parity_gates import Folding
from compressors.strategies.rounds import RoundOptions, RoundSearch

if TYPE_CHECKING:
    from compressors.problem import Problem, Search

NAME = "layer_folding"
SUMMARY = (
    "Trains a gate at every activation towards a line, the harder the more its fold would save on the device, and "
    "folds the convolutions around those that give way (Layer Folding, 2022)."
)


class LayerFoldingOptions(RoundOptions):
    """Options of `layer_folding`."""

    rounds: int = Field(default=1, ge=1, le=50)
    """How often gates are trained and activations taken out."""
    penalty: float = Field(default=0.25, gt=0, le=100)
    """Weight of the penalty in the loss."""
    parity: bool = False
    """Whether to do as the paper does: gates from 0 to the identity, one training, and the threshold 0.9."""

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        return refuse_with_parity(self, {"rounds", "way", "refit", "plans", "calibration_samples"}, parity=self.parity)


def begin(problem: Problem, options: LayerFoldingOptions) -> Search:
    """Starts a search among merges."""
    if options.parity:
        cuts = [cut for _, cut in merge_cuts(problem, options.span, options.max_kernel) if not cut.step.pruned]
        settings = ParitySettings(NAME, options.selection_samples, options.margin)
        return ParitySearch(problem, cuts, Folding(problem, options.penalty), settings)
    method = Gates(problem, options, GateRecipe("folding", options.penalty))
    return RoundSearch(problem, options.cuts(problem), method, options.settings(NAME))
