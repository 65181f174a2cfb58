"""What a worker's supervision needs of whoever carries its questions to a device far away."""

from __future__ import annotations

from typing import Protocol


class Carrier(Protocol):
    """Carries the questions of one job while its worker runs."""

    @property
    def waited(self) -> float:
        """The seconds that do not count against the job's time: those of unanswered questions, for now."""

    def ask(self, key: str) -> None:
        """Takes a question from the job's folder."""

    async def close(self) -> None:
        """Stops carrying."""
