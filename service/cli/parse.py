"""What people type, turned into values: budgets, durations, shapes, options. Pure functions.

Each raises ValueError with a sentence that says what was got and what is wanted.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

_NUMBER: Final = r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?"
_BUDGET: Final = re.compile(rf"({_NUMBER})\s*(x|us|ms|s)", re.ASCII)
_DURATION: Final = re.compile(rf"({_NUMBER})\s*(d|h|min|m|s)", re.ASCII)
_MILLISECONDS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_SECONDS: Final = {"d": 86400.0, "h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0}
_MAX_SIDE: Final = 65_536
_ARCHITECTURE: Final = re.compile(
    r"(timm|torchvision):[A-Za-z0-9_.]+|(transformers|diffusers):[A-Za-z0-9_][A-Za-z0-9_./-]*", re.ASCII
)
_REGISTRIES: Final = {
    "timm": "resnet18",
    "torchvision": "resnet18",
    "transformers": "bert-base-uncased",
    "diffusers": "google/ddpm-cifar10-32",
}


@dataclass(frozen=True)
class BudgetLimit:
    """A latency budget: exactly one of the two is set.

    Attributes:
        latency_ms: Milliseconds, above 0.
        fraction: Of the original's latency, in (0, 1).
    """

    latency_ms: float | None = None
    fraction: float | None = None


def budget(text: str) -> BudgetLimit:
    """Reads `0.6x` as a fraction of the original's latency, `12ms`, `1.5s` or `800us` as a latency."""
    match = _BUDGET.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is no budget; write a fraction of the original's latency like 0.6x, or a time like 12ms"
        )
    value, unit = float(match[1]), match[2]
    if unit == "x":
        if not 0 < value < 1:
            raise ValueError(
                f"a budget of {text} asks for nothing or for the impossible; the fraction must lie between 0x and 1x"
            )
        return BudgetLimit(fraction=value)
    milliseconds = value * _MILLISECONDS[unit]
    if not 0 < milliseconds < math.inf:
        raise ValueError(f"a budget of {text} cannot be met by anything; the time must be above zero")
    return BudgetLimit(latency_ms=milliseconds)


def duration(text: str) -> timedelta:
    """Reads `90s`, `30m`, `2h`, `1h30m` or `1d`; above zero."""
    compact = "".join(text.split())
    parts = list(_DURATION.finditer(compact))
    if not parts or "".join(part[0] for part in parts) != compact:
        raise ValueError(f"{text!r} is no duration; write for example 90s, 30m, 2h or 1h30m")
    seconds = sum(float(part[1]) * _SECONDS[part[2]] for part in parts)
    if not 0 < seconds < timedelta.max.total_seconds():
        raise ValueError(f"a duration of {text} is out of range; it must be above zero")
    return timedelta(seconds=seconds)


def whole(text: str, low: int, high: int) -> int:
    """Reads a whole number in [low, high]."""
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise ValueError(f"{text!r} does not fit; write a whole number from {low} to {high}")
    return value


def sample_shape(text: str) -> tuple[int, ...]:
    """Reads `3,32,32` or `3x32x32`: the shape of one sample, each side at least 1."""
    try:
        sides = tuple(int(side) for side in re.split(r"[,x]", text))
    except ValueError:
        sides = ()
    if not sides or min(sides) < 1 or max(sides) > _MAX_SIDE:
        raise ValueError(
            f"{text!r} is no sample shape; write whole numbers from 1 to {_MAX_SIDE} without the batch, like 3,32,32"
        )
    return sides


def input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Reads `NAME=1,2,3`: an input's name and the shape of one sample of it."""
    name, equals, sizes = text.rpartition("=")
    if not equals or not name.strip():
        raise ValueError(f"{text!r} is no input shape; write NAME=SIZES without the batch, like input_ids=128")
    return name.strip(), sample_shape(sizes)


def numbers(text: str) -> tuple[float, ...]:
    """Reads `0.485,0.456,0.406`: finite numbers."""
    try:
        values = tuple(float(each) for each in text.split(","))
    except ValueError:
        values = (math.nan,)
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"{text!r} is no list of numbers; write one per channel, like 0.485,0.456,0.406")
    return values


def fraction(text: str) -> float:
    """Reads `0.91` or `91%` as a fraction in (0, 1]."""
    stripped = text.strip()
    try:
        value = float(stripped.removesuffix("%")) / (100 if stripped.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise ValueError(f"{text!r} is no accuracy; write a fraction above 0 and up to 1, like 0.91 or 91%")
    return value


def percentile(text: str) -> float:
    """Reads `50`, `p99` or `99.9` as a percentile in [1, 99.9]."""
    try:
        value = float(text.strip().lower().removeprefix("p"))
    except ValueError:
        value = math.nan
    if not 1 <= value <= 99.9:
        raise ValueError(f"{text!r} is no percentile; write a number from 1 to 99.9, like 50 or p99")
    return value


def option(text: str) -> tuple[str, Any]:
    """Reads `KEY=VALUE`; the value is JSON, and anything that is not JSON is taken as a string."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"{text!r} is no option; write KEY=VALUE, like kernels=[1,3]")
    try:
        return key.strip(), json.loads(value, parse_constant=_refuse_constant)
    except json.JSONDecodeError:
        return key.strip(), value


def architecture(text: str) -> str | None:
    """Returns `timm:NAME`, `transformers:NAME` and the like as it is, and None for anything that looks like a file.

    Raises:
        ValueError: A name with a prefix that is none of ours.
    """
    if _ARCHITECTURE.fullmatch(text):
        return text
    prefix = text.partition(":")[0]
    if ":" in text and prefix in _REGISTRIES:
        raise ValueError(f"{text!r} is no architecture name; write for example {prefix}:{_REGISTRIES[prefix]}")
    return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no value that JSON knows; write a finite number")
