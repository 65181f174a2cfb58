"""What a check found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How good or bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        area: What it is about, e.g. `runtimes`.
        name: Of the thing, e.g. `onnxruntime`.
        level: `fail` where Shoal cannot do its work, `warn` where it cannot do all of it or not as well.
        found: What is there.
        meaning: What follows from that; empty where that is plain.
        advice: What to install or do; empty for nothing.
    """

    area: str
    name: str
    level: Level
    found: str
    meaning: str = ""
    advice: str = ""


Check = Callable[[], Iterator[Finding]]
"""Looks at one thing. What it raises becomes a finding too."""


class Trouble(Exception):  # noqa: N818 (it is what a check finds, no fault of ours)
    """Ends a check with a finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.found)
        self.finding = finding


@contextmanager
def needing(area: str, name: str, level: Level, extra: str) -> Iterator[None]:
    """Turns a package that is missing into a finding.

    Args:
        area: Of the finding.
        name: Of the finding.
        level: How bad that is.
        extra: The extra of the distribution that installs it.

    Raises:
        Trouble: It is missing.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        missing = Finding(area, name, level, f"{exc.name} is not installed", advice=f"install shoal[{extra}]")
        raise Trouble(missing) from exc


def examine(area: str, check: Check) -> list[Finding]:
    """Returns what a check finds; never raises."""
    found: list[Finding] = []
    try:
        found.extend(check())
    except Trouble as exc:
        found.append(exc.finding)
    except Exception as exc:  # noqa: BLE001 (whatever is broken here, the other checks are to be done)
        text = " ".join(str(exc).split()) or "no message"
        found.append(Finding(area, area, Level.FAIL, f"{type(exc).__name__}: {text}"[:500]))
    return found
