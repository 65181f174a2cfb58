"""What each lossy cut costs by itself: the signal that its replacement does not reproduce.

A cut's replacement is fed what the original's stretch is fed, so that errors of other cuts do not count. With y the
original's output and y' the replacement's, over all samples, positions and channels,

    error = sum (y' - y)^2 / sum y^2.

0 is an exact cut; 1 is what a replacement by zeros would cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from compressors.graph import Graph
from compressors.plan import Step
from compressors.surgery.apply import cut_name
from compressors.surgery.extract import prefix_outputs
from compressors.surgery.stretch import AffineStretch

Batch = tuple[torch.Tensor, ...]


def step_errors(
    original: Graph, cut: Graph, steps: Sequence[Step], batches: Iterable[Batch]
) -> tuple[float | None, ...]:
    """Returns each step's error on the batches, in the order of the steps; None where the signal is zero or missing.

    Args:
        original: Before the cuts.
        cut: After them, fitted and trained or not, its own norms not folded yet.
        steps: What was done.
        batches: The original's inputs.

    Raises:
        OptionError: A step names no tensor of the original.
    """
    read = [_reads(cut, step) for step in steps]
    names = list(dict.fromkeys(name for names in read for name in names))
    if not names:
        return ()
    prefix = prefix_outputs(original, names)
    lost, signal = torch.zeros(len(steps), dtype=torch.float64), torch.zeros(len(steps), dtype=torch.float64)
    with torch.no_grad():
        for batch in batches:
            values = dict(zip(names, prefix(*batch), strict=True))
            for index, (step, (*inputs, output)) in enumerate(zip(steps, read, strict=True)):
                wanted = values[output].double()
                got = _replacement(cut, step, tuple(values[name] for name in inputs)).double()
                lost[index] += (got - wanted).square().sum()
                signal[index] += wanted.square().sum()
    pairs = zip(lost.tolist(), signal.tolist(), strict=True)
    return tuple(part / whole if whole > 0 else None for part, whole in pairs)


def _reads(cut: Graph, step: Step) -> list[str]:
    """Returns the tensors that a step's replacement reads, then the one that it stands for."""
    sides: list[str] = []
    if step.kind == "merge":
        stretch = cut.module.get_submodule(f"{cut_name(step)}.stretch")
        assert isinstance(stretch, AffineStretch)
        sides = [spec.name for spec in stretch.specs[1:]]
    return [step.entry, *sides, step.exit]


def _replacement(cut: Graph, step: Step, inputs: Batch) -> torch.Tensor:
    """Returns what a step's replacement computes."""
    if step.kind == "remove":
        return inputs[0]
    value = inputs
    for part in cut.module.get_submodule(cut_name(step)).children():
        value = (part(*value),)
    return value[0]
