"""Times and states in words."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from service.jobs.states import State
from service.report.formats import duration

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400
_LATELY: Final = 45

STATES: Final = {
    State.QUEUED: "Queued",
    State.RUNNING: "Running",
    State.CANCELLING: "Cancelling",
    State.SUCCEEDED: "Succeeded",
    State.FAILED: "Failed",
    State.CANCELLED: "Cancelled",
    State.EXPIRED: "Expired",
}

WHAT_TO_DO: Final = {
    "caller": "Something about the request, the model or the data has to change; the message says what.",
    "machine": "The machine is the cause: its log and `shoal doctor` say more. The same job may succeed later.",
    "shoal": "This is a defect of Shoal. The server's log says more; please report it with the message above.",
}
"""Advice by whose fault it is."""


def clock(seconds: float) -> str:
    """Returns a time span as it is read at a glance, e.g. `42 s`, `2 min 05 s`, `3 d 4 h`."""
    if seconds < _MINUTE:
        return f"{max(0, int(seconds))}\N{NARROW NO-BREAK SPACE}s"
    if seconds < _DAY:
        return duration(seconds)
    days, rest = divmod(int(seconds), _DAY)
    return f"{days}\N{NARROW NO-BREAK SPACE}d {rest // _HOUR}\N{NARROW NO-BREAK SPACE}h"


def ago(moment: datetime, now: datetime) -> str:
    """Returns how long ago a moment was, in one unit, e.g. `3 min ago`."""
    seconds = (now - moment).total_seconds()
    if seconds < _LATELY:
        return "just now"
    for limit, size, unit in ((_HOUR, _MINUTE, "min"), (_DAY, _HOUR, "h"), (30 * _DAY, _DAY, "d")):
        if seconds < limit:
            return f"{max(1, round(seconds / size))}\N{NARROW NO-BREAK SPACE}{unit} ago"
    return f"{moment:%Y-%m-%d}"
