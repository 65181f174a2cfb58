"""Numbers as people read them: sensible digits, always a unit. A dash stands for what was not measured."""

from __future__ import annotations

import json
import math
from typing import Any, Final

NOTHING: Final = "\N{EN DASH}"
_NARROW: Final = "\N{NARROW NO-BREAK SPACE}"
_MINUS: Final = "\N{MINUS SIGN}"


def significant(value: float, digits: int = 3) -> str:
    """Returns a number with so many significant digits, integers in full, e.g. 0.931, 12.4, 1,204."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = decimals_for(value, digits)
    return f"{value:,.{decimals}f}".replace("-", _MINUS)


def decimals_for(value: float, digits: int = 3) -> int:
    """Returns how many decimals show `value` with so many significant digits."""
    if value == 0 or not math.isfinite(value):
        return 0
    # Rounded first: 0.9999 has three digits as 1.00, not as 1.000.
    rounded = float(f"{abs(value):.{digits - 1}e}")
    return max(0, digits - 1 - math.floor(math.log10(rounded)))


def milliseconds(value: float | None, digits: int = 3) -> str:
    """Returns a latency, e.g. `0.931 ms`."""
    return NOTHING if value is None else f"{significant(value, digits)}{_NARROW}ms"


def percent(fraction: float | None, count: int | None = None) -> str:
    """Returns a fraction in percent, with as many decimals as `count` samples can tell apart."""
    if fraction is None:
        return NOTHING
    return f"{100 * fraction:.{_percent_decimals(count)}f}{_NARROW}%"


def points(before: float, after: float, count: int | None = None) -> str:
    """Returns the change from one fraction to another in percentage points, with its sign."""
    change = round(100 * (after - before), _percent_decimals(count))
    if change == 0:
        return "no change"
    sign = "+" if change > 0 else _MINUS
    return f"{sign}{abs(change):.{_percent_decimals(count)}f} points"


def _percent_decimals(count: int | None) -> int:
    return 1 if count is not None and count < 1000 else 2


def integer(value: int) -> str:
    """Returns a count with thousands separated."""
    return f"{value:,}"


def amount(value: int) -> str:
    """Returns a large count in short, e.g. `40.8 M`."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{significant(value / limit)}{_NARROW}{unit}"
    return str(value)


def size(value: int) -> str:
    """Returns bytes, e.g. `1.05 MiB`."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if value >= 1024**power:
            return f"{significant(value / 1024**power)}{_NARROW}{unit}"
    return f"{value}{_NARROW}B"


def duration(seconds: float) -> str:
    """Returns a time span, e.g. `0.8 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 60:
        return f"{seconds:.1f}{_NARROW}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{_NARROW}min {rest:02}{_NARROW}s"
    return f"{minutes // 60}{_NARROW}h {minutes % 60:02}{_NARROW}min"


def factor(value: float) -> str:
    """Returns a speed-up, with a multiplication sign."""
    return f"{value:.2f}\N{MULTIPLICATION SIGN}" if value < 10 else f"{significant(value)}\N{MULTIPLICATION SIGN}"


def change(before: float, after: float) -> str:
    """Returns a relative change in percent with its sign."""
    if before == 0:
        return NOTHING if after else "same"
    relative = round(100 * (after / before - 1), 1)
    if relative == 0:
        return "same"
    sign = "+" if relative > 0 else _MINUS
    digits = 0 if abs(relative) >= 10 else 1
    return f"{sign}{abs(relative):,.{digits}f}{_NARROW}%"


def scientific(value: float) -> str:
    """Returns an error with two significant digits, e.g. `3.1e-06`."""
    return "0" if value == 0 else f"{value:.1e}"


def shape(value: tuple[int | str, ...]) -> str:
    """Returns a tensor shape, with multiplication signs."""
    return f"{_NARROW}\N{MULTIPLICATION SIGN}{_NARROW}".join(map(str, value)) if value else "scalar"


def plain(value: Any) -> str:
    """Returns a JSON value as text."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value) if value else NOTHING
    if isinstance(value, dict):
        return "; ".join(f"{key}: {plain(item)}" for key, item in value.items()) if value else NOTHING
    return value if isinstance(value, str) else json.dumps(value)


def percentile(value: float) -> str:
    """Returns a percentile's name, e.g. `p50`."""
    return f"p{value:g}"
