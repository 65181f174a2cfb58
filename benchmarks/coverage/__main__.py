"""`python -m benchmarks.coverage [--only PATTERN] [--again] [--out FILE] [--json FILE] [--work DIR]`.

Takes every architecture of `cases` through import, lift, analysis, merge, export and agreement, each in a process of its
own, and writes a table. What the work folder holds already is not done again.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.coverage.cases import Case, cases
from benchmarks.coverage.machine import describe
from benchmarks.coverage.table import report
from benchmarks.coverage.worker import run, warm_up

_FORK = multiprocessing.get_context("fork")


def main() -> int:
    """Runs what is missing, prints a line for each and writes the table."""
    parser = argparse.ArgumentParser(description="What the engine covers.")
    parser.add_argument("--only", default="*", help="pattern of names, e.g. 'timm:*vit*'; several with commas")
    parser.add_argument("--again", action="store_true", help="also what the work folder holds already")
    parser.add_argument("--failed", action="store_true", help="also what failed before")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--json", type=Path, help="the same as JSON")
    parser.add_argument("--work", type=Path, default=Path("benchmark-output/coverage"))
    parser.add_argument("--limit", type=float, default=900, help="seconds for one architecture")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    patterns = options.only.split(",")
    torch.set_num_threads(1)
    warm_up()
    start = {"start_cpu_seconds": time.process_time()}
    results = []
    for case in cases():
        file = options.work / f"{case.name.replace(':', '-')}.json"
        known = json.loads(file.read_text()) if file.exists() else None
        wanted = any(fnmatch.fnmatch(case.name, pattern) for pattern in patterns)
        stale = known is None or options.again or (options.failed and "failure" in known)
        if wanted and stale:
            known = {**_run(case, options.limit), **describe(), **start}
            file.write_text(json.dumps(known, indent=1))
            print(_line(known), flush=True)
        if known is not None:
            results.append(known)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if options.out:
        options.out.write_text(report(results))
    return 0


def _run(case: Case, limit: float) -> dict[str, Any]:
    """Runs one case in a process of its own, forked from this one, which has loaded the libraries and no model."""
    receiver, sender = _FORK.Pipe(duplex=False)
    child = _FORK.Process(target=_child, args=(case, sender))
    child.start()
    sender.close()
    empty = {"name": case.name, "seconds": {}, "cpu_seconds": {}, "errors": {}}
    try:
        if not receiver.poll(limit):
            return {**empty, "failure": {"phase": "?", "kind": "Timeout", "message": f"longer than {limit:g} s"}}
        result: dict[str, Any] = receiver.recv()
    except EOFError:
        child.join()
        message = f"the process ended with status {child.exitcode}"
        return {**empty, "failure": {"phase": "?", "kind": "Crash", "message": message}}
    finally:
        child.kill()
        child.join()
    return result


def _child(case: Case, sender: Connection) -> None:
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    sender.send(run(case))


def _line(result: dict[str, Any]) -> str:
    failure = result.get("failure")
    if failure:
        return f"{result['name']}: {failure['kind']} in {failure['phase']}: {failure['message'][:300]}"
    errors = " ".join(f"{name} {value:.1e}" for name, value in result["errors"].items())
    seconds = " ".join(f"{name} {value:.1f}" for name, value in result["cpu_seconds"].items())
    return f"{result['name']}: {errors} | {seconds}"


if __name__ == "__main__":
    raise SystemExit(main())
