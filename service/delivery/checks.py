"""What a check of a delivered folder found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from deploy.errors import DeviceMissingError, RuntimeMissingError

Status = Literal["ok", "failed", "skipped"]

ABSENT: Final = (RuntimeMissingError, DeviceMissingError)
"""What is raised where the runtime or the device that a model was measured with is not on this machine."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What kind of check: `manifest`, `file`, `model`, `report`, `run.py`, `engine`, `run`, `latency` or
            `accuracy`.
        subject: What was checked, such as a file.
        status: `skipped` where it says nothing, such as a time on another machine; `message` says why.
        message: What was found, in words.
        got: What is there; empty where words say it all.
        wanted: What should be.
    """

    name: str
    subject: str
    status: Status
    message: str = ""
    got: str = ""
    wanted: str = ""


def ok(name: str, subject: str, message: str = "") -> Check:
    """Returns a check that passed."""
    return Check(name, subject, "ok", message)


def failed(name: str, subject: str, message: str, got: object = "", wanted: object = "") -> Check:
    """Returns a check that did not pass."""
    return Check(name, subject, "failed", message, str(got), str(wanted))


def skipped(name: str, subject: str, message: str) -> Check:
    """Returns a check that says nothing."""
    return Check(name, subject, "skipped", message)
