"""`layer_collapse`: the two linears of an MLP become one where training can do without the activation between them.

Source: Shabgahi, Shariff, Koushanfar, "LayerCollapse: Adaptive compression of neural networks", 2023. What is
different by default: the gate mixes the activation that is there instead of putting a PReLU in its place, leads to the
line that fits best, and is pulled as hard as the device would gain; which MLPs go is chosen by gates and device, not
from the end; an MLP whose collapse would not be faster stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from compressors.gates import GateRecipe
from compressors.strategies.gated import Gates
from compressors.strategies.rounds import RoundOptions, RoundSearch

if TYPE_CHECKING:
    from compressors.problem import Problem

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


def begin(problem: Problem, options: LayerCollapseOptions) -> RoundSearch:
    """Starts a search among merges of linears."""
    cuts = [cut for cut in options.cuts(problem) if options.convolutions or not cut.step.kernel]
    method = Gates(problem, options, GateRecipe("collapse", options.penalty))
    return RoundSearch(problem, cuts, method, options.settings(NAME))
