"""timm's optimisers and schedules, set up for a short training of a graph."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

    from compressors.tune.config import TuneConfig
    from compressors.tune.regulariser import ParameterGroup

Kind = Literal["sgd", "adam", "adamw"]

LEARNING_RATES: Final[dict[Kind, tuple[float, ...]]] = {
    "sgd": (0.03, 0.01, 0.003, 0.001),
    "adam": (1e-3, 3e-4, 1e-4, 3e-5),
    "adamw": (1e-3, 3e-4, 1e-4, 3e-5),
}
WEIGHT_DECAY: Final[dict[Kind, float]] = {"sgd": 5e-4, "adam": 0.0, "adamw": 0.02}
CLIP: Final[dict[Kind, float]] = {"sgd": 0.0, "adam": 1.0, "adamw": 1.0}
TICKS = 1_000_000
"""A schedule runs over so many ticks, whatever the number of steps: it follows the share done, by steps or by time."""
_SCHEDULES = {"linear": "poly", "cosine": "cosine", "milestones": "multistep", "steps": "step"}
"""timm's names."""
_FIRST = 0.01
"""Share of the peak that a warm-up begins at."""

_SUM = "sum_of_rates"
"""In a parameter group: of all steps together, for parameters whose travel was asked for."""

_ADAPTIVE_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def choose_optimizer(module: fx.GraphModule, config: TuneConfig) -> Kind:
    """Returns AdamW for networks with layer or group norms or attention, whose gradients differ in scale; else SGD."""
    if config.optimizer != "auto":
        return config.optimizer
    attends = any("attention" in str(node.target) for node in module.graph.nodes if node.op == "call_function")
    normed = any(isinstance(part, _ADAPTIVE_NORMS) for part in module.modules())
    return "adamw" if attends or normed else "sgd"


def learning_rates(kind: Kind, config: TuneConfig) -> tuple[float, ...]:
    """Returns the peak rates to try, highest first."""
    asked = LEARNING_RATES[kind] if config.learning_rates is None else config.learning_rates
    return tuple(sorted(asked, reverse=True))


def lowest_rate(module: fx.GraphModule, config: TuneConfig) -> float:
    """Returns the lowest of the peak rates that would be tried for a module."""
    return min(learning_rates(choose_optimizer(module, config), config))


def make_optimizer(
    module: fx.GraphModule, kind: Kind, peak: float, config: TuneConfig, own: Sequence[ParameterGroup] = ()
) -> torch.optim.Optimizer:
    """Returns an optimiser of the module's parameters at the peak rate.

    Args:
        module: What is trained.
        kind: Which optimiser.
        peak: Highest learning rate.
        config: Weight decay and momentum.
        own: Parameters with a rate and a decay of their own.
    """
    from timm.optim import create_optimizer_v2

    decay = WEIGHT_DECAY[kind] if config.weight_decay is None else config.weight_decay
    taken = {id(parameter) for group in own for parameter in group.parameters}
    others = [parameter for parameter in module.parameters() if id(parameter) not in taken and parameter.requires_grad]
    matrices = [parameter for parameter in others if not _is_vector(parameter)]
    vectors = [parameter for parameter in others if _is_vector(parameter)]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": decay},
        # Decay on norm gains, biases and single tokens or scales harms short trainings.
        {"params": vectors, "weight_decay": decay if config.decay_vectors else 0.0},
        *(
            {
                "params": list(group.parameters),
                "weight_decay": group.weight_decay,
                "lr": group.rate or peak,
                _SUM: None if group.travel is None else group.travel / _gain(kind, group.gradient, config),
            }
            for group in own
        ),
    ]
    plain = config.momentum == 0 or not config.nesterov  # Nesterov's needs a momentum
    name = "momentum" if kind == "sgd" and plain else kind
    groups = [group for group in groups if group["params"]]
    return create_optimizer_v2(groups, opt=name, lr=peak, momentum=config.momentum)


def make_schedule(optimizer: torch.optim.Optimizer, peak: float, config: TuneConfig) -> Any:
    """Returns timm's schedule over `TICKS`, over steps where it is one of steps: up to the peak, then down."""
    from timm.scheduler import create_scheduler_v2

    warmup = min(TICKS - 1, round(config.warmup * TICKS))
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched=_SCHEDULES[config.schedule],
        num_epochs=TICKS - warmup,
        decay_epochs=config.decay_steps,
        decay_milestones=[round(share * TICKS) for share in config.milestones],
        warmup_epochs=warmup,
        warmup_prefix=True,
        warmup_lr=_FIRST * peak,
        min_lr=0.0,
        decay_rate=config.gamma if config.schedule in {"milestones", "steps"} else 1.0,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return schedule


def set_rate(schedule: Any, progress: float, step: float, done: int | None = None) -> None:
    """Sets every group's rate for a share done.

    Args:
        schedule: From `make_schedule`.
        progress: Share done, in [0, 1].
        step: Share that one step does, in (0, 1].
        done: Steps done, for a schedule that goes by steps.
    """
    schedule.step_update(math.floor(progress * TICKS) if done is None else done)
    for group in schedule.optimizer.param_groups:
        if group.get(_SUM) is not None:
            group["lr"] = group[_SUM] * step


def _gain(kind: Kind, gradient: float, config: TuneConfig) -> float:
    """Returns how far a parameter gets for a sum of rates of 1."""
    return 1.0 if kind != "sgd" else gradient / (1 - config.momentum)


def _is_vector(parameter: torch.Tensor) -> bool:
    return sum(size > 1 for size in parameter.shape) <= 1
