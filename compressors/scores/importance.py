"""From a measured change to an importance, and measuring only what the answer depends on (LayerMerge, 2024).

A change is what a merge does to the network: accuracy gained, as a fraction, or loss gained relative to the original's,
with a minus. It is negative where the merge does harm. The solver maximises a sum of importances:

1. exponential: exp(change), as published; a segment that stays as it is has exactly 1. Each segment adds about 1, so
   that the sum says above all how many there are: as much depth as the budget allows, harm decides between equals.
2. additive: the change itself, the logarithm of 1; a segment that stays has exactly 0. The sum is the harm to be
   expected, and more segments are worth nothing by themselves.
3. shifted: change - alpha * (mean change of the segments of length one), in the units of the change, as published for
   the method's predecessor (Kim et al., 2023); alpha > 0 rewards depth.

Measuring a change takes a training. `refine` starts from a guess for every segment and measures what lies on the best
path, until the best path is measured whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Form = Literal["exponential", "additive"]
Key = TypeVar("Key", bound=Hashable)


def accuracy_change(after: float, before: float) -> float:
    """Returns the accuracy gained, as a fraction; both are fractions in [0, 1].

    LayerMerge takes points over 100, which is the same.
    """
    return after - before


def loss_change(after: float, before: float) -> float:
    """Returns minus the loss gained relative to the original's (LayerMerge on denoising networks).

    Args:
        after: Loss of the merged network, measured with the noise and the time steps that `before` was measured with.
        before: Loss of the original, > 0.

    Raises:
        ValueError: `before` is not positive.
    """
    if not before > 0:
        raise ValueError(f"a relative change needs a positive loss to begin with; got {before}")
    return -(after - before) / before


def importance(change: float, form: Form = "exponential") -> float:
    """Returns what a change is worth; a change that is not a number is worth as little as can be.

    Args:
        change: Of accuracy or loss, negative for harm.
        form: See the module docstring.
    """
    change = -math.inf if math.isnan(change) else change
    return math.exp(change) if form == "exponential" else change


def importances(
    changes: Mapping[Key, float], untouched: Collection[Key] = (), form: Form = "exponential"
) -> dict[Key, float]:
    """Returns what every segment is worth; those that stay as they are need no measurement.

    Args:
        changes: Of each segment that is merged.
        untouched: Segments that stay as they are: exactly 1, or 0 if additive.
        form: See the module docstring.
    """
    return {key: importance(change, form) for key, change in changes.items()} | dict.fromkeys(
        untouched, importance(0.0, form)
    )


def shifted_importances(changes: Mapping[Key, float], singles: Collection[Key], alpha: float) -> dict[Key, float]:
    """Returns change - alpha * (mean change of the segments of length one) (case 3).

    Args:
        changes: Of every segment.
        singles: Segments of length one, at least one, all measured.
        alpha: Published: 1.6 and 1.2 for MobileNetV2, 1.4 for VGG19.

    Raises:
        ValueError: There is no segment of length one.
    """
    if not singles:
        raise ValueError("the mean change of the segments of length one needs such a segment")
    shift = alpha * sum(changes[key] for key in singles) / len(singles)
    return {key: change - shift for key, change in changes.items()}


@dataclass(frozen=True)
class Refined(Generic[Key]):
    """What lazy measuring found out.

    Attributes:
        path: The best path, by what is known.
        values: Importance of everything: measured, or guessed.
        measured: What was measured, in that order.
        settled: Whether all of `path` is measured.
    """

    path: tuple[Key, ...]
    values: Mapping[Key, float]
    measured: tuple[Key, ...]
    settled: bool


def refine(
    guesses: Mapping[Key, float],
    best: Callable[[Mapping[Key, float]], Sequence[Key]],
    measure: Callable[[Key], float],
    known: Mapping[Key, float] | None = None,
    limit: int | None = None,
) -> Refined[Key]:
    """Returns the best path after measuring no more than it takes.

    If no guess is below its measurement, a settled path is the best that there is: every other path is worth at most
    what it seems to be worth, and that is less.

    Args:
        guesses: Importance of everything, from something cheap.
        best: Returns the keys on the best path for given importances.
        measure: Returns one importance; expensive.
        known: What needs no measuring: segments that stay as they are, or what an earlier call measured.
        limit: Most measurements.
    """
    values = dict(guesses) | dict(known or {})
    certain, order = set(known or {}), list[Key]()
    while True:
        path = tuple(best(values))
        open_keys = [key for key in path if key not in certain]
        room = len(open_keys) if limit is None else min(len(open_keys), limit - len(order))
        if room <= 0:
            return Refined(path, values, tuple(order), not open_keys)
        for key in open_keys[:room]:
            values[key] = measure(key)
            certain.add(key)
            order.append(key)
