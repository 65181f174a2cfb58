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

    from compressors.graph import Edges, TensorSpec
    from compressors.tasks.task import Task

TASKS: Final[dict[str, Task]] = {
    task.name: task for task in (Classification(), MultiLabel(), Denoising(), Unlabelled())
}
_NO_SCORES = ("hidden_state", "pooler", "pooled", "embed", "features", "box")
"""Parts of the names of outputs that libraries give to vectors which are no class scores."""
_SCORES = ("logits", "scores", "class", "prob")
"""Parts of the names of outputs that are."""


def is_class_scores(output: TensorSpec) -> bool:
    """Returns whether an output looks like scores of two or more classes: (classes,), or dense (classes, h, w).

    A vector whose name says that it is something else (`pooler_output`, `image_embeds`) does not, nor does a sequence
    (tokens, width): its first axis is no class.
    """
    if any(part in output.name for part in _NO_SCORES):
        return False
    return len(output.shape) in (1, 3, 4) and output.shape[0] >= 2


def judged_output(graph: Edges) -> int:
    """Returns which output targets belong to: class scores by their name, else by their shape, else the first."""
    scores = [at for at, output in enumerate(graph.outputs) if is_class_scores(output)]
    named = [at for at in scores if any(part in graph.outputs[at].name for part in _SCORES)]
    return next(iter([*named, *scores, 0]))


def task_named(name: str) -> Task:
    """Returns a task by its name.

    Raises:
        OptionError: There is no such task.
    """
    if name not in TASKS:
        raise OptionError("task", f"There is no task {name!r}; choose one of {', '.join(sorted(TASKS))}.")
    return TASKS[name]


def choose_task(graph: Edges, targets: torch.Tensor) -> Task:
    """Returns the task that fits best; who knows better asks for one by name.

    Args:
        graph: The network.
        targets: Of its samples, stacked: int64 (n,), -1 for none, or float32 (n, ...).

    Raises:
        OptionError: The targets are numbers of a shape that no task has.
    """
    output = graph.outputs[judged_output(graph)]
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


def check_task(graph: Edges, targets: torch.Tensor, name: str) -> Task:
    """Returns the task of this name, if the network and its samples can have it.

    Args:
        graph: The network.
        targets: Of its samples, as for `choose_task`.
        name: What the caller says that the network is for.

    Raises:
        OptionError: There is no such task, or the network or its targets contradict it; the message says which.
    """
    task, output = task_named(name), graph.outputs[judged_output(graph)]
    known = targets.is_floating_point() or bool((targets >= 0).any())
    wrong = None
    if name == "denoising" and not is_denoiser(graph):
        names = ", ".join(spec.name for spec in graph.inputs)
        wrong = f"a denoiser takes a `sample` and a `timestep`, and {graph.name} takes {names}"
    elif name == "denoising" and output.shape != _sample_of(graph):
        wrong = f"a denoiser's output has the shape of its sample {_sample_of(graph)}, this one has {output.shape}"
    elif name == "classification" and output.shape in ((), (1,)):
        wrong = f"classes need a score each, and the output {output.name} has one number; one class is `multi_label`"
    elif name == "classification" and targets.is_floating_point():
        wrong = "the samples may have several classes each, which is `multi_label`"
    elif name == "multi_label" and known and not targets.is_floating_point() and output.shape not in ((), (1,)):
        wrong = "the samples have one class each, which is `classification`; several need a list or a vector each"
    if wrong is not None:
        raise OptionError("task", f"{graph.name} is no network for the task {name!r}: {wrong}.")
    return task


def _sample_of(graph: Edges) -> tuple[int, ...]:
    return next(spec.shape for spec in graph.inputs if spec.name == "sample")
