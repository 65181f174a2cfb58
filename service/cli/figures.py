"""Numbers as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_ORDER = ("baseline_ms", "candidate_ms", "budget_ms", "floor_ms", "loss", "holdout_accuracy", "holdout_agreement")
_COUNTERS = ("epoch", "step", "learning_rate")
_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def significant(value: float, digits: int = 3) -> str:
    """Returns `value` with so many significant digits, never in scientific notation for everyday sizes."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - len(str(int(abs(value)))) if abs(value) >= 1 else digits + _leading_zeros(value))
    return f"{value:.{decimals}f}"


def _leading_zeros(value: float) -> int:
    fraction = f"{abs(value):.6f}".partition(".")[2]
    return len(fraction) - len(fraction.lstrip("0"))


def milliseconds(value: float) -> str:
    """Returns e.g. `1.92 ms`, `0.0813 ms` or `1234 ms`."""
    return f"{significant(value)} ms"


def percent(fraction: float) -> str:
    """Returns e.g. `91.72 %`."""
    return f"{100 * fraction:.2f} %"


def large(count: float) -> str:
    """Returns e.g. `273 k` or `1.24 M`."""
    for size, letter in _LARGE:
        if abs(count) >= size:
            return f"{significant(count / size)} {letter}"
    return f"{count:.0f}"


def data_size(size: float) -> str:
    """Returns e.g. `1.24 MB`, in powers of ten."""
    return f"{large(size)}B" if size >= 1000 else f"{size:.0f} B"


def clock(seconds: float) -> str:
    """Returns e.g. `0.8 s`, `42 s`, `1 min 24 s`, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def about(seconds: float) -> str:
    """Returns an estimate without false precision, e.g. `about 40 s`, `about 3 min`."""
    if seconds < 55:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    if seconds < 3570:
        return f"about {round(seconds / 60)} min"
    return f"about {significant(seconds / 3600, 2)} h"


def metric(name: str, value: float) -> str:
    """Returns a metric of a job with its name and unit, e.g. `baseline 1.92 ms`, `holdout accuracy 91.72 %`."""
    label = name.removesuffix("_ms").replace("_", " ")
    if name.endswith("_ms"):
        return f"{label} {milliseconds(value)}"
    if name.endswith(("accuracy", "agreement")):
        return f"{label} {percent(value)}"
    return f"{label} {significant(value)}"


def metrics(values: Mapping[str, float]) -> list[str]:
    """Returns the metrics that are worth a look: times first, then what training says; counters are in the message."""
    known = [name for name in _ORDER if name in values]
    others = sorted(name for name in values if name not in _ORDER and name not in _COUNTERS)
    return [metric(name, values[name]) for name in (*known, *others)]
