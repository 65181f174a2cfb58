"""How a command ends: exit statuses, and the one line that says why."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Exit statuses, part of the interface."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BUDGET_NOT_MET = 3


class CommandError(Exception):
    """Ends the command.

    Attributes:
        lines: What went wrong, one line each; usually one.
        status: What to exit with.
    """

    def __init__(self, *lines: str, status: Status = Status.FAILED) -> None:
        super().__init__(" ".join(lines))
        self.lines = lines
        self.status = status


class InputError(CommandError):
    """What the user gave cannot be used."""

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines, status=Status.USAGE)
