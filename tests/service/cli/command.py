"""Runs the real command as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.cli.app import run

ROOT = Path(__file__).parents[3]


def environment(**changes: str) -> dict[str, str]:
    """Finds our packages from any folder, and no server of the developer's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


Ask = Callable[..., Done]
"""Runs a command, given as typed after `shoal`."""


def shoal_here(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Done:
    """Runs a command in this process: all of it but the start of the interpreter."""
    status = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Done(status, captured.out, captured.err)


def shoal(*arguments: str | Path, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs it to its end.

    Args:
        *arguments: As typed after `shoal`.
        folder: The working directory.
        **variables: Added to the environment.
    """
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=folder,
        env=environment(**variables),
    )
