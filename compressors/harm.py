"""What each cut alone does to the network's decisions, without labels.

Two measures of it, both the mean divergence from the original's outputs on selection samples (`compressors.tasks`):

* `screen`: the cut is fitted by plain least squares on the original's own tensors and the rest of the network runs as
  it is. Cheap: all cuts from one entry with one kernel share one X^T X, the tensors up to the cut are computed once,
  and only what lies behind the cut runs again. It overrates what refitting repairs, above all removals.
* `refitted`: the cuts are applied and everything behind them refitted. It is what a plan really gets, and costs a fit.

And one that looks at a cut's own output, and runs nothing behind it:

* `missed`: the share of what a stretch puts out that the operator fitted to it does not reproduce.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from compressors.batches import in_order
from compressors.calibrate import Moments, Operator, Rows, picks, solve_ridge
from compressors.execute import Stream, evaluate
from compressors.fit import FitConfig, fit
from compressors.fit.gain import fit_gain
from compressors.precision import computed_in
from compressors.score import Reference, joined, tensors
from compressors.surgery import apply
from compressors.surgery.normed import NormedStretch, replacement
from compressors.surgery.stretch import AffineStretch
from compressors.table import Alternative, new_operator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from compressors.batches import Batch
    from compressors.channel_line import Line
    from compressors.graph import Graph
    from compressors.plan import Step
    from compressors.problem import Samples, Score

_RIDGE = 1e-4


@dataclass(frozen=True)
class ScreenConfig:
    """How much data the screening takes.

    Attributes:
        samples: Calibration samples for the fits.
        batch: Samples per batch.
        rows_per_feature: Rows to gather per unknown of one output.
        least_rows: Never fewer rows than this.
        memory_bytes: Tensors at the ends of all cuts are kept, up to this; fewer samples are taken to stay below.
        seed: For positions.
        lines: What takes the place of activations in merges, by node; nothing where there is none.
        enough: Asked after every batch that cuts are scored on; the rest is left out when it says yes.
    """

    samples: int = 256
    batch: int = 128
    rows_per_feature: int = 10
    least_rows: int = 5_000
    memory_bytes: int = 3 * 2**30
    seed: int = 0
    lines: Mapping[str, Line] = field(default_factory=dict)
    enough: Callable[[], bool] = lambda: False


def screen(
    graph: Graph,
    alternatives: Sequence[Alternative],
    calibration: Samples,
    reference: Reference,
    config: ScreenConfig,
    heartbeat: Callable[[float], None] = lambda _: None,
) -> dict[Step, Score]:
    """Returns the score of the network with one cut at a time, nothing refitted, in the reference's precision.

    Args:
        graph: The original.
        alternatives: The cuts; each is judged alone.
        calibration: For the fits.
        reference: The original's decisions on what is judged on.
        config: How much data.
        heartbeat: Told the share done; may raise to stop.
    """
    operators: dict[Step, nn.Module] = {
        alternative.step: replacement(graph, alternative.step, alternative.cut.output_shape[0], config.lines)
        for alternative in alternatives
        if alternative.step.kind == "merge"
    }
    found: dict[Step, list[tuple[torch.Tensor, ...]]] = {alternative.step: [] for alternative in alternatives}
    total, done = len(reference.labels), 0
    with computed_in(reference.precision):
        _fit_norms(graph, operators, in_order(calibration, config.batch, _affordable(alternatives, config)))
        batches = _batches(alternatives, calibration, config)
        operators |= _fitted(graph, alternatives, batches, config, lambda done: heartbeat(done / 2))
        for batch in in_order(reference.samples, reference.batch, total):
            for step, outputs in _outputs(graph, batch.inputs, list(found), operators):
                found[step].append(outputs)
            done += len(batch)
            heartbeat(0.5 + 0.5 * done / total)
            if config.enough():
                break
    judged = reference.first(done)
    return {step: judged.compare(joined(outputs)) for step, outputs in found.items()}


def missed(
    graph: Graph, alternatives: Sequence[Alternative], calibration: Samples, config: ScreenConfig
) -> dict[Step, float]:
    """Returns the share, in [0, 1], of each regression's stretch's output that the operator does not reproduce.

    It is the squared error on samples that nothing was fitted to, relative to the variance between samples.

    Args:
        graph: The original.
        alternatives: The cuts; each regression among them is judged alone, on the original's own tensors.
        calibration: For the fits; the last batch of what is read is held back, unless it is the only one.
        config: How much data.
    """
    batches = _batches(alternatives, calibration, config)
    operators = _fitted(graph, alternatives, batches[:-1] or batches, config, lambda _: None)
    order = {node.name: at for at, node in enumerate(graph.module.graph.nodes)}
    stream = Stream(graph.module, batches[-1:], {name for step in operators for name in (step.entry, step.exit)})
    found: dict[Step, float] = {}
    for step in sorted(operators, key=lambda step: order[step.exit]):
        stream.advance(step.exit)
        values = stream.at(0)
        with torch.no_grad():
            found[step] = _share(operators[step](values[step.entry]), values[step.exit])
    return found


def _share(made: torch.Tensor, wanted: torch.Tensor) -> float:
    """Returns the squared error relative to the variance between samples, at most 1; 1 where that is rounding alone."""
    error, spread, whole = (
        float(values.square().sum(dtype=torch.float64)) for values in (made - wanted, wanted - wanted.mean(0), wanted)
    )
    tells = math.isfinite(error) and spread > 10 * torch.finfo(wanted.dtype).eps ** 2 * whole
    return min(1.0, error / spread) if tells else 1.0


def _batches(
    alternatives: Sequence[Alternative], calibration: Samples, config: ScreenConfig
) -> list[tuple[torch.Tensor, ...]]:
    """Returns the inputs that cuts are fitted on."""
    return [batch.inputs for batch in in_order(calibration, config.batch, _affordable(alternatives, config))]


def _outputs(
    graph: Graph, inputs: tuple[torch.Tensor, ...], steps: Sequence[Step], operators: Mapping[Step, nn.Module]
) -> Iterator[tuple[Step, tuple[torch.Tensor, ...]]]:
    """Yields the outputs of one batch under each step; what lies before a step's exit is computed once."""
    by_exit: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        by_exit[step.exit].append(step)
    read = {name for step in steps for name in _reads(step, operators)}
    stream = Stream(graph.module, [inputs], read)
    nodes = list(graph.module.graph.nodes)
    for at, node in enumerate(nodes):
        if node.name in by_exit:
            stream.advance(node.name)
            for step in by_exit[node.name]:
                yield step, _rest(graph.module, nodes[at + 1 :], stream.at(0), step, operators)


def _reads(step: Step, operators: Mapping[Step, nn.Module]) -> list[str]:
    """Returns the nodes that a cut reads: its entry, and side inputs of a merge."""
    operator = operators.get(step)
    sides = [spec.name for spec in operator.specs[1:]] if isinstance(operator, AffineStretch | NormedStretch) else []
    return [step.entry, *sides]


def _fit_norms(graph: Graph, operators: Mapping[Step, nn.Module], calibration: Iterable[Batch]) -> None:
    """Fits the norms behind merges in place, on the original's own tensors."""
    order = {node.name: at for at, node in enumerate(graph.module.graph.nodes)}
    normed = {step: module for step, module in operators.items() if isinstance(module, NormedStretch)}
    if not normed:
        return
    batches = [batch.inputs for batch in calibration]
    stream = Stream(graph.module, batches, {name for step in normed for name in (*_reads(step, normed), step.exit)})
    for step in sorted(normed, key=lambda step: order[step.exit]):
        stream.advance(step.exit)
        fit_gain(normed[step].norm, _pairs(step, normed[step], stream, len(batches)))


def _pairs(
    step: Step, module: NormedStretch, stream: Stream, batches: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields what a norm behind a merge is given, and what it should make of it."""
    for batch in range(batches):
        values = stream.at(batch)
        with torch.no_grad():
            given = module.stretch(*(values[name] for name in _reads(step, {step: module})))
        yield given, values[step.exit]


def _affordable(alternatives: Sequence[Alternative], config: ScreenConfig) -> int:
    """Returns how many samples' tensors fit into memory, at least one batch."""
    ends: dict[str, int] = {}
    for alternative in alternatives:
        cut = alternative.cut
        ends[cut.step.entry] = 4 * math.prod(cut.input_shape)
        ends[cut.step.exit] = 4 * math.prod(cut.output_shape)
    return min(config.samples, max(config.batch, config.memory_bytes // max(1, sum(ends.values()))))


def _rest(
    module: fx.GraphModule,
    nodes: list[fx.Node],
    values: dict[str, object],
    step: Step,
    operators: Mapping[Step, nn.Module],
) -> tuple[torch.Tensor, ...]:
    """Returns the outputs when `step` gives the value of its exit."""
    values = dict(values)
    read = [values[name] for name in _reads(step, operators)]
    with torch.no_grad():
        values[step.exit] = read[0] if step.kind == "remove" else operators[step](*read)
        evaluate(module, nodes, values)
    return tensors(values[nodes[-1].name])


def _fitted(
    graph: Graph,
    alternatives: Sequence[Alternative],
    batches: Sequence[tuple[torch.Tensor, ...]],
    config: ScreenConfig,
    heartbeat: Callable[[float], None],
) -> dict[Step, Operator]:
    """Returns a fitted operator for every regression; those that read the same patches are solved together."""
    groups: dict[tuple[str, tuple[int, ...], tuple[int, ...]], dict[Step, Operator]] = defaultdict(dict)
    for alternative in alternatives:
        step = alternative.step
        if step.kind == "regress":
            groups[step.entry, step.kernel, step.stride][step] = new_operator(alternative.cut)
    order = {node.name: at for at, node in enumerate(graph.module.graph.nodes)}
    ends = {name for group in groups.values() for step in group for name in (step.entry, step.exit)}
    stream = Stream(graph.module, batches, ends)
    operators: dict[Step, Operator] = {}
    for done, group in enumerate(groups.values()):
        heartbeat(done / len(groups))
        stream.advance(max((step.exit for step in group), key=order.__getitem__))
        _solve_together(group, stream, len(batches), config)
        operators |= group
    return operators


def _solve_together(operators: dict[Step, Operator], stream: Stream, batches: int, config: ScreenConfig) -> None:
    """Fits regressions that differ only in their exits, in place: one X^T X, outputs side by side."""
    group = list(operators)
    first = operators[group[0]]
    rows = Rows(first)
    moments: Moments | None = None
    for batch, (x, targets) in enumerate(_tensors(group, stream, batches)):
        wanted = max(config.least_rows, config.rows_per_feature * rows.features)
        per_sample = -(-wanted // (len(x) * batches))
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + batch)
        picked = picks(rows.positions(targets[0]), per_sample, generator)
        y = torch.cat([rows.outputs(target, picked) for target in targets], dim=2)
        here = Moments.of(rows.inputs(x, picked), y)
        moments = here if moments is None else moments + here
    assert moments is not None
    solution = solve_ridge(moments, _RIDGE)
    start = 0
    for operator in operators.values():
        end = start + operator.weight.shape[0]
        with torch.no_grad():
            operator.weight.copy_(Rows(operator).weight(solution.matrix[:, :, start:end]))
            assert operator.bias is not None
            operator.bias.copy_(solution.bias[:, start:end].flatten())
        start = end


def _tensors(group: Sequence[Step], stream: Stream, batches: int) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
    for batch in range(batches):
        values = stream.at(batch)
        yield values[group[0].entry], [values[step.exit] for step in group]


def refitted(
    graph: Graph,
    steps: Sequence[Step],
    calibration: Samples,
    reference: Reference,
    config: FitConfig,
    lines: Mapping[str, Line],
) -> Score:
    """Returns the score of the network with these cuts alone, what follows refitted, in the reference's precision."""
    cut = apply(graph, steps, lines)
    with computed_in(reference.precision):
        result = fit(graph, cut, steps, calibration, config)
    return reference.score(result.graph.module)
