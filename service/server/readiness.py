"""Whether a server can do its work now, told by its health service.

The empty service name says that the process lives, the services' own names that they can do what they are for.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from asyncio import to_thread
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import final

from sqlalchemy import update

from service.database.database import Database
from service.database.tables import SchemaRow
from service.settings import ServerSettings
from service.storage.storage import Storage
from service.watching.meter import Meter

_LOG = logging.getLogger(__name__)

Check = Callable[[], None]
"""Raises what stands against the work. Blocks, and is called in a thread."""

Tell = Callable[[bool], Awaitable[None]]
"""Takes whether the server is ready."""


@final
class Readiness:
    """Looks every now and then. Belongs to one event loop."""

    def __init__(self, checks: Mapping[str, Check], settings: ServerSettings, meter: Meter, tell: Tell) -> None:
        """Checks nothing before `start`."""
        self._checks, self._settings, self._meter, self._tell = checks, settings, meter, tell
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._against: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Checks once and tells, then goes on in the background."""
        await self._look()
        self._task = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        """Looks no more."""
        tasks = [task for task in (self._task, *self._under_way.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._settings.readiness_interval)
            await self._look()

    async def _look(self) -> None:
        found = await asyncio.gather(*(self._judge(name, check) for name, check in self._checks.items()))
        against = {name: why for name, why in zip(self._checks, found, strict=True) if why}
        for name in self._checks:
            self._meter.checked(name, passed=name not in against)
        for name in against.keys() - self._against.keys():
            _LOG.error("not ready: %s: %s", name, against[name])
        for name in self._against.keys() - against.keys():
            _LOG.info("ready again: %s", name)
        self._against = against
        await self._tell(not against)

    async def _judge(self, name: str, check: Check) -> str:
        """Returns what stands against the work, empty for nothing. A check that hangs is waited for, not begun anew."""
        task = self._under_way.pop(name, None) or asyncio.create_task(to_thread(check))
        done, _ = await asyncio.wait({task}, timeout=self._settings.readiness_patience)
        if not done:
            self._under_way[name] = task
            return f"no answer in {self._settings.readiness_patience:g} s"
        error = task.exception()
        return "" if error is None else str(error) or type(error).__name__


def checks(settings: ServerSettings, database: Database, storage: Storage) -> dict[str, Check]:
    """Returns what a server needs for its work, by name."""
    return {
        "database": lambda: write_database(database),
        "store": storage.probe,
        "disk": lambda: find_room(settings.state_dir, settings.min_free_bytes),
    }


def write_database(database: Database) -> None:
    """Changes a row into itself, durably.

    Raises:
        Exception: It cannot be written.
    """
    with database.change() as session:
        session.execute(update(SchemaRow).values(version=SchemaRow.version))


def find_room(folder: Path, least: int) -> None:
    """Looks how much is free.

    Raises:
        OSError: Less than `least` bytes.
    """
    free = shutil.disk_usage(folder).free
    if free < least:
        raise OSError(f"{free} bytes are free on the disk of the state folder, and {least} are kept in reserve")
