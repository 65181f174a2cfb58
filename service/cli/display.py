"""Shows progress on standard error: a live picture on a terminal, one line per event of note elsewhere."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self, final

import click

from service.cli import figures
from service.cli import progress as picture

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from service.cli.progress import PhaseRow, Progress

_PLAIN_INTERVAL: Final = 10.0
_MARKS: Final = {"waiting": " ", "active": "…", "done": "✓", "skipped": "-", "failed": "✗"}
_STYLES: Final = {"waiting": "dim", "active": "bold", "done": "", "skipped": "dim", "failed": "bold red"}
_BAR_WIDTH: Final = 32


class Display(ABC):
    """Shows how far something is. Use it as a context manager."""

    def __init__(self, *, upload: bool) -> None:
        """Starts with nothing done.

        Args:
            upload: Whether there is an upload to show.
        """
        self._progress = picture.begin(upload=upload)

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 - nothing to take down unless a display put something up
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def advance(self, report: picture.Report) -> None:
        """Takes up news of a phase."""
        self._progress = picture.advance(self._progress, report)
        self._show(self._progress)

    def note(self, message: str) -> None:
        """Says what the command itself does before there is a job."""
        self.advance(picture.Report("upload", datetime.now(UTC), message))

    def finish(self, time: datetime, *, succeeded: bool) -> None:
        """Shows that it is over."""
        self._progress = picture.finish(self._progress, time, succeeded=succeeded)
        self._show(self._progress)

    @abstractmethod
    def say(self, text: str) -> None:
        """Shows one line that stays."""

    @abstractmethod
    def _show(self, progress: Progress) -> None:
        """Brings the picture up to date."""


def open_display(title: str, *, upload: bool) -> Display:
    """Returns the display that fits standard error.

    Args:
        title: What the work is about; one line.
        upload: Whether there is an upload to show.
    """
    return LiveDisplay(title, upload=upload) if sys.stderr.isatty() else PlainDisplay(title, upload=upload)


@final
class PlainDisplay(Display):
    """A line when a phase begins, and every ten seconds while it lasts."""

    def __init__(self, title: str, *, upload: bool) -> None:
        super().__init__(upload=upload)
        self._phase = ""
        self._last = 0.0
        self.say(title)

    def say(self, text: str) -> None:
        """Prints the line."""
        click.echo(text, err=True)

    def _show(self, progress: Progress) -> None:
        row, now = progress.active, time.monotonic()
        if row is None or (row.name == self._phase and now - self._last < _PLAIN_INTERVAL):
            return
        self._phase, self._last = row.name, now
        self.say(plain_line(progress, row))


def plain_line(progress: Progress, row: PhaseRow) -> str:
    """Returns the state of the active phase in one line."""
    left = f", {figures.about(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    note = f": {row.note}" if row.note else ""
    numbers = f" ({', '.join(figures.metrics(progress.metrics))})" if progress.metrics else ""
    return f"[{100 * progress.fraction:3.0f} %{left}] {row.name}{note}{numbers}"


@final
class LiveDisplay(Display):
    """All phases with check marks, a bar, the time left and the numbers so far; redrawn in place."""

    def __init__(self, title: str, *, upload: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(upload=upload)
        self._title = title
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, get_renderable=self._picture, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Prints the line above the picture."""
        self._live.console.print(text, markup=False, highlight=False)

    def _show(self, progress: Progress) -> None:
        """Does nothing: the picture is redrawn several times a second anyway."""

    def _picture(self) -> Group:
        from rich.console import Group
        from rich.padding import Padding
        from rich.text import Text

        now = datetime.now(UTC)
        parts: list[Text | Table | Padding] = [
            Text(self._title, style="bold"),
            Text(),
            _phase_table(self._progress, now),
            Text(),
        ]
        parts.append(_bar_line(self._progress, now))
        if self._progress.metrics:
            numbers = Text("   ".join(figures.metrics(self._progress.metrics)), style="cyan")
            parts.append(Padding(numbers, (0, 0, 0, 2)))
        return Group(*parts, Text())


def _phase_table(progress: Progress, now: datetime) -> Table:
    from rich.spinner import Spinner
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=3, justify="right")
    table.add_column(min_width=9)
    table.add_column(min_width=8, justify="right")
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for row in progress.rows:
        style = _STYLES[row.mark]
        mark = Spinner("dots", style="cyan") if row.mark == "active" else Text(_MARKS[row.mark], style=_mark_style(row))
        table.add_row(
            mark, Text(row.name, style=style), Text(_took(row, now), style="dim"), Text(row.note, style="dim")
        )
    return table


def _mark_style(row: PhaseRow) -> str:
    return "green" if row.mark == "done" else _STYLES[row.mark]


def _took(row: PhaseRow, now: datetime) -> str:
    if row.mark == "skipped":
        return "skipped"
    return figures.clock(((row.end or now) - row.start).total_seconds()) if row.start is not None else ""


def _bar_line(progress: Progress, now: datetime) -> Text:
    from rich.text import Text

    full = round(_BAR_WIDTH * progress.fraction)
    line = Text("  ")
    line.append("━" * full, style="cyan")
    line.append("━" * (_BAR_WIDTH - full), style="dim")
    line.append(f"  {100 * progress.fraction:.0f} %")
    ends = [row.end for row in progress.rows if row.end is not None]
    end = now if progress.active is not None or not ends else max(ends)
    if progress.start is not None:
        line.append(f"   {figures.clock((end - progress.start).total_seconds())}", style="dim")
    if progress.seconds_left is not None and progress.estimated_at is not None:
        left = progress.seconds_left - (now - progress.estimated_at).total_seconds()
        line.append(f"   {figures.about(left)} left", style="dim")
    return line
