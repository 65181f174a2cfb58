"""The latency table: what each stretch takes as it is, and with each alternative in its place.

Everything is timed as it will be emitted: norms folded, and the activation that stays behind a cut included on both
sides. A stretch is timed once per signature, so a network of equal blocks is measured once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from compressors.graph import Graph, TensorSpec
from compressors.plan import Step
from compressors.problem import TimedOperator
from compressors.shapes import convolution_padding
from compressors.signature import signature
from compressors.surgery import apply, extract, fold_norms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from compressors.analysis.segments import Position, Segment
    from compressors.calibrate import Operator
    from compressors.problem import Problem


@dataclass(frozen=True)
class Alternative:
    """One thing that may be put in place of a segment.

    Attributes:
        segment: What it replaces.
        step: How.
        seconds: What it takes, the activation behind it included.
        saved: What it saves over leaving the segment as it is, > 0.
    """

    segment: Segment
    step: Step
    seconds: float
    saved: float


@dataclass(frozen=True)
class Table:
    """Seconds of everything that a plan can be made of.

    Attributes:
        kept: Chain name to the seconds of each stretch between neighbouring positions, as it is.
        alternatives: Everything that is faster than what it replaces.
    """

    kept: dict[str, tuple[float, ...]]
    alternatives: tuple[Alternative, ...]


def steps_for(segment: Segment) -> tuple[Step, ...]:
    """Returns every cut that the analysis allows for a segment, cheapest kind first."""
    removal = (Step("remove", segment.entry, segment.exit),) if segment.removable else ()
    stride = segment.stride
    regressions = (Step("regress", segment.entry, segment.exit, kernel, stride) for kernel in segment.kernels)
    return (*removal, *regressions)


def measure_table(problem: Problem, segments: Iterable[Segment]) -> Table:
    """Times every stretch of every chain, and every cut of every segment given, in one call of the timer."""
    graph = problem.graph
    chains = {chain.name: chain for chain in problem.analysis.chains}
    stretches = [
        (chain, index, _stretch(graph, chain.positions[index].output, chain.positions[index + 1].output))
        for chain in chains.values()
        for index in range(len(chain.positions) - 1)
    ]
    cuts = [(segment, step) for segment in segments for step in steps_for(segment)]
    activations: dict[str, nn.Module | None] = {}
    for segment, _ in cuts:
        end = chains[segment.chain].positions[segment.end]
        if end.output not in activations:
            activations[end.output] = _activation(graph, end)
    ends = [chains[segment.chain].positions[segment.end].output for segment, _ in cuts]
    replacements = [_replacement(graph, cut, end, activations[end]) for cut, end in zip(cuts, ends, strict=True)]
    seconds = _timed(problem, [operator for _, _, operator in stretches] + replacements)
    kept: dict[str, list[float]] = {name: [] for name in chains}
    for (chain, _, _), value in zip(stretches, seconds, strict=False):
        kept[chain.name].append(value)
    alternatives = [
        Alternative(segment, step, value, sum(kept[segment.chain][segment.start : segment.end]) - value)
        for (segment, step), value in zip(cuts, seconds[len(stretches) :], strict=True)
    ]
    faster = tuple(alternative for alternative in alternatives if alternative.saved > 0)
    return Table({name: tuple(values) for name, values in kept.items()}, faster)


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


def _replacement(
    graph: Graph, cut: tuple[Segment, Step], end: str, activation: nn.Module | None
) -> TimedOperator | None:
    """Returns what is emitted in place of a segment, with the activation that stays; None where nothing is."""
    segment, step = cut
    parts: list[nn.Module] = [] if step.kind == "remove" else [new_operator(segment, step)]
    if activation is not None and not (step.kind == "remove" and _idempotent(graph, segment, end)):
        parts.append(activation)
    if not parts:
        return None
    module = fx.symbolic_trace(nn.Sequential(*parts)).eval()
    specs = (TensorSpec(segment.entry, segment.input_shape),)
    return TimedOperator(signature(module, specs), module, specs)


def new_operator(segment: Segment, step: Step) -> Operator:
    """Returns the operator that a "regress" step puts in, norm folded, weights as torch initialises them."""
    if not step.kernel:
        return nn.Linear(segment.input_shape[-1], segment.output_shape[-1])
    sizes = zip(segment.input_shape[1:], segment.output_shape[1:], step.kernel, step.stride, strict=True)
    padding = tuple(convolution_padding(*size) or 0 for size in sizes)
    kinds: dict[int, Callable[..., Operator]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    convolution = kinds[len(step.kernel)]
    return convolution(segment.input_shape[0], segment.output_shape[0], step.kernel, step.stride, padding)


def _idempotent(graph: Graph, segment: Segment, activation: str) -> bool:
    """Returns whether the activation behind a removed segment repeats the one in front of it, and so goes too."""
    nodes = {node.name: node for node in graph.module.graph.nodes}
    pair = [nodes[segment.entry], nodes[activation]]
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
