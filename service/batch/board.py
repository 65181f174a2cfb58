"""Shows how far a batch is: a live table on a terminal, plain lines elsewhere, one JSON object a line for programs."""

from __future__ import annotations

import json
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Self, final

import click

from service.batch.outcome import ModelOutcome
from service.cli import figures

if TYPE_CHECKING:
    from types import TracebackType

    from rich.table import Table

    from service.registries import Entry

WORDS: Final = {
    "BUDGET_MET": "budget met",
    "BUDGET_NOT_MET": "budget not met",
    "NO_IMPROVEMENT": "no improvement",
    "REFUSED": "refused",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "EXPIRED": "expired",
    "UNREACHED": "not reached",
}
_STYLES: Final = {"BUDGET_MET": "green", "BUDGET_NOT_MET": "yellow", "NO_IMPROVEMENT": "dim"}
_MOST_ROWS: Final = 40


class Board(ABC):
    """Shows many models at once. Every method may be called from any thread. Use it as a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 - nothing to take down unless a board put something up
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @abstractmethod
    def begin(self, entries: Sequence[Entry]) -> None:
        """Takes up which models there are."""

    @abstractmethod
    def say(self, text: str) -> None:
        """Shows one line that stays."""

    @abstractmethod
    def note(self, label: str, text: str) -> None:
        """Shows what is done for a model before and after its job."""

    @abstractmethod
    def advance(self, label: str, phase: str, fraction: float) -> None:
        """Shows how far a model's job is."""

    @abstractmethod
    def end(self, outcome: ModelOutcome, *, fresh: bool) -> None:
        """Shows what came of a model."""


def open_board(*, as_json: bool) -> Board:
    """Returns the board that fits where it is shown."""
    if as_json:
        return JsonBoard()
    return LiveBoard() if sys.stderr.isatty() else PlainBoard()


def result_text(outcome: ModelOutcome, *, fresh: bool) -> str:
    """Returns what came of a model in a few words, e.g. `budget met, 1.83x: 12.1 ms to 6.61 ms`."""
    words = WORDS[outcome.verdict]
    if outcome.speedup is None:
        text = f"{words}: {outcome.reason}" if outcome.reason else words
    elif outcome.before_ms is None or outcome.after_ms is None:
        text = f"{words}, {outcome.speedup.value:.2f}x"
    else:
        times = f"{figures.milliseconds(outcome.before_ms)} to {figures.milliseconds(outcome.after_ms)}"
        text = f"{words}, {outcome.speedup.value:.2f}x: {times}"
    return text if fresh or outcome.speedup is None else f"{text} (done before)"


@final
class PlainBoard(Board):
    """A line when a job begins and when a model is done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all = 0
        self._done = 0
        self._phases: dict[str, str] = {}

    def begin(self, entries: Sequence[Entry]) -> None:
        """Says how many there are."""
        self._all = len(entries)
        self.say(f"{len(entries)} model{'s' * (len(entries) != 1)}")

    def say(self, text: str) -> None:
        """Prints the line."""
        click.echo(text, err=True)

    def note(self, label: str, text: str) -> None:
        """Prints that a job was begun; the rest goes by too fast to be worth a line."""
        if text.startswith("job "):
            self.say(f"{label}: {text}")

    def advance(self, label: str, phase: str, fraction: float) -> None:
        """Prints a line where a phase begins."""
        with self._lock:
            if self._phases.get(label) == phase:
                return
            self._phases[label] = phase
        self.say(f"{label}: [{100 * fraction:3.0f} %] {phase}")

    def end(self, outcome: ModelOutcome, *, fresh: bool) -> None:
        """Prints the result."""
        with self._lock:
            self._done += 1
            self.say(f"[{self._done}/{self._all}] {outcome.label}: {result_text(outcome, fresh=fresh)}")


@final
class JsonBoard(Board):
    """Objects with `event`: `begin`, `note`, `progress`, `model`; what is said for people goes to standard error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def begin(self, entries: Sequence[Entry]) -> None:
        """Lists the models."""
        self._print({"event": "begin", "models": [entry.label for entry in entries]})

    def say(self, text: str) -> None:
        """Prints the line where people look."""
        click.echo(text, err=True)

    def note(self, label: str, text: str) -> None:
        """Prints what is done."""
        self._print({"event": "note", "model": label, "text": text})

    def advance(self, label: str, phase: str, fraction: float) -> None:
        """Prints how far a job is."""
        self._print({"event": "progress", "model": label, "phase": phase, "fraction": fraction})

    def end(self, outcome: ModelOutcome, *, fresh: bool) -> None:
        """Prints the result."""
        self._print({"event": "model", "fresh": fresh, **outcome.model_dump(mode="json")})

    def _print(self, record: dict[str, Any]) -> None:
        with self._lock:
            click.echo(json.dumps(record))


@final
class LiveBoard(Board):
    """A table of all models, redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._lock = threading.Lock()
        self._rows: dict[str, tuple[str, str, float | None]] = {}
        self._live = Live(console=Console(stderr=True), get_renderable=self._picture, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(self, entries: Sequence[Entry]) -> None:
        """Shows a row for each."""
        with self._lock:
            self._rows = {entry.label: ("waiting", "dim", None) for entry in entries}

    def say(self, text: str) -> None:
        """Prints the line above the table."""
        self._live.console.print(text, markup=False, highlight=False)

    def note(self, label: str, text: str) -> None:
        """Shows it in the model's row."""
        self._put(label, text, "", None)

    def advance(self, label: str, phase: str, fraction: float) -> None:
        """Shows it in the model's row."""
        self._put(label, phase, "", fraction)

    def end(self, outcome: ModelOutcome, *, fresh: bool) -> None:
        """Shows the result in the model's row."""
        self._put(outcome.label, result_text(outcome, fresh=fresh), _STYLES.get(outcome.verdict, "red"), 1.0)

    def _put(self, label: str, text: str, style: str, fraction: float | None) -> None:
        with self._lock:
            self._rows[label] = (text, style, fraction)

    def _picture(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        with self._lock:
            rows = dict(self._rows)
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(width=16)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=2)
        # What is at work must be seen: rows that are done or wait make room first.
        shown = sorted(rows, key=lambda label: rows[label][2] in (None, 1.0))[:_MOST_ROWS]
        for label in [each for each in rows if each in set(shown)]:
            text, style, fraction = rows[label]
            bar = ProgressBar(total=1.0, completed=fraction) if fraction is not None and fraction < 1 else Text("")
            table.add_row(Text(label), bar, Text(text, style=style))
        if len(rows) > len(shown):
            table.add_row(Text(f"and {len(rows) - len(shown)} more", style="dim"), Text(""), Text(""))
        return table
