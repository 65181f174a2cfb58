"""`layer_collapse`: the two linears of an MLP become one where training can do without the activation between them.

Source: Shabgahi, Shariff, Koushanfar, "LayerCollapse: Adaptive compression of neural networks", 2023. What is
different by default: the gate mixes the activation that is there instead of putting a PReLU in its place, leads to the
line that fits best, and is pulled as hard as the device would gain; which MLPs go is chosen by gates and device, not
from the end; an MLP whose collapse would not be faster stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from compressors.gates import GateRecipe
from compressors.scores.size import shrinks
from compressors.strategies.gated import Gates
from compressors.strategies.options import refuse_with_parity
from compressors.strategies.parity import ParitySearch, ParitySettings, merge_cuts
from compressors.strategies.parity_gates import Collapse
from compressors.strategies.rounds import RoundOptions, RoundSearch

if TYPE_CHECKING:
    from compressors.problem import Problem, Search

NAME = "layer_collapse"
SUMMARY = (
    "Trains a gate at the activation of every MLP towards a line, and makes one linear layer of the two where it gives "
    "way and the device gains (LayerCollapse, 2023)."
)


class LayerCollapseOptions(RoundOptions):
    """Options of `layer_collapse`."""

    rounds: int = Field(default=1, ge=1, le=50)
    """How often gates are trained and activations taken out."""
    penalty: float = Field(default=0.2, gt=0, le=100)
    """Weight of the penalty in the loss."""
    convolutions: bool = False
    """Whether convolutions collapse too."""
    parity: bool = False
    """Whether to do as the paper does: MLPs from the end, one training each, and a PReLU's slope within 0.05 of 1."""

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        return refuse_with_parity(
            self, {"rounds", "way", "refit", "plans", "calibration_samples", "convolutions"}, parity=self.parity
        )


def begin(problem: Problem, options: LayerCollapseOptions) -> Search:
    """Starts a search among merges of linears."""
    if options.parity:
        return _parity(problem, options)
    cuts = [cut for cut in options.cuts(problem) if options.convolutions or not cut.step.kernel]
    method = Gates(problem, options, GateRecipe("collapse", options.penalty))
    return RoundSearch(problem, cuts, method, options.settings(NAME))


def _parity(problem: Problem, options: LayerCollapseOptions) -> ParitySearch:
    """Starts a search among pairs of linears with one activation between them that would become smaller."""
    cuts = [
        cut
        for region, cut in merge_cuts(problem, options.span, options.max_kernel)
        if not cut.step.kernel and not cut.step.pruned and len(cut.step.sites) == 1 and len(region.operators) == 2
        if shrinks(problem.graph, region, region.options[0])
    ]
    pairs = frozenset(cut.step.sites[0] for cut in cuts)
    settings = ParitySettings(NAME, options.selection_samples, options.margin)
    return ParitySearch(problem, cuts, Collapse(problem, options.penalty, pairs), settings)
