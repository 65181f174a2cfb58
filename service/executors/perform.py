"""One attempt on the machine where this is called: what was kept before, the worker, what it keeps, its result."""

from __future__ import annotations

import os
from asyncio import to_thread
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from service.executors.base import Ears, Ended, Errand
from service.resuming.checkpoints import Checkpoints, Mirror, Mirroring
from service.resuming.journal import read_journal, work_kept
from service.settings import ServerSettings
from service.storage.artifacts import ArtifactStore
from service.storage.disk import is_scarce
from service.supervision.setbacks import clear_attempt
from service.waiting import until_there
from service.worker.messages import ProgressEvent, WorkOrder
from service.worker.process import Exit, run_worker
from service.worker.results import check_report, store_report, take_analysis

_LEAST_SECONDS: Final = 1.0  # what a job that goes on gets when its time is over: enough for the worker to say so


@dataclass(frozen=True)
class Site:
    """What a machine has for running workers.

    Attributes:
        settings: How to run them.
        artifacts: Where results go.
        bring: Brings what an order names within reach below a folder; returns the local paths by name. Blocks.
        checkpoints: Where checkpoints are mirrored; None for nowhere.
    """

    settings: ServerSettings
    artifacts: ArtifactStore
    bring: Callable[[WorkOrder, Path], dict[str, Path]]
    checkpoints: Checkpoints | None


async def perform(errand: Errand, site: Site, ears: Ears) -> Ended:
    """Runs an errand in this machine's folder `errand.order.folder`; see `Executor.run`."""
    mirror = await until_there(lambda: _open_mirror(errand, site.checkpoints), ears.stop, ears.tell)
    order = await until_there(lambda: _prepare(errand.order, site), ears.stop, ears.tell)
    kept = await to_thread(work_kept, order.folder)
    ended = await _run(order, site.settings, ears, mirror)
    if ended.result is not None:
        return await _take(replace(errand, order=order), ended, site.artifacts, ears)
    if not ended.stopped:
        # A worker may have failed for want of its inputs: then the job waits, and starts again.
        await to_thread(site.artifacts.storage.check)
    went_on = await to_thread(work_kept, order.folder) != kept
    return Ended(ended, went_on=went_on, scarce=is_scarce(order.folder))


def _open_mirror(errand: Errand, checkpoints: Checkpoints | None) -> Mirror | None:
    folder = errand.order.folder
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoints is None or errand.order.task != "optimize":
        return None
    mirror = checkpoints.mirror(errand.job_id, errand.attempt, folder)
    mirror.restore()
    return mirror


def _prepare(order: WorkOrder, site: Site) -> WorkOrder:
    """Makes the folders, brings everything that the spec names within reach, and fills in the rest."""
    clear_attempt(order.folder)
    order.out.mkdir()
    left = max(order.deadline_seconds - read_journal(order.folder).spent, _LEAST_SECONDS)
    files = site.bring(order, order.folder / "in")
    found = {"files": files, "deadline_seconds": left, "server_pid": os.getpid()}
    return order.model_copy(update=found)


async def _run(order: WorkOrder, settings: ServerSettings, ears: Ears, mirror: Mirror | None) -> Exit:
    if mirror is None:
        return await run_worker(order, settings, ears.on_progress, ears.stop, ears.desk)
    mirroring, done = Mirroring(mirror), False

    def report(event: ProgressEvent) -> None:
        mirroring.entered(event.phase)
        ears.on_progress(event)

    try:
        ended = await run_worker(order, settings, report, ears.stop, ears.desk)
        done = ended.result is not None
    finally:
        await mirroring.finish(last=not done)
    return ended


async def _take(errand: Errand, ended: Exit, artifacts: ArtifactStore, ears: Ears) -> Ended:
    """Stores what was made, as soon as there is room for it."""
    folder, result = errand.order.folder, ended.result
    assert result is not None
    if errand.order.task == "analyze":
        return Ended(ended, analysis=await to_thread(take_analysis, folder, result))
    delivery = await to_thread(check_report, folder, result, errand.principal)
    digests = [artifact.sha256 for artifact in delivery.artifacts]
    await until_there(lambda: ears.hold(digests), ears.stop, ears.tell)
    await until_there(lambda: store_report(delivery, artifacts), ears.stop, ears.tell)
    return Ended(ended, report=delivery.report, artifacts=delivery.artifacts)
