"""What a batch would do, without doing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from service.cli.errors import InputError
from service.registries import Entry, RefusedModelError

if TYPE_CHECKING:
    from service.batch.ledger import Ledger
    from service.batch.prepare import Files, Prepared, Source

What = Literal["new", "under way", "done", "refused"]


@dataclass(frozen=True)
class Planned:
    """What would be done with one model.

    Attributes:
        label: The model.
        what: `new`: it would be optimised; `under way`: its job would be waited for; `done`: nothing would be done.
        identity: Of the work; empty for what is refused.
        size: Of its files, in bytes.
        reason: Of a refusal, or what is known already.
        budget: As it would be asked for.
    """

    label: str
    what: What
    identity: str = ""
    size: int = 0
    reason: str = ""
    budget: str = ""


Look = Callable[["Prepared", "Files"], str]
"""Asks a server what it thinks of a model, and returns that in a few words."""


def plan(source: Source, ledger: Ledger, entry: Entry, look: Look | None = None) -> Planned:
    """Returns what would be done with a model.

    Args:
        source: The models.
        ledger: What was done.
        entry: The model.
        look: Asks a server about models that would be optimised; None to ask nobody.

    Raises:
        RegistryError: The registry cannot be read.
    """
    try:
        with source.opened(entry) as files:
            prepared = source.prepare(entry, files)
            planned = _planned(source, ledger, prepared)
            if look is None or planned.what != "new":
                return planned
            return replace(planned, reason=look(prepared, files))
    except (InputError, RefusedModelError, OSError) as exc:
        return Planned(entry.label, "refused", reason=str(exc))


def _planned(source: Source, ledger: Ledger, prepared: Prepared) -> Planned:
    known = ledger.work(prepared.identity)
    limit = prepared.wanted.job.budget
    budget = f"{limit.fraction:g}x" if limit.fraction is not None else f"{limit.latency_ms:g} ms"
    outcome = known.outcome or source.registry.find(prepared.entry, prepared.identity)
    what: What = "new"
    reason = ""
    if outcome is not None and outcome.settled:
        what, reason = "done", outcome.verdict
    elif known.job and outcome is None:
        what, reason = "under way", known.job
    return Planned(prepared.entry.label, what, prepared.identity, prepared.size, reason, budget)
