"""The weights of distillation and labels."""

import torch
from torch.nn import functional as F

from compressors.tasks import TASKS
from compressors.tune import TuneConfig
from compressors.tune.loss import mixed

task = TASKS["classification"]


def test_samples_without_labels_are_only_distilled() -> None:
    student, teacher = torch.randn(2, 4, 3)
    unlabelled, some = torch.full((4,), -1), torch.tensor([0, -1, 2, -1])
    soft = task.distillation(student, teacher, 4.0)
    assert mixed(task, student, teacher, unlabelled, TuneConfig(distillation=0.5)) == soft
    hard = F.cross_entropy(student[[0, 2]], torch.tensor([0, 2]))
    torch.testing.assert_close(mixed(task, student, teacher, some, TuneConfig(distillation=0.0)), hard)
    torch.testing.assert_close(mixed(task, student, teacher, some, TuneConfig(distillation=1.0)), soft)
    torch.testing.assert_close(
        mixed(task, student, teacher, some, TuneConfig(distillation=0.25)), 0.25 * soft + 0.75 * hard
    )


def test_smoothing_reaches_the_labels() -> None:
    student, teacher, labels = *torch.randn(2, 4, 3), torch.tensor([0, 1, 2, 0])
    recipe = TuneConfig(distillation=0.0, label_smoothing=0.2)
    expected = F.cross_entropy(student, labels, label_smoothing=0.2)
    torch.testing.assert_close(mixed(task, student, teacher, labels, recipe), expected)
