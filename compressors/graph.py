"""The one editable form that every model is lifted to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import fx


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor at the model's edge, described per sample.

    Attributes:
        name: The input's or output's name; it becomes the ONNX name.
        shape: Shape of one sample, without the batch dimension (always dimension 0).
        dtype: Element type.
        low: Smallest random value of an integer or boolean tensor; 1 for a mask, whose random values are ones.
        high: What random integers stay below: the size of the table that they look up, where that is known.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    low: int = 0
    high: int = 2

    @property
    def is_mask(self) -> bool:
        """Says whether the tensor marks what counts: its values are 0 and 1, its random values ones."""
        return not self.dtype.is_floating_point and (self.low, self.high) == (1, 2)

    def random(self, batch: int, seed: int) -> torch.Tensor:
        """Returns reproducible values, shape (batch, *shape): standard-normal, or integers in [low, high)."""
        generator = torch.Generator().manual_seed(seed)
        size = (batch, *self.shape)
        if self.dtype.is_floating_point or self.dtype.is_complex:
            return torch.randn(size, generator=generator, dtype=self.dtype)
        return torch.randint(self.low, self.high, size, generator=generator).to(self.dtype)


class Edges(Protocol):
    """What a network takes and returns, be it a graph or a file: enough to tell what it is for and to feed it."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it returns, in order."""

    @property
    def name(self) -> str:
        """What the user calls it."""


@dataclass(frozen=True)
class Graph:
    """A model as an editable torch.fx graph.

    `module` is in eval mode. Its convolutions, linears, norms and activations are `call_module` nodes whose targets are
    named as in the original model; everything else is a plain function node. Nobody changes `module` in place: surgery
    copies first (`copied`).

    Attributes:
        module: The executable graph; takes the inputs in order, batch first, any batch size.
        inputs: What it takes.
        outputs: What it returns, in order.
        name: What the user calls the model, for messages and reports.
    """

    module: fx.GraphModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    name: str

    def samples(self, batch: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
        """Returns one random batch for every input."""
        return tuple(spec.random(batch, seed + index) for index, spec in enumerate(self.inputs))

    def copied(self) -> Graph:
        """Returns a deep copy that shares no tensor with this graph; node names are kept."""
        from copy import deepcopy

        return replace(self, module=deepcopy(self.module))
