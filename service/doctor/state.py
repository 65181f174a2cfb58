"""A server's state folder: database, store, free disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.doctor.finding import Finding, Level, needing

if TYPE_CHECKING:
    from service.database.database import Database
    from service.settings import ServerSettings

_GIB: Final = 1 << 30
_COMFORTABLE: Final = 20 * _GIB
"""What models, data, caches and a few jobs' folders may take."""


def look_at_database(settings: ServerSettings) -> Iterator[Finding]:
    """Yields whether the database can be written; none is made, and an older one stays as it is."""
    with needing("database", "database", Level.WARN, "server"):
        from service.database.database import Database
        from service.server.readiness import write_database
    if settings.database_url is None and not (settings.state_dir / "shoal.db").exists():
        yield from _in_a_new_folder(settings)
        return
    database = Database(settings.database, prepare=False)
    try:
        yield from _of_version(database.version())
        if database.version() is not None:
            write_database(database)
            yield _of_journal(_journal_mode(database))
    finally:
        database.close()


def _of_version(version: int | None) -> Iterator[Finding]:
    from service.database.database import SCHEMA_VERSION
    from service.database.schema import UPGRADABLE

    if version is None:
        yield Finding("database", "tables", Level.OK, "none yet; a server makes them at its start")
    elif version in UPGRADABLE:
        found = f"written by version {version}; a server of this version upgrades it at its next start"
        meaning = "older versions of Shoal refuse it from then on"
        yield Finding("database", "tables", Level.WARN, found, meaning, "keep a copy if you may want to go back")
    elif version != SCHEMA_VERSION:
        found = f"written by version {version}, and this Shoal needs {SCHEMA_VERSION}"
        advice = "use the Shoal that wrote it, or another state folder"
        yield Finding("database", "tables", Level.FAIL, found, "no server of this version starts on it", advice)


def _in_a_new_folder(settings: ServerSettings) -> Iterator[Finding]:
    """Tries the database beside where it would be: its locks depend on the file system."""
    from service.database.database import Database
    from service.server.readiness import write_database

    with tempfile.TemporaryDirectory(prefix=".shoal-doctor-", dir=_nearest(settings.state_dir)) as folder:
        database = Database(f"sqlite:///{folder}/try.db")
        try:
            write_database(database)
            journal = _journal_mode(database)
        finally:
            database.close()
    found = _of_journal(journal)
    yield Finding("database", "database", found.level, f"none yet; {found.found}", found.meaning, found.advice)


def _journal_mode(database: Database) -> str:
    """Returns how SQLite keeps changes safe; empty for other databases."""
    with database.read() as session:
        connection = session.connection()
        if connection.dialect.name != "sqlite":
            return ""
        return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar())


def _of_journal(journal: str) -> Finding:
    if journal in ("wal", ""):
        how = "opens and writes" + (", write-ahead log" if journal else "")
        return Finding("database", "database", Level.OK, how)
    return Finding(
        "database",
        "database",
        Level.WARN,
        f"writes, with journal mode {journal} in place of a write-ahead log",
        "readers wait for writers; network file systems are a usual cause, and may lose locks",
        "put the state folder on a local disk",
    )


def look_at_store(settings: ServerSettings) -> Iterator[Finding]:
    """Yields whether files can be stored, read back and deleted."""
    with needing("storage", "store", Level.WARN, "server"):
        from service.storage.storage import Storage
    if settings.storage_url is None and not (settings.state_dir / "artifacts").exists():
        with tempfile.TemporaryDirectory(prefix=".shoal-doctor-", dir=_nearest(settings.state_dir)) as folder:
            Storage(f"file://{folder}", begin=False).probe()
        yield Finding("storage", "store", Level.OK, "none yet; files can be written, read and deleted there")
        return
    Storage(settings.storage, begin=False).probe()
    yield Finding("storage", "store", Level.OK, "files can be written, read and deleted")


def look_at_disk(settings: ServerSettings) -> Iterator[Finding]:
    """Yields how much is free where the state folder is, or will be."""
    folder = _nearest(settings.state_dir)
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / _GIB:.1f} of {usage.total / _GIB:.1f} GiB are free at {folder}"
    if usage.free < settings.min_free_bytes:
        kept = f"{settings.min_free_bytes / _GIB:.2f} GiB are kept in reserve: nothing can be uploaded"
        yield Finding("storage", "disk", Level.FAIL, found, kept, "free some space")
    elif usage.free < _COMFORTABLE:
        yield Finding("storage", "disk", Level.WARN, found, "large models and data may not fit", "free some space")
    else:
        yield Finding("storage", "disk", Level.OK, found)


def _nearest(folder: Path) -> Path:
    """Returns the folder, or the next one above it that is there."""
    while not os.path.lexists(folder):
        folder = folder.parent
    return folder
