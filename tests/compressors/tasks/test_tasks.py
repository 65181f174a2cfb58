"""Losses, divergences and metrics against their definitions."""

import math

import pytest
import torch
from torch.nn import functional as F

from compressors.errors import OptionError
from compressors.graph import Graph, TensorSpec
from compressors.tasks import TASKS, choose_task, is_class_scores, task_named
from compressors.tasks.multi_label import average_precision

classification, multi_label, denoising, none = (
    TASKS[n] for n in ("classification", "multi_label", "denoising", "none")
)


@pytest.fixture(params=sorted(TASKS))
def task(request):
    return TASKS[request.param]


def test_a_network_is_at_no_distance_from_itself(task) -> None:
    teacher = torch.randn(6, 5)
    torch.testing.assert_close(task.divergence(teacher, teacher), torch.zeros(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(task.distillation(teacher, teacher, 3.0), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(task.agreement(teacher, teacher), torch.ones(6))


def test_distance_grows_with_the_disturbance_and_has_a_gradient(task) -> None:
    teacher, noise = torch.randn(2, 16, 5)
    distances = [float(task.divergence(teacher + size * noise, teacher).mean()) for size in (0.01, 0.1, 1.0)]
    assert distances == sorted(distances)
    student = (teacher + noise).requires_grad_()
    task.distillation(student, teacher, 2.0).backward()
    assert float(student.grad.abs().sum()) > 0


def test_outputs_that_are_not_finite_agree_with_nothing(task) -> None:
    teacher = torch.randn(4, 5)
    student = teacher.clone()
    student[0] = torch.nan
    assert task.agreement(student, teacher)[0] == 0
    assert not math.isfinite(float(task.divergence(student, teacher).mean()))


def test_distillation_is_the_divergence_of_softened_outputs() -> None:
    student, teacher = torch.randn(2, 6, 5)
    soft, wanted = (student / 3).softmax(1), (teacher / 3).softmax(1)
    expected = (wanted * (wanted.log() - soft.log())).sum(1).mean() * 9
    torch.testing.assert_close(classification.distillation(student, teacher, 3.0), expected)


def test_cross_entropy_leaves_out_what_has_no_label() -> None:
    outputs = torch.randn(4, 3)
    hard = F.cross_entropy(outputs[[0, 2]], torch.tensor([0, 2]))
    torch.testing.assert_close(classification.loss(outputs, torch.tensor([0, -1, 2, -1])), hard)
    assert classification.loss(outputs, torch.full((4,), -1)) is None


def test_label_smoothing_spreads_a_share_over_all_classes() -> None:
    outputs, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    soft = 0.7 * F.one_hot(labels, 3).float() + 0.1
    expected = -(soft * outputs.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(classification.loss(outputs, labels, 0.3), expected)
    torch.testing.assert_close(classification.loss(outputs, soft), expected)


def test_dense_outputs_are_averaged_over_positions() -> None:
    student, teacher = torch.randn(2, 3, 5, 4, 4)
    labels = torch.randint(0, 5, (3, 4, 4))
    flat = [part.permute(0, 2, 3, 1).reshape(-1, 5) for part in (student, teacher)]
    torch.testing.assert_close(
        classification.divergence(student, teacher).mean(), classification.divergence(*flat).mean()
    )
    assert classification.metric(student, labels) == pytest.approx(classification.metric(flat[0], labels.flatten()))
    assert classification.metric(student, torch.tensor([1, 2, 3])) is None
    assert classification.loss(student, torch.tensor([1, 2, 3])) is None


def test_multi_label_distance_is_the_mean_of_bernoulli_divergences() -> None:
    student, teacher = torch.randn(2, 6, 5)
    p, q = teacher.sigmoid().double(), student.sigmoid().double()
    expected = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(multi_label.divergence(student, teacher), expected.mean(1).float(), rtol=1e-4, atol=1e-6)
    soft = multi_label.divergence(student / 2, teacher / 2).mean() * 4
    torch.testing.assert_close(multi_label.distillation(student, teacher, 2.0), soft)


def test_multi_label_loss_leaves_out_what_is_not_known() -> None:
    outputs, targets = torch.randn(3, 2), torch.tensor([[1.0, 0.0], [torch.nan, 1.0], [0.0, torch.nan]])
    known = targets.isfinite()
    expected = F.binary_cross_entropy_with_logits(outputs[known], targets[known])
    torch.testing.assert_close(multi_label.loss(outputs, targets), expected)
    assert multi_label.loss(outputs, torch.full((3, 2), torch.nan)) is None
    smooth = F.binary_cross_entropy_with_logits(outputs[known], targets[known] * 0.8 + 0.1)
    torch.testing.assert_close(multi_label.loss(outputs, targets, 0.2), smooth)


def slow_precision(scores: list[float], positive: list[bool]) -> float:
    """Average precision, threshold by threshold."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [yes for score, yes in zip(scores, positive, strict=True) if score >= threshold]
        recall = sum(taken) / sum(positive)
        total += sum(taken) / len(taken) * (recall - before)
        before = recall
    return total


def test_average_precision_is_that_of_the_slow_way_and_of_scikit_learn() -> None:
    ranking = pytest.importorskip("sklearn.metrics")
    for ties in (False, True):
        scores = torch.randint(0, 6, (40,)).float() if ties else torch.randn(40)
        positive = torch.rand(40) < 0.3
        found = average_precision(scores, positive)
        assert found == pytest.approx(slow_precision(scores.tolist(), positive.tolist()))
        assert found == pytest.approx(ranking.average_precision_score(positive, scores))


def test_mean_average_precision_is_over_the_classes_that_occur() -> None:
    outputs = torch.tensor([[3.0, 0.0, 0.0], [2.0, 1.0, 1.0], [1.0, 2.0, 2.0]])
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert multi_label.metric(outputs, targets) == pytest.approx((1.0 + 0.5) / 2)
    assert multi_label.metric(outputs, torch.zeros(3, 3)) is None
    broken = outputs.clone()
    broken[0, 0] = torch.nan
    assert multi_label.metric(broken, targets) == pytest.approx((1 / 3 + 0.5) / 2)


def test_one_score_and_labels_of_yes_and_no_are_one_class() -> None:
    outputs, labels = torch.tensor([[2.0], [-1.0], [5.0]]), torch.tensor([1, 0, -1])
    expected = F.binary_cross_entropy_with_logits(outputs[:2, 0], torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(multi_label.loss(outputs, labels), expected)
    assert multi_label.metric(outputs, labels) == 1.0


def test_relative_error_is_one_for_the_mean_output() -> None:
    teacher = torch.randn(64, 3, 2) * 7 + 5
    constant = teacher.mean(0).expand_as(teacher)
    assert float(none.divergence(constant, teacher).mean()) == pytest.approx(1.0, rel=1e-5)
    assert float(none.divergence(teacher[:1] + 1, teacher[:1])) > 0
    assert none.loss(teacher, torch.zeros(64)) is None
    assert none.metric(teacher, torch.zeros(64)) is None


def test_denoising_is_judged_by_the_error_of_the_noise() -> None:
    outputs, noise = torch.randn(2, 4, 3, 8, 8)
    assert denoising.metric(outputs, noise) == pytest.approx(float(F.mse_loss(outputs, noise)), rel=1e-5)
    torch.testing.assert_close(denoising.loss(outputs, noise), F.mse_loss(outputs, noise))
    assert not denoising.higher_is_better
    assert denoising.metric(torch.full_like(outputs, torch.nan), noise) == float("inf")
    assert denoising.loss(outputs, torch.full((4,), -1)) is None


def network(inputs: dict[str, tuple[int, ...]], output: tuple[str, tuple[int, ...]]) -> Graph:
    specs = tuple(TensorSpec(name, shape) for name, shape in inputs.items())
    return Graph(torch.fx.symbolic_trace(torch.nn.Identity()), specs, (TensorSpec(*output),), "made")


IMAGE, LABELS, NO_LABELS = {"x": (3, 8, 8)}, torch.tensor([3, -1]), torch.tensor([-1, -1])


@pytest.mark.parametrize(
    ("inputs", "output", "targets", "expected"),
    [
        (IMAGE, ("logits", (5,)), LABELS, "classification"),
        (IMAGE, ("logits", (5,)), NO_LABELS, "classification"),
        (IMAGE, ("logits", (5, 8, 8)), NO_LABELS, "classification"),
        (IMAGE, ("logits", (5,)), torch.zeros(2, 5), "multi_label"),
        (IMAGE, ("logit", (1,)), torch.tensor([0, 1]), "multi_label"),
        (IMAGE, ("logit", (1,)), NO_LABELS, "none"),
        (IMAGE, ("pooler_output", (5,)), NO_LABELS, "none"),
        (IMAGE, ("last_hidden_state", (7, 5)), NO_LABELS, "none"),
        (IMAGE, ("tokens", (7, 5)), NO_LABELS, "none"),
        ({"sample": (3, 8, 8), "timestep": ()}, ("out_sample", (3, 8, 8)), torch.zeros(2, 3, 8, 8), "denoising"),
    ],
)
def test_task_is_told_by_inputs_outputs_and_targets(inputs, output, targets, expected) -> None:
    assert choose_task(network(inputs, output), targets).name == expected


def test_targets_that_fit_nothing_ask_for_the_task() -> None:
    with pytest.raises(OptionError, match="Name the task") as caught:
        choose_task(network(IMAGE, ("y", (5,))), torch.zeros(2, 4))
    assert caught.value.field == "task"


def test_unknown_task_is_refused_with_those_there_are() -> None:
    with pytest.raises(OptionError, match="classification, denoising, multi_label, none"):
        task_named("segmentation")


def test_scores_of_one_class_are_no_class_scores() -> None:
    assert is_class_scores(TensorSpec("y", (2,)))
    assert not is_class_scores(TensorSpec("y", (1,)))
    assert not is_class_scores(TensorSpec("y", ()))
