"""A process that confines itself, from the outside. What hostile workers try is in `tests/service`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.errors import SandboxError
from deploy.sandbox import Confined, Layer, Policy, confine, landlock, probe
from deploy.sandbox.landlock import READ, Rule

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, os, socket, sys
from pathlib import Path
from deploy.sandbox import Policy, confine
told = json.loads(sys.argv[1])
paths = {name: tuple(map(Path, told[name])) for name in ("reads", "writes", "locks")}
confine(Policy(mode="required", network=told["network"], **paths))
found = []
for code in told["tries"]:
    try:
        exec(code)
        found.append("")
    except OSError as exc:
        found.append(type(exc).__name__)
print(json.dumps(found))
"""


@pytest.fixture(autouse=True)
def able() -> None:
    if missing := [one.name for one in probe() if not one.present]:
        pytest.skip(f"this system has no {', '.join(missing)}")


def tried(*tries: str, network: str = "none", **paths: list[Path]) -> list[str]:
    """What each statement comes to in a confined process; empty for nothing."""
    places = {name: [str(path) for path in paths.get(name, [])] for name in ("reads", "writes", "locks")}
    request = json.dumps({"tries": tries, "network": network, **places})
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, request],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("mine", "other"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "file").write_text("x")
    return tmp_path


def test_what_is_listed_may_be_read_and_nothing_else(place: Path) -> None:
    link = place / "link"
    link.symlink_to(place / "mine/file")
    found = tried(
        f"open({str(link)!r})",
        f"open({str(place / 'mine/file')!r}, 'a')",
        f"open({str(place / 'other/file')!r})",
        f"os.listdir({str(place)!r})",
        reads=[link],
    )

    assert found == ["", "PermissionError", "PermissionError", "PermissionError"]


def test_a_folder_of_its_own_is_to_do_with_as_it_likes(place: Path) -> None:
    mine = place / "mine"
    found = tried(
        f"open({str(mine / 'new')!r}, 'w').write('x')",
        f"os.truncate({str(mine / 'file')!r}, 0)",
        f"os.rename({str(mine / 'new')!r}, {str(mine / 'sub/new')!r})",
        f"os.symlink('/', {str(mine / 'root')!r})",
        f"os.rename({str(mine / 'file')!r}, {str(place / 'other/moved')!r})",
        f"os.truncate({str(place / 'other/file')!r}, 0)",
        f"os.rmdir({str(place / 'other/sub')!r})",
        writes=[mine],
    )

    assert found == ["", "", "", "", "PermissionError", "PermissionError", "PermissionError"]
    assert (place / "other/file").read_text() == "x"


def test_a_lock_may_be_opened_and_its_folder_may_not(place: Path) -> None:
    lock = place / "mine/file"
    opened = f"os.open({str(lock)!r}, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)"
    found = tried(opened, f"open({str(place / 'mine/new')!r}, 'w')", f"os.unlink({str(lock)!r})", locks=[lock])

    assert found == ["", "PermissionError", "PermissionError"]


@pytest.fixture
def port() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield int(listening.getsockname()[1])


@pytest.mark.parametrize(("network", "answer"), [("all", ""), ("none", "PermissionError")])
def test_the_network_is_there_for_who_downloads(port: int, network: str, answer: str) -> None:
    assert tried(f"socket.create_connection(('127.0.0.1', {port}))", network=network) == [answer]


def test_a_network_of_its_own_leads_to_itself_only(port: int) -> None:
    listen = "door = socket.create_server(('127.0.0.1', 0)); told['port'] = door.getsockname()[1]"
    reach = "socket.create_connection(('127.0.0.1', told['port']))"
    found = tried(listen, reach, f"socket.create_connection(('127.0.0.1', {port}))", "socket.socket(1)", network="own")
    if found[0]:
        pytest.skip("this system allows no networks of one's own")

    assert found == ["", "", "ConnectionRefusedError", "PermissionError"]


def test_what_the_machine_tells_of_itself_can_be_read() -> None:
    facts = ["/proc/self/schedstat", "/proc/cpuinfo", "/proc/meminfo", "/etc/passwd", "/dev/urandom"]
    mine = [f"open({path!r}, 'rb').read(8)" for path in facts if Path(path).exists()]

    assert set(tried(*mine, "os.sched_setaffinity(0, os.sched_getaffinity(0))", "os.nice(1)")) == {""}


def test_who_has_threads_already_is_not_confined_by_half() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(SandboxError, match="threads run already"):
            confine(Policy())
    finally:
        stop.set()
        thread.join()


def test_off_is_off() -> None:
    assert "not confined" in confine(Policy(mode="off")).summary


def test_what_is_missing_is_told() -> None:
    layers = (Layer("landlock", "files", "7"), Layer("seccomp", "calls", missing="there is none"))

    assert Confined(layers).summary == "confined by landlock 7; no seccomp: there is none"


def test_a_rule_for_what_is_not_there_is_no_trouble(place: Path) -> None:
    assert landlock.version() >= landlock.LEAST
    assert Rule(place / "nowhere", READ).path not in list(place.iterdir())
    assert tried("os.getpid()", reads=[place / "nowhere"]) == [""]


def test_versions_of_packages_are_known() -> None:
    known = "from importlib.metadata import version\nif not version({!r}): raise OSError('no version')"
    assert tried(known.format("numpy"), known.format("shoal")) == ["", ""]
