"""How far a network has moved from the original, on samples that nothing was fitted to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from compressors.batches import channels_last, in_order
from compressors.precision import Precision, computed_in
from compressors.problem import Score
from compressors.tasks import Classification, Task, Unlabelled, choose_task, judged_output, task_named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from compressors.graph import Edges, Graph
    from compressors.problem import Samples


_TOLD_BY = 64
"""Samples that tell whether a network computes the same in another precision."""
_ROUGH = 0.01
"""Divergence from itself up to which it does: cuts are judged apart by more. In bfloat16 a ResNet-20's is 0.0002, a
VGG-16's 0.0001."""
_REST = Unlabelled()
"""How the outputs that no target belongs to are compared."""


def tensors(output: Any) -> tuple[torch.Tensor, ...]:
    """Returns a network's outputs, each (batch, ...), float32, whether it gives one tensor or several."""
    several = output if isinstance(output, tuple | list) else (output,)
    return tuple(each.float() for each in several)


@dataclass(frozen=True)
class Reference:
    """The original's outputs on some samples, computed once, so that many candidates can be compared with it.

    Where there are several outputs, divergence and agreement are the means over them: of the one that is judged as the
    task has it, of the others by their squared error relative to the original's variance.

    Attributes:
        samples: What they were computed on.
        outputs: Each (n, ...), float32.
        labels: Targets, (n, ...); int64 -1 where there is none.
        batch: Samples per batch.
        task: What the judged output means.
        judged: Which output the targets belong to.
        mask: Which tokens of a sample count, bool (n, tokens); None for all. Matters for outputs (n, tokens, width).
        precision: What candidates are computed in, the fits that are judged by this included; the original's outputs
            are float32's.
    """

    samples: Samples
    outputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor
    batch: int
    task: Task = field(default_factory=Classification)
    judged: int = 0
    mask: torch.Tensor | None = None
    precision: Precision = "float32"

    @staticmethod
    def of(
        original: Graph, samples: Samples, limit: int | None = None, batch: int = 256, task: str | None = None
    ) -> Reference:
        """Returns the original's outputs on the first `limit` samples (all by default).

        Args:
            original: The network to compare with.
            samples: What to compare on.
            limit: At most so many samples.
            batch: Samples per batch.
            task: A name of `compressors.tasks.TASKS`; None to tell it by the outputs and the targets.

        Raises:
            OptionError: There is no such task, or the targets fit none.
        """
        found, labels, masks = [], [], []
        place = token_mask(original)
        with torch.no_grad():
            for part in in_order(samples, batch, limit):
                found.append(_outputs(original.module, part.inputs))
                labels.append(part.labels)
                masks += [] if place is None else [part.inputs[place].bool()]
        targets = torch.cat(labels)
        chosen = choose_task(original, targets) if task is None else task_named(task)
        mask = torch.cat(masks) if masks else None
        return Reference(samples, joined(found), targets, batch, chosen, judged_output(original), mask)

    def first(self, count: int) -> Reference:
        """Returns the same for the first so many samples."""
        mask = None if self.mask is None else self.mask[:count]
        return replace(self, outputs=tuple(x[:count] for x in self.outputs), labels=self.labels[:count], mask=mask)

    def rough(self, original: Graph, precision: Precision) -> Reference:
        """Returns the same for candidates in a precision; itself where the original does not compute the same in it.

        Args:
            original: The network whose outputs these are.
            precision: Faster than float32 here, or float32.
        """
        if precision == self.precision:
            return self
        found = replace(self, precision=precision)
        try:
            told = found.first(_TOLD_BY).score(original.module)
        except RuntimeError:  # an operator that there is in float32 alone
            return self
        return found if told.divergence <= _ROUGH else self

    def score(self, module: nn.Module) -> Score:
        """Returns how `module`, in eval mode, on whatever device it is, compares on all of them."""
        batches = in_order(self.samples, self.batch, len(self.labels))
        with torch.no_grad(), computed_in(self.precision):
            return self.compare(joined([_outputs(module, part.inputs) for part in batches]))

    def compare(self, outputs: Sequence[torch.Tensor]) -> Score:
        """Returns how outputs, each (n, ...), compare; same samples, same order.

        An output that is not finite agrees with nothing: its decision is wrong and the divergence infinite.
        """
        distances, shares = [], []
        for at, (mine, wanted) in enumerate(zip(outputs, self.outputs, strict=True)):
            task = self.task if at == self.judged else _REST
            here, there = self._counted(mine.float()), self._counted(wanted)
            distances.append(float(task.divergence(here, there).mean()))
            shares.append(float(task.agreement(here, there).mean()))
        mean = sum(distances) / len(distances)
        metric = self.task.metric(self._counted(outputs[self.judged].float()), self.labels)
        return Score(
            # Rounding can make the mean of an identical network a hair negative.
            divergence=max(mean, 0.0) if math.isfinite(mean) else math.inf,
            agreement=sum(shares) / len(shares),
            accuracy=metric if isinstance(self.task, Classification) else None,
            samples=len(self.labels),
            metric=metric,
            metric_name="" if metric is None else self.task.metric_name,
            higher_is_better=self.task.higher_is_better,
        )

    def _counted(self, outputs: torch.Tensor) -> torch.Tensor:
        """Returns outputs with zeros where a token is padding, whatever was computed there."""
        if self.mask is None or outputs.dim() != 3 or outputs.shape[1] != self.mask.shape[1]:
            return outputs
        return outputs.masked_fill(~self.mask[:, :, None], 0.0)


def joined(parts: Sequence[Sequence[torch.Tensor]]) -> tuple[torch.Tensor, ...]:
    """Returns the outputs of several batches one after the other, each (n, ...)."""
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _outputs(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Returns what the module makes of a batch, on the processor; it computes where its weights are."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    return tuple(each.cpu() for each in tensors(module(*(channels_last(part.to(device)) for part in inputs))))


def token_mask(graph: Edges) -> int | None:
    """Returns which input marks the tokens that count, (batch, tokens); None where there is none."""
    places = [at for at, spec in enumerate(graph.inputs) if spec.is_mask and len(spec.shape) == 1]
    return places[0] if places else None


def score(
    original: Graph,
    candidate: Graph,
    samples: Samples,
    limit: int | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> Score:
    """Returns how the candidate compares with the original on the first `limit` samples (all by default)."""
    reference = Reference.of(original, samples, limit)
    heartbeat()
    return reference.score(candidate.module)
