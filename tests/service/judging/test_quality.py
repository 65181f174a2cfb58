"""Figures of merit and floors, against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from compressors.errors import OptionError
from compressors.graph import Graph, TensorSpec
from compressors.problem import Score
from compressors.tasks import TASKS
from service.judging.quality import AGREEMENT, Goal, Quality, classes, divergence_unit, goal
from service.spec import Budget, JobSpec, ModelSource
from service.tasknames import TASK_NAMES

LABELS, NOTHING, SEVERAL = torch.tensor([0, 1]), torch.tensor([-1, -1]), torch.zeros(2, 5)
IMAGE = TensorSpec("x", (3, 8, 8))
DENOISER = (TensorSpec("sample", (3, 8, 8)), TensorSpec("timestep", (), torch.int64))


def network(*outputs: TensorSpec, inputs: tuple[TensorSpec, ...] = (IMAGE,)) -> Graph:
    return Graph(torch.fx.symbolic_trace(torch.nn.Identity()), inputs, outputs, "net")


SCORES = network(TensorSpec("logits", (5,)))


def spec(**fields: object) -> JobSpec:
    return JobSpec.model_validate(
        {"model": ModelSource(onnx_artifact="artifacts/model"), "budget": Budget(fraction=0.5)} | fields
    )


def test_requests_know_the_tasks_that_the_engine_knows() -> None:
    assert set(TASK_NAMES) == set(TASKS)


@pytest.mark.parametrize(
    ("targets", "task", "name"),
    [
        (LABELS, None, "classification"),
        (SEVERAL, None, "multi_label"),
        (LABELS, "text_classification", "classification"),
        (LABELS, "distillation", "none"),
        (NOTHING, "multi_label", "multi_label"),
    ],
)
def test_the_task_is_what_was_asked_for_or_what_targets_tell(
    targets: torch.Tensor, task: str | None, name: str
) -> None:
    assert goal(spec(task=task), SCORES, targets).task.name == name


@pytest.mark.parametrize(
    ("targets", "task", "why"),
    [
        (LABELS, "denoising", "a denoiser takes a `sample` and a `timestep`, and net takes x"),
        (SEVERAL, "classification", "several classes each, which is `multi_label`"),
        (LABELS, "multi_label", "one class each, which is `classification`"),
    ],
)
def test_a_task_that_the_network_or_its_targets_contradict_is_refused(
    targets: torch.Tensor, task: str, why: str
) -> None:
    with pytest.raises(OptionError, match=why) as caught:
        goal(spec(task=task), SCORES, targets)
    assert caught.value.field == "task"


def test_a_denoiser_predicts_what_has_the_shape_of_its_sample() -> None:
    with pytest.raises(OptionError, match=r"this one has \(5,\)"):
        goal(spec(task="denoising"), network(TensorSpec("y", (5,)), inputs=DENOISER), NOTHING)


def test_an_accuracy_floor_is_for_classification_only() -> None:
    with pytest.raises(OptionError, match="judged by its mean average precision"):
        goal(spec(accuracy_floor=0.9), SCORES, SEVERAL)
    assert goal(spec(accuracy_floor=0.9), SCORES, LABELS).floor == 0.9


@pytest.mark.parametrize(("targets", "floor"), [(SEVERAL, 1.5), (LABELS, 0.0)])
def test_a_floor_must_lie_where_the_figure_does(targets: torch.Tensor, floor: float) -> None:
    with pytest.raises(OptionError, match="quality_floor bounds the"):
        goal(spec(quality_floor=floor), SCORES, targets)


def test_a_floor_bounds_a_figure_from_its_worse_side() -> None:
    higher, lower = Goal(TASKS["multi_label"], 0.5), Goal(TASKS["denoising"], 0.5)
    assert [goal.holds(0.6) for goal in (higher, lower)] == [True, False]
    assert [goal.holds(0.4) for goal in (higher, lower)] == [False, True]
    assert not higher.holds(math.nan)
    assert not lower.holds(math.nan)
    assert lower.holds(None)
    assert higher.bound == "the floor of 50.00%"
    assert lower.bound == "the limit of 0.5 (mean squared error)"


def test_a_figure_that_is_not_the_task_s_says_nothing_about_its_floor() -> None:
    assert Goal(TASKS["classification"], 0.9).accepts(Quality(AGREEMENT, 0.1, 10))


def test_without_a_task_the_figure_is_how_far_the_network_is_from_the_original() -> None:
    assert Goal(TASKS["none"]).of(Score(0.25, 0.75, None, 4)) == 0.25
    assert Goal(TASKS["classification"]).of(Score(0.25, 0.75, None, 4)) is None
    assert Goal(TASKS["denoising"]).of(Score(0.25, 0.75, None, 4, 0.1, "noise-prediction error", False)) == 0.1


def test_labels_count_only_where_outputs_are_scores() -> None:
    two = network(TensorSpec("pred_boxes", (4,)), TensorSpec("logits", (7,)))
    assert classes(two, None) == 7
    assert classes(network(TensorSpec("pooler_output", (32,))), None) is None
    assert classes(network(TensorSpec("y", (3, 8, 8)), inputs=DENOISER), None) is None
    assert classes(SCORES, "none") is None


def test_divergences_of_several_outputs_name_both_units() -> None:
    two = network(TensorSpec("pred_boxes", (4,)), TensorSpec("logits", (7,)))
    assert divergence_unit(Goal(TASKS["classification"]), SCORES) == "nats"
    assert divergence_unit(Goal(TASKS["none"]), two) == "of the original's variance"
    assert divergence_unit(Goal(TASKS["classification"]), two).startswith(
        "nats (logits) and of the original's variance"
    )
