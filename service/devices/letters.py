"""What lies in a job's folder between its worker and the server, when the worker asks a device far away.

device/{key}/question.json   AskedWork
device/{key}/answer.json     DoneWork
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

FOLDER: Final = "device"
QUESTION: Final = "question.json"
ANSWER: Final = "answer.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AskedWork(_Frozen):
    """A question as it lies in the folder; `files` are paths below the job's folder.

    `traceparent` names what it is a part of, empty for nothing.
    """

    kind: str
    request: dict[str, Any]
    files: tuple[str, ...]
    traceparent: str = ""


class DoneWork(_Frozen):
    """An answer as it lies in the folder; `files` are paths below the job's folder, the result first."""

    files: tuple[str, ...] = ()
    failure: tuple[str, str] | None = None
    took: float = 0.0


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that nobody sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
