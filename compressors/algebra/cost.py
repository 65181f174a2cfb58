"""What a map costs, and when collapsing shrinks.

1. A map has one parameter per weight and bias and, at an input size, (weights) * (output positions) multiply-adds.
2. Two linears i -> h -> o become i -> o: fewer parameters iff h * (i + o + 1) > i * o, fewer multiply-adds iff
   h * (i + o) > i * o (LayerCollapse, 2023). A bottleneck grows.
3. An inverted residual of expansion t, c -> t*c -> (k x k depthwise) -> o, becomes one dense k x k: fewer multiply-adds
   iff k^2 * c * o < t * c * (c + k^2 + o) (Layer Folding, 2021).
4. In a chain, the cheapest places to keep a cut follow from dynamic programming, since composition is associative.

Compositions are sized on shapes alone; nothing is computed. Fewer multiply-adds do not mean a lower latency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from compressors.algebra.affine import Affine
from compressors.algebra.compose import sketch


@dataclass(frozen=True)
class Cost:
    """What one or several maps cost.

    Attributes:
        parameters: Weights and biases.
        multiply_adds: Per sample.
    """

    parameters: int
    multiply_adds: int

    def __add__(self, other: Cost) -> Cost:
        """Returns both costs together."""
        return Cost(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)


@dataclass(frozen=True)
class Comparison:
    """What a chain costs, and what its composition would.

    Attributes:
        chain: The maps as they are.
        merged: Their composition.
    """

    chain: Cost
    merged: Cost

    @property
    def fewer_parameters(self) -> bool:
        """Whether the composition has fewer parameters."""
        return self.merged.parameters < self.chain.parameters

    @property
    def fewer_multiply_adds(self) -> bool:
        """Whether the composition has fewer multiply-adds."""
        return self.merged.multiply_adds < self.chain.multiply_adds


def cost(affine: Affine, size: tuple[int, ...]) -> Cost:
    """Returns what a map costs on inputs of the given sizes (case 1); a linear's size is (), for one token."""
    positions = math.prod(affine.output_size(size))
    return Cost(affine.weight.numel() + affine.bias.numel(), affine.weight.numel() * positions)


def chain_cost(maps: Sequence[Affine], size: tuple[int, ...]) -> Cost:
    """Returns what maps cost, one after the other, the first on inputs of the given sizes."""
    total = Cost(0, 0)
    for one in maps:
        total, size = total + cost(one, size), one.output_size(size)
    return total


def compare(maps: Sequence[Affine], size: tuple[int, ...]) -> Comparison:
    """Returns what a chain and its composition cost on inputs of the given sizes (cases 2 and 3)."""
    return Comparison(chain_cost(maps, size), cost(reduce(sketch, maps), size))


def cheapest_runs(maps: Sequence[Affine], size: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Returns which runs of a chain to compose for the fewest multiply-adds (case 4), then the fewest parameters.

    Returns:
        (start, stop) of each run, in order, covering the chain; a run of one map stays as it is.
    """
    sizes = [size]
    for one in maps:
        sizes.append(one.output_size(sizes[-1]))
    best: list[tuple[int, int, tuple[tuple[int, int], ...]]] = [(0, 0, ())]
    for stop in range(1, len(maps) + 1):
        options = []
        for start in range(stop):
            run = cost(reduce(sketch, maps[start:stop]), sizes[start])
            spent, held, runs = best[start]
            options.append((spent + run.multiply_adds, held + run.parameters, (*runs, (start, stop))))
        best.append(min(options, key=lambda option: option[:2]))
    return best[-1][2]
