"""Cases in a child process that may crash, hang or eat memory; what it did is read from its journal."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz.judge import Verdict, judge, write_case
from benchmarks.fuzz.loaders import LOADERS

_FORBIDDEN = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect", "pickle.find_class")
_SECRET = "secret.bin"  # noqa: S105
_OWN = ("output", "journal", "fault")
_PLACES = ("case", "tmp", "work")


@dataclass(frozen=True)
class Limits:
    """What one case may take."""

    seconds: float = 20.0
    memory_bytes: int = 6 * 2**30
    growth_bytes: int = 2**30


def build(loader: str, seed: int, index: int) -> dict[str, bytes]:
    """Returns the files of one case, the same ones for the same numbers."""
    return LOADERS[loader].build(np.random.default_rng([seed, index]))


def run_batch(loader: str, seed: int, indices: range, box: Path, limits: Limits) -> list[dict[str, Any]]:
    """Runs cases in one child, and returns its journal; a child that died leaves an entry that is not finished."""
    (box / _SECRET).write_bytes(b"S" * 4096)
    journal = box / "journal"
    journal.write_text("")
    pid = os.fork()
    if pid == 0:
        _child(lambda: _cases(loader, seed, indices, box, limits), box, limits)
    _, status = os.waitpid(pid, 0)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    done = {line["index"]: line for line in lines if "key" in line}
    started = [line["index"] for line in lines if "key" not in line]
    crashed = [index for index in started if index not in done]
    for index in crashed:
        done[index] = _death(loader, index, status, (box / "fault").read_text())
    return list(done.values())


def _death(loader: str, index: int, status: int, fault: str) -> dict[str, Any]:
    ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
    kind = "timeout" if "Timeout" in fault else ended
    inside = tuple(f"/{package}/" for package in LOADERS[loader].packages)
    places = [line.strip() for line in fault.splitlines() if any(package in line for package in inside)][:2]
    return {"index": index, "good": False, "key": f"{kind} {' '.join(places)}", "text": fault[:6000], "seconds": 0.0}


def _child(run: Callable[[], None], box: Path, limits: Limits) -> None:
    """Runs in the child and never returns."""
    try:
        output = os.open(box / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        room = pages * resource.getpagesize() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**31, 2**31))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        run()
    except BaseException:  # noqa: BLE001 - the child must not run the parent's code
        import traceback

        traceback.print_exc()
        os._exit(3)
    os._exit(0)


def _cases(loader: str, seed: int, indices: range, box: Path, limits: Limits) -> None:
    tempfile.tempdir = str(box / "tmp")
    seen: list[str] = []
    sys.addaudithook(_watch(seen, box))
    with (box / "journal").open("a", buffering=1) as journal, (box / "fault").open("w") as fault:
        faulthandler.enable(fault)
        for index in indices:
            journal.write(json.dumps({"index": index}) + "\n")
            fault.seek(0)
            fault.truncate()
            files = build(loader, seed, index)
            faulthandler.dump_traceback_later(limits.seconds, exit=True, file=fault)
            entry = _case(loader, files, box, limits, seen)
            faulthandler.cancel_dump_traceback_later()
            journal.write(json.dumps({"index": index, **entry}) + "\n")


def _case(loader: str, files: dict[str, bytes], box: Path, limits: Limits, seen: list[str]) -> dict[str, Any]:
    folder = _prepared(files, box)
    around = set(box.iterdir())
    seen.clear()
    before, written = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, os.fstat(2).st_size
    start = time.perf_counter()
    verdict = judge(LOADERS[loader], folder / next(iter(files)), box / "work")
    seconds = time.perf_counter() - start
    sys.stdout.flush()
    sys.stderr.flush()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    left = [str(name) for name in (*folder.iterdir(), *(box / "tmp").iterdir()) if name.name not in {*files, "link"}]
    left += [str(name) for name in box.iterdir() if name not in around]
    left += [name for name, data in files.items() if (folder / name).read_bytes() != data]
    if verdict.good:
        verdict = _aftermath(verdict, grown, os.fstat(2).st_size - written, left + seen, limits)
    return {"good": verdict.good, "key": verdict.key, "text": verdict.text[:6000], "seconds": seconds}


def _prepared(files: dict[str, bytes], box: Path) -> Path:
    """Writes a case into a new folder, beside empty ones for what is unpacked, and returns it."""
    for name in _PLACES:
        shutil.rmtree(box / name, ignore_errors=True)
        (box / name).mkdir()
    folder = box / "case"
    write_case(files, folder)
    (folder / "link").symlink_to(box)
    os.chdir(folder)
    return folder


def _aftermath(verdict: Verdict, grown: int, output: int, traces: list[str], limits: Limits) -> Verdict:
    if traces:
        return Verdict(False, f"touched {traces[0]}", f"{traces}\n{verdict.text}")
    if grown > limits.growth_bytes:
        return Verdict(False, f"memory {grown >> 30} GiB after {verdict.key}", verdict.text)
    if output > 4000:
        return Verdict(False, f"output {verdict.key}", f"{output} bytes on stdout and stderr\n{verdict.text}")
    return verdict


def _watch(seen: list[str], box: Path) -> Callable[[str, tuple[Any, ...]], None]:
    """Returns an audit hook that notes what a loader must never do."""
    inside = ("/dev/", "/proc/", *(f"{box / name}{end}" for name in _PLACES for end in ("", "/")))
    own = {str(box / name) for name in _OWN}

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in _FORBIDDEN:
            seen.append(f"{event} {args!r}"[:300])
        elif event == "open" and isinstance(args[0], str):
            name, mode, flags = args[0], str(args[1] or ""), int(args[2] or 0)
            writes = bool(set("wax+") & set(mode)) or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            elsewhere = name.startswith("/") and not name.startswith(inside) and name not in own
            if _SECRET in name or name == "/etc/passwd" or (writes and elsewhere):
                seen.append(f"open {name!r} {mode}")

    return hook
