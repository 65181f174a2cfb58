"""All models of a batch, several at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.batch.outcome import ModelOutcome
from service.batch.work import Place, StoppedError, Worker

if TYPE_CHECKING:
    from service.registries import Entry


@dataclass(frozen=True)
class Done:
    """What came of one model.

    Attributes:
        outcome: That.
        fresh: Whether anything was done for it in this run.
    """

    outcome: ModelOutcome
    fresh: bool


def run(place: Place, entries: Sequence[Entry], jobs: int) -> tuple[Done, ...]:
    """Brings all models to their results; one model's failure stops no other.

    Args:
        place: Where the batch works.
        entries: The models.
        jobs: How many to be at, at once.

    Returns:
        What came of each, in the order of the entries.

    Raises:
        KeyboardInterrupt: The batch was left; jobs that the server has go on.
    """
    worker = Worker(place)
    pool = ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="batch")
    futures = {pool.submit(_one, worker, entry): index for index, entry in enumerate(entries)}
    done: dict[int, Done] = {}
    try:
        for future in as_completed(futures):
            done[futures[future]] = future.result()
            place.board.end(future.result().outcome, fresh=future.result().fresh)
    except BaseException:
        # Threads that wait for the server hear of the end by the closed channel.
        place.stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        place.client.close()
        pool.shutdown(wait=True)
        raise
    pool.shutdown()
    return tuple(done[index] for index in sorted(done))


def _one(worker: Worker, entry: Entry) -> Done:
    try:
        return Done(*worker.do(entry))
    except StoppedError:
        raise
    except Exception as exc:
        if os.environ.get("SHOAL_DEBUG"):
            raise
        return Done(_bug(entry, exc), fresh=False)


def _bug(entry: Entry, exc: Exception) -> ModelOutcome:
    reason = f"a bug in Shoal: {type(exc).__name__}: {exc}; set SHOAL_DEBUG=1 to see where it happened, and report it"
    known = {"name": entry.name, "version": entry.version, "place": entry.place}
    return ModelOutcome(**known, verdict="FAILED", reason=reason, blame="shoal")
