"""A PostgreSQL of the tests' own: its files in a temporary folder, reached through a socket in there."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
_PATIENCE = 60.0
_EMPTY = """
DO $$ BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    EXECUTE COALESCE((SELECT 'TRUNCATE ' || string_agg(tablename, ', ') || ' RESTART IDENTITY CASCADE' FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> 'schema_version'), 'SELECT 1');
END $$
"""


class Postgres:
    """A server that runs, or was stopped for a while."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        self._idle: list[str] = []

    def start(self) -> None:
        """Starts it, and waits until it takes connections."""
        command = [
            self._programs / "postgres", "-D", self._folder / "data", "-k", self._folder, "-h", "",
            "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=150",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [*as_postgres(), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
        end = time.monotonic() + _PATIENCE
        while not self._answers():
            assert self._process.poll() is None, "PostgreSQL ended"
            assert time.monotonic() < end, "PostgreSQL does not answer"
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops it at once: connections break."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_PATIENCE)
            self._process = None

    def url(self, name: str) -> str:
        """Returns the URL of a database."""
        return f"postgresql://postgres@/{name}?host={self._folder}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yields the URL of a database with empty tables, or none: one that is made once serves many tests."""
        if not self._idle:
            self._count += 1
            self._idle.append(f"shoal_{self._count}")
            self.execute(f"CREATE DATABASE {self._idle[-1]}")
        name = self._idle.pop()
        yield self.url(name)
        self.execute(_EMPTY, name)
        self._idle.append(name)

    def execute(self, statement: str, name: str = "postgres") -> None:
        """Runs a statement outside of any transaction."""
        import psycopg

        with psycopg.connect(self.url(name), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def _answers(self) -> bool:
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Makes a server and runs it.

    Raises:
        LookupError: This machine cannot; says why.
    """
    programs = find_programs()
    with tempfile.TemporaryDirectory(
        dir=MEMORY if os.access(MEMORY, os.W_OK) else None, prefix="shoal-test-postgres-", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        if os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        subprocess.run(
            [*as_postgres(), programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8",
             "--locale=C", "--no-sync", "--no-instructions"],
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip
        server = Postgres(programs, folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def find_programs() -> Path:
    """Returns the folder of PostgreSQL's programs.

    Raises:
        LookupError: There is none, or it could not be run.
    """
    try:
        import psycopg  # noqa: F401
    except ImportError as exc:
        raise LookupError("psycopg is not installed: shoal[postgres]") from exc
    found = [Path(path).parent for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    if not found:
        raise LookupError("PostgreSQL is not installed")
    if os.getuid() == 0 and shutil.which("setpriv") is None:
        raise LookupError("PostgreSQL does not run as root, and there is no setpriv to become somebody else")
    return found[0]


def as_postgres() -> list[str]:
    """Returns what to put before a command so that it does not run as root."""
    if os.getuid() != 0:
        assert getpass.getuser() != "root"
        return []
    return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--pdeathsig", "QUIT"]
