"""What a job does after a setback that is not its end: a worker that died, a disk that was full.

* A worker that died by itself (WORKER_DIED) may well have been killed by its input. The job goes on only if the worker
  had kept some work that the one before had not.
* A full disk (DISK_FULL) may be full of others' things. The job goes back to the queue, where nothing is taken until
  `min_free_bytes` are free again, and goes on from what it kept.

Both together are counted in the database, whichever server runs the job, and there are at most `worker_retries`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from asyncio import to_thread
from pathlib import Path

from service.faults import DISK_FULL, WORKER_DIED
from service.jobs.job import Failure
from service.resuming.journal import FITS, TRAININGS
from service.settings import ServerSettings
from service.waiting import set_within

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_OF_ONE_ATTEMPT = ("out", "tmp", "samples", "timing")


def is_setback(failure: Failure, *, got_further: bool) -> bool:
    """Returns whether a failure need not be a job's end.

    Args:
        failure: What happened to it.
        got_further: It had kept work that the attempt before had not.
    """
    return failure.reason == DISK_FULL.reason or (failure.reason == WORKER_DIED.reason and got_further)


def blamed_on_disk(failure: Failure, *, scarce: bool) -> Failure:
    """Returns the failure, as DISK_FULL where the machine or Shoal failed while there was no room in the job's folder.

    Libraries have many words for a full disk, and some die of it.
    """
    if failure.blame == "caller" or failure.reason == DISK_FULL.reason or not scarce:
        return failure
    message = f"the server's disk was full while this job ran: {failure.message}"
    return Failure(reason=DISK_FULL.reason, message=message, blame=DISK_FULL.blame)


def clear_attempt(folder: Path) -> None:
    """Removes, from a job's folder, what the next attempt makes anew."""
    for name in _OF_ONE_ATTEMPT:
        shutil.rmtree(folder / name, ignore_errors=True)


def make_room(folder: Path, settings: ServerSettings) -> None:
    """Removes what a job that has to wait for room can do without; else it might wait for its own files to go.

    Args:
        folder: The job's. What it measured stays in its journal; weights that it kept go if they stand in the way.
        settings: Say how much room there must be.
    """
    clear_attempt(folder)
    kept = [folder / name for name in (FITS, TRAININGS)]
    size = sum(path.stat().st_size for part in kept for path in part.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if free < settings.min_free_bytes <= free + size:
        for part in kept:
            shutil.rmtree(part, ignore_errors=True)


async def wait_for_room(settings: ServerSettings, draining: asyncio.Event) -> None:
    """Returns once a job finds room for its files, or the server stops."""
    told = False
    while not draining.is_set() and not await to_thread(_has_room, settings):
        if not told:
            _LOG.error("queued jobs wait: less than %d bytes are free for their files", settings.min_free_bytes)
        told = True
        await set_within(draining, _LOOK_SECONDS)
    if told:
        _LOG.info("queued jobs wait no longer for room on the disk")


def _has_room(settings: ServerSettings) -> bool:
    try:
        return shutil.disk_usage(settings.state_dir).free >= settings.min_free_bytes
    except OSError:
        return False
