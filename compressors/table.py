"""The latency table: what each stretch takes as it is, and with each alternative in its place.

Everything is timed as it will be emitted: norms folded, and the activation that stays behind a cut included on both
sides. A stretch is timed once per signature, so a network of equal blocks is measured once.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

import torch
from torch import fx, nn

from compressors.analysis.geometry import Padding
from compressors.graph import Graph, TensorSpec
from compressors.plan import Step
from compressors.problem import TimedOperator
from compressors.shapes import convolution_padding
from compressors.signature import signature
from compressors.surgery import apply, extract, fold_norms, merge_step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressors.analysis.merges import MergeRegion
    from compressors.analysis.segments import Position, Segment
    from compressors.calibrate import Operator
    from compressors.plan import Way
    from compressors.problem import Problem

_NOISE = 0.02
"""Timings of one operator that differ by less than this share say nothing."""


@dataclass(frozen=True)
class Cut:
    """One thing that may be done between two positions of a chain.

    Attributes:
        chain: Name of the chain.
        start: Index of the entry position.
        end: Index of the exit position, > start.
        step: What is done.
        input_shape: Per sample.
        output_shape: Per sample.
        groups: Of the operator that is emitted; 1 where there is none.
        bias_map: Whether a bias by position is added to it.
        sites: Activations, and norms that look at the sample, that go.
    """

    chain: str
    start: int
    end: int
    step: Step
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    groups: int = 1
    bias_map: bool = False
    sites: tuple[str, ...] = ()


@dataclass(frozen=True)
class Alternative:
    """One cut that is faster than what it replaces.

    Attributes:
        cut: What is done, and where.
        seconds: What it takes, the activation behind it included.
        saved: What it saves over leaving the stretch as it is, > 0.
    """

    cut: Cut
    seconds: float
    saved: float

    @property
    def step(self) -> Step:
        """Returns what is done."""
        return self.cut.step


@dataclass(frozen=True)
class Table:
    """Seconds of everything that a plan can be made of.

    Attributes:
        kept: Chain name to the seconds of each stretch between neighbouring positions, as it is.
        alternatives: Everything that is faster than what it replaces.
    """

    kept: dict[str, tuple[float, ...]]
    alternatives: tuple[Alternative, ...]


def segment_cuts(segment: Segment) -> tuple[Cut, ...]:
    """Returns every removal and regression that the analysis allows for a segment, cheapest kind first."""
    removal = (Step("remove", segment.entry, segment.exit),) if segment.removable else ()
    regressions = (
        Step("regress", segment.entry, segment.exit, kernel, segment.stride if kernel else ())
        for kernel in segment.kernels
    )
    where = (segment.chain, segment.start, segment.end)
    shapes = (segment.input_shape, segment.output_shape)
    return tuple(Cut(*where, step, *shapes, sites=segment.sites) for step in (*removal, *regressions))


def region_cuts(region: MergeRegion, way: Way = "identity") -> tuple[Cut, ...]:
    """Returns every merge of a region, by growing kernel; none where there is nothing to merge."""
    if region.changes_nothing:
        return ()
    where, shapes = (region.chain, region.start, region.end), (region.input_shape, region.output_shape)
    steps = (merge_step(region, option, way) for option in region.options)
    return tuple(
        Cut(*where, step, *shapes, option.groups, option.padding is Padding.BIAS_MAP, step.sites)
        for step, option in zip(steps, region.options, strict=True)
    )


def measure_table(problem: Problem, cuts: Sequence[Cut]) -> Table:
    """Times every stretch of every chain, and every cut, in one call of the timer."""
    graph = problem.graph
    chains = {chain.name: chain for chain in problem.analysis.chains}
    stretches = [
        (chain, index, _stretch(graph, chain.positions[index].output, chain.positions[index + 1].output))
        for chain in chains.values()
        for index in range(len(chain.positions) - 1)
    ]
    activations: dict[str, nn.Module | None] = {}
    ends = [chains[cut.chain].positions[cut.end] for cut in cuts]
    for end in ends:
        if end.output not in activations:
            activations[end.output] = _activation(graph, end)
    replacements = [
        _replacement(graph, cut, end.output, activations[end.output]) for cut, end in zip(cuts, ends, strict=True)
    ]
    seconds = _timed(problem, [operator for _, _, operator in stretches] + replacements)
    kept: dict[str, list[float]] = {name: [] for name in chains}
    for (chain, _, _), value in zip(stretches, seconds, strict=False):
        kept[chain.name].append(value)
    alternatives = [
        Alternative(cut, value, sum(kept[cut.chain][cut.start : cut.end]) - value)
        for cut, value in zip(cuts, seconds[len(stretches) :], strict=True)
    ]
    faster = tuple(alternative for alternative in alternatives if alternative.saved > 0)
    return Table({name: tuple(values) for name, values in kept.items()}, faster)


def undominated(table: Table) -> Table:
    """Returns the table without merges that a regression of the same stretch makes pointless.

    A regression with a kernel at least as large, the same stride, and no more time needed is the least-squares answer
    among all operators of its shape; the merged operator is one of these, so it cannot fit better.
    """
    fitted: dict[tuple[str, int, int], list[Alternative]] = defaultdict(list)
    for one in table.alternatives:
        if one.step.kind == "regress":
            fitted[one.cut.chain, one.cut.start, one.cut.end].append(one)
    kept = tuple(
        one
        for one in table.alternatives
        if one.step.kind != "merge"
        or not any(_covers(other, one) for other in fitted[one.cut.chain, one.cut.start, one.cut.end])
    )
    return replace(table, alternatives=kept)


def _covers(fitted: Alternative, merged: Alternative) -> bool:
    kernels = zip(fitted.step.kernel, merged.step.kernel, strict=False)
    same = len(fitted.step.kernel) == len(merged.step.kernel) and fitted.step.stride == merged.step.stride
    larger = all(wide >= narrow for wide, narrow in kernels)
    affine = not merged.cut.bias_map and not merged.step.norm
    return same and larger and affine and fitted.seconds <= (1 + _NOISE) * merged.seconds


def _timed(problem: Problem, operators: Sequence[TimedOperator | None]) -> list[float]:
    """Returns seconds for each; None stands for nothing at all. Equal signatures are timed once."""
    distinct = {operator.key: operator for operator in operators if operator is not None}
    seconds = dict(zip(distinct, problem.timer.operators(list(distinct.values())), strict=True))
    return [0.0 if operator is None else max(0.0, seconds[operator.key]) for operator in operators]


def _stretch(graph: Graph, entry: str, exit_: str) -> TimedOperator:
    """Returns a stretch of the original, norms folded, that runs by itself."""
    module, specs = extract(graph, entry, exit_)
    folded = fold_norms(Graph(module, specs, specs[:1], graph.name)).module
    return TimedOperator(signature(folded, specs), folded, specs)


def _activation(graph: Graph, end: Position) -> nn.Module | None:
    """Returns what stays behind a cut that ends here."""
    return None if end.output == end.target else extract(graph, end.target, end.output)[0]


def _replacement(graph: Graph, cut: Cut, end: str, activation: nn.Module | None) -> TimedOperator | None:
    """Returns what is emitted in place of a stretch, with the activation that stays; None where nothing is."""
    removed = cut.step.kind == "remove"
    parts: list[nn.Module] = [] if removed else _emitted(cut)
    if activation is not None and not (removed and _idempotent(graph, cut.step.entry, end)):
        parts.append(activation)
    if not parts:
        return None
    module = fx.symbolic_trace(nn.Sequential(*parts)).eval()
    specs = (TensorSpec(cut.step.entry, cut.input_shape),)
    return TimedOperator(signature(module, specs), module, specs)


def _emitted(cut: Cut) -> list[nn.Module]:
    """Returns the operator of a cut as it ships, the norm behind it included, weights as torch initialises them."""
    parts: list[nn.Module] = [*_padding(cut), new_operator(cut)]
    if cut.bias_map:
        parts.append(_BiasMap(cut.output_shape))
    if cut.step.norm:
        parts.append(nn.GroupNorm(cut.step.norm, cut.output_shape[0]))
    return parts


def _padding(cut: Cut) -> list[nn.Module]:
    """Returns the padding, or cropping, that no symmetric padding of the operator can stand for."""
    step = cut.step
    sizes = list(zip(cut.input_shape[1:], cut.output_shape[1:], step.kernel, step.stride, strict=False))
    if not step.kernel or all(convolution_padding(*size) is not None for size in sizes):
        return []
    amounts: list[int] = []
    for before, after, kernel, stride in reversed(sizes):
        held = convolution_padding(before, after, kernel, stride)
        missing = 0 if held is not None else (after - 1) * stride + kernel - before
        amounts += [missing // 2, missing - missing // 2]
    kinds: dict[int, type[nn.Module]] = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d, 3: nn.ConstantPad3d}
    return [kinds[len(step.kernel)](tuple(amounts), 0.0)]


@final
class _BiasMap(nn.Module):
    """Adds a bias by position."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.bias_map = nn.Parameter(torch.ones(1, *shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the sum."""
        return torch.ops.aten.add.Tensor(x, self.bias_map)  # type: ignore[no-any-return]


def new_operator(cut: Cut) -> Operator:
    """Returns the operator that a cut puts in, norm folded, weights as torch initialises them."""
    step = cut.step
    if not step.kernel:
        return nn.Linear(cut.input_shape[-1], cut.output_shape[-1])
    sizes = zip(cut.input_shape[1:], cut.output_shape[1:], step.kernel, step.stride, strict=True)
    padding = tuple(convolution_padding(*size) or 0 for size in sizes)
    kinds: dict[int, Callable[..., Operator]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    convolution = kinds[len(step.kernel)]
    return convolution(cut.input_shape[0], cut.output_shape[0], step.kernel, step.stride, padding, groups=cut.groups)


def _idempotent(graph: Graph, entry: str, activation: str) -> bool:
    """Returns whether the activation behind a removed stretch repeats the one in front of it, and so goes too."""
    nodes = {node.name: node for node in graph.module.graph.nodes}
    pair = [nodes[entry], nodes[activation]]
    if any(node.op != "call_module" for node in pair):
        return False
    kinds = {type(graph.module.get_submodule(str(node.target))) for node in pair}
    return len(kinds) == 1 and kinds <= {nn.ReLU, nn.ReLU6}


def structure(graph: Graph, steps: Sequence[Step]) -> Graph:
    """Returns the network that the steps lead to as it will be emitted, its new weights not fitted but not zero either.

    Latency depends on the structure alone, but multiplying by zeros can be faster than by anything else.
    """
    cut = apply(graph, steps) if steps else graph.copied()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in cut.module.parameters():
            if parameter.dim() > 1 and not bool(parameter.any()):
                scale = parameter[0].numel() ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return replace(fold_norms(cut), name=graph.name)
