"""Which task a network has, from its inputs, its outputs and the targets of its samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressors.errors import OptionError
from compressors.tasks.classification import Classification
from compressors.tasks.denoising import Denoising
from compressors.tasks.multi_label import MultiLabel
from compressors.tasks.noise import is_denoiser
from compressors.tasks.unlabelled import Unlabelled

if TYPE_CHECKING:
    import torch

    from compressors.graph import Graph, TensorSpec
    from compressors.tasks.task import Task

TASKS: Final[dict[str, Task]] = {
    task.name: task for task in (Classification(), MultiLabel(), Denoising(), Unlabelled())
}
_NO_SCORES = ("hidden_state", "pooler", "pooled", "embed", "features")
"""Parts of the names of outputs that transformers and timm give to vectors which are no class scores."""


def is_class_scores(output: TensorSpec) -> bool:
    """Returns whether an output looks like scores of two or more classes: (classes,), or dense (classes, h, w).

    A vector whose name says that it is something else (`pooler_output`, `image_embeds`) does not, nor does a sequence
    (tokens, width): its first axis is no class.
    """
    if any(part in output.name for part in _NO_SCORES):
        return False
    return len(output.shape) in (1, 3, 4) and output.shape[0] >= 2


def task_named(name: str) -> Task:
    """Returns a task by its name.

    Raises:
        OptionError: There is no such task.
    """
    if name not in TASKS:
        raise OptionError("task", f"There is no task {name!r}; choose one of {', '.join(sorted(TASKS))}.")
    return TASKS[name]


def choose_task(graph: Graph, targets: torch.Tensor) -> Task:
    """Returns the task that fits best; who knows better asks for one by name.

    Args:
        graph: The network.
        targets: Of its samples, stacked: int64 (n,), -1 for none, or float32 (n, ...).

    Raises:
        OptionError: The targets are numbers of a shape that no task has.
    """
    output = graph.outputs[0]
    if is_denoiser(graph):
        return TASKS["denoising"]
    if targets.is_floating_point():
        if tuple(targets.shape[1:]) == tuple(output.shape) and len(output.shape) == 1:
            return TASKS["multi_label"]
        raise OptionError(
            "task",
            f"Targets of shape {tuple(targets.shape[1:])} do not say what {graph.name} is for, whose output "
            f"{output.name} has {tuple(output.shape)}: a vector of classes has one number for each. "
            f"Name the task: one of {', '.join(sorted(TASKS))}.",
        )
    if tuple(output.shape) in ((), (1,)) and bool((targets >= 0).any()):
        return TASKS["multi_label"]
    return TASKS["classification" if is_class_scores(output) else "none"]
