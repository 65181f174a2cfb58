"""Single steps of a training against a plain loop."""

from dataclasses import replace
from itertools import chain

import pytest
import torch

from compressors.strategies import parity_recipes
from compressors.tasks import TASKS
from compressors.tune import TuneConfig
from compressors.tune.devices import Devices
from compressors.tune.training import Course, Moment, Stretch, Training
from tests.compressors.networks import graph_of
from tests.compressors.samples import BatchedTensors, random_samples


def course(name: str, **changes) -> Course:
    settings = {"batch": 16, "augment": False, "device": "cpu", "precision": "float32"} | changes
    graph = graph_of(name)
    data = random_samples(graph, 64, 1, labelled=True)
    return Course(graph, data, TASKS["classification"], TuneConfig(**settings), Devices("cpu", "float32"))


def states(lesson: Course, steps: int) -> tuple[list[dict[str, torch.Tensor]], Training]:
    """The weights at the start and after every step."""
    student = graph_of("resnet-a").copied().module
    seen = [{key: value.clone() for key, value in student.state_dict().items()}]
    training = Training(student, lesson, Stretch(steps, float("inf"), 0.1))

    def note(moment: Moment) -> bool:
        seen.append({key: value.clone() for key, value in student.state_dict().items()})
        return True

    training.run(note)
    return seen, training


def test_average_of_the_weights_is_that_of_their_history() -> None:
    seen, training = states(course("resnet-a", ema=0.9, distillation=0.0), 6)
    average = seen[0]
    for step, weights in enumerate(seen[1:], start=1):
        # The first two steps are taken over whole; then the decay rises towards 0.9.
        decay = min(1 - step ** (-2 / 3), 0.9) if step > 1 else 0.0
        average = {key: decay * average[key] + (1 - decay) * value for key, value in weights.items()}
    _, found = training.competitors()
    for key, value in found.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, average[key], rtol=1e-4, atol=1e-6)


def test_a_step_without_momentum_is_plain_descent() -> None:
    lesson = course(
        "resnet-a", optimizer="sgd", momentum=0.0, weight_decay=0.0, distillation=0.0, features=0.0, warmup=0.0
    )
    seen, _ = states(lesson, 1)
    module = graph_of("resnet-a").copied().module.train()
    order = next(iter(Training(module, lesson, Stretch(1, 1.0, 0.1))._batches()))
    inputs, labels = lesson.samples.batch(order)  # type: ignore[attr-defined]
    torch.nn.functional.cross_entropy(module(*inputs), labels).backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(seen[1][name], parameter.detach() - 0.1 * parameter.grad, rtol=1e-4, atol=1e-6)


def test_clipping_shortens_the_step() -> None:
    def moved(clip: float) -> float:
        seen, _ = states(course("resnet-a", momentum=0.0, warmup=0.0, weight_decay=0.0, clip=clip, distillation=0.0), 1)
        names = dict(graph_of("resnet-a").module.named_parameters())
        return float(sum((seen[1][name] - seen[0][name]).square().sum() for name in names)) ** 0.5

    assert moved(0.01) == pytest.approx(0.1 * 0.01, rel=1e-2)
    assert moved(0.0) > 0.1 * 0.01


def test_every_sample_is_seen_once_per_epoch_in_a_new_order() -> None:
    lesson = course("resnet-a")
    training = Training(graph_of("resnet-a").copied().module, lesson, Stretch(8, 1.0, 0.1))
    batches = []
    for batch in training._batches():
        batches.append(list(batch))
        training._step += 1
    first, second = (list(chain.from_iterable(part)) for part in (batches[:4], batches[4:]))
    assert sorted(first) == sorted(second) == list(range(64))
    assert first != second


def test_the_schedule_shortens_itself_when_time_is_short() -> None:
    student = graph_of("resnet-a").copied().module
    training = Training(student, course("resnet-a"), Stretch(100_000, 0.3, 0.1))
    rates = []

    def note(moment: Moment) -> bool:
        rates.append((moment.progress, moment.rate))
        return True

    training.run(note)
    assert rates[-1][0] == 1.0
    assert len(rates) < 100_000
    assert rates[-1][1] <= max(rate for _, rate in rates)


def test_noise_is_drawn_anew_in_training() -> None:
    class Counted(BatchedTensors):
        calls = 0

        def drawn(self, indices, generator):
            type(self).calls += 1
            inputs, labels = self.batch(indices)
            return (inputs[0] + torch.randn(inputs[0].shape, generator=generator),), labels

    graph = graph_of("resnet-a")
    lesson = course("resnet-a")
    samples = Counted(graph.inputs[0].random(32, 1))
    lesson = Course(graph, samples, lesson.task, lesson.config, lesson.devices)
    Training(graph.copied().module, lesson, Stretch(3, float("inf"), 0.01)).run(lambda _: True)
    assert Counted.calls == 3


PUBLISHED = {
    "EASIER": (parity_recipes.CIFAR, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}),
    "TLC on texts": (parity_recipes.GLUE, torch.optim.AdamW, {"lr": 2e-5, "weight_decay": 0.0}),
    "LayerMerge": (
        parity_recipes.ENTRY,
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-5, "nesterov": True},
    ),
    "LayerMerge's denoiser": (parity_recipes.ENTRY_DENOISER, torch.optim.Adam, {"lr": 2e-4}),
    "LayerCollapse on texts": (parity_recipes.COLLAPSE_TEXT, torch.optim.AdamW, {"lr": 1e-4, "weight_decay": 0.0}),
}
STEPS = 8


def scheduler(name: str, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """torch's own, over as many steps as the training has."""
    if name == "EASIER":
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, [STEPS // 2, 3 * STEPS // 4], gamma=0.1)
    if name == "LayerMerge":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    if name == "LayerCollapse on texts":
        return torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.9)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_papers_recipe_trains_as_torchs_own_loop_does(name: str) -> None:
    recipe, kind, options = PUBLISHED[name]
    if recipe.schedule == "steps":
        recipe = replace(recipe, decay_steps=3)  # so that it falls within a short training
    base = TuneConfig(augment=False, device="cpu", precision="float32")
    graph = graph_of("resnet-a")
    data = random_samples(graph, 64, 1, labelled=True)
    (rate,) = (config := recipe.applied(base, batch=16, rate=options["lr"])).learning_rates
    lesson = Course(graph, data, TASKS["classification"], config, Devices("cpu", "float32"))
    student = graph.copied().module
    training = Training(student, lesson, Stretch(STEPS, float("inf"), rate))
    training.run(lambda _: True)

    module = graph.copied().module.train()
    optimizer = kind(module.parameters(), **options)
    schedule = scheduler(name, optimizer)
    batches = Training(graph.copied().module, lesson, Stretch(STEPS, float("inf"), rate))
    for step in range(STEPS):
        batches._step = step
        inputs, labels = data.batch(next(iter(batches._batches())))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(*inputs), labels).backward()
        if config.clip:
            torch.nn.utils.clip_grad_norm_(module.parameters(), config.clip)
        optimizer.step()
        schedule.step()
    start, found = graph.module.state_dict(), student.state_dict()
    for key, value in module.named_parameters():
        if kind is torch.optim.SGD:
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6)
        # Adam takes whole steps along gradients that are next to nothing, and so along their rounding.
        assert (found[key] - value).norm() <= 0.03 * (value - start[key]).norm()


def test_a_recipe_without_distillation_never_asks_the_teacher() -> None:
    lesson = course("resnet-a", distillation=0.0, features=0.0)
    training = Training(graph_of("resnet-a").copied().module, lesson, Stretch(2, float("inf"), 0.1))
    asked = []
    training._teacher.register_forward_hook(lambda *_: asked.append(1))
    training.run(lambda _: True)
    assert not asked


def test_samples_without_a_target_are_distilled_even_so() -> None:
    graph = graph_of("resnet-a")
    lesson = course("resnet-a", distillation=0.0, features=0.0)
    lesson = replace(lesson, samples=random_samples(graph, 64, 1, labelled=False))
    student = graph.copied().module
    before = {key: value.clone() for key, value in student.named_parameters()}
    Training(student, lesson, Stretch(2, float("inf"), 0.1)).run(lambda _: True)
    assert any(not torch.equal(value, before[key]) for key, value in student.named_parameters())
