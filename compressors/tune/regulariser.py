"""What a strategy adds to a training: gates, penalties, and what has to happen to them after a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import fx, nn


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained in their own way.

    Attributes:
        parameters: Of the module; the training takes them out of its own groups.
        rate: Peak learning rate, which rises and falls with the schedule; None is the training's.
        weight_decay: >= 0.
        travel: Instead of a rate: how far a parameter gets in the whole training, however many steps that has, if its
            gradient is `gradient` all the time (with AdamW, whatever its gradient is). The same at every moment.
        gradient: > 0.
    """

    parameters: tuple[nn.Parameter, ...]
    rate: float | None = None
    weight_decay: float = 0.0
    travel: float | None = None
    gradient: float = 1.0


class Regulariser(Protocol):
    """Shapes the training of a module with parts of its own, such as gates.

    Every call is given the module that is being trained: trials of learning rates train copies, so whatever changes in
    training has to live in the module's parameters and buffers, where copies and checkpoints find it. The module's
    parts are trained, copied (`deepcopy`) and restored (`state_dict`) as they are; nothing replaces them.
    """

    def penalty(self, module: fx.GraphModule) -> torch.Tensor:
        """Returns what is added to the loss, a scalar."""
        ...

    def after_step(self, module: fx.GraphModule, rate: float = 1.0) -> None:
        """Changes the module after an optimiser step, in place: clamps a gate, closes it, moves a target.

        Args:
            module: That was stepped.
            rate: Learning rate of the step as a share of its peak, in [0, 1].
        """
        ...

    def parameter_groups(self, module: fx.GraphModule) -> Sequence[ParameterGroup]:
        """Returns the parameters that have a rate or decay of their own."""
        ...

    def metrics(self, module: fx.GraphModule) -> Mapping[str, float]:
        """Returns figures for the progress, such as how many gates are closed."""
        ...
