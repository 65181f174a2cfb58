"""The fuzz test: `python -m benchmarks.fuzz --loader onnx --seconds 3600 --seed 1 --out FOLDER`.

Prints every new kind of finding as it comes, and writes it with the file that shows it: FOLDER/findings/NUMBER holds
the case and what it did; FOLDER/summary.json counts everything. `--case INDEX` writes and judges one case again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.fuzz.judge import judge, write_case
from benchmarks.fuzz.loaders import LOADERS
from benchmarks.fuzz.worker import Limits, build, run_batch

_BATCH = 40
_ARROW_THREADS = 2
"""Arrow has one thread for work and one for reading here; it makes new ones after a fork, as jemalloc does."""
_ALONE = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "ARROW_IO_THREADS": "1", "RUST_BACKTRACE": "0"}


class Log:
    """What was found so far, on disk at any time."""

    def __init__(self, loader: str, seed: int, out: Path) -> None:
        self.loader, self.seed, self.out = loader, seed, out
        self.counts: Counter[str] = Counter()
        self.findings: dict[str, int] = {}
        self.cases, self.slowest, self.start = 0, (0.0, -1), time.monotonic()

    def add(self, entry: dict[str, Any]) -> None:
        """Counts a case; the first of a kind of findings is kept."""
        self.cases += 1
        self.counts[entry["key"]] += 1
        self.slowest = max(self.slowest, (entry["seconds"], entry["index"]))
        if entry["good"] or entry["key"] in self.findings:
            return
        self.findings[entry["key"]] = entry["index"]
        folder = self.out / "findings" / f"{len(self.findings):03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.txt").write_text(f"case {entry['index']}\n{entry['key']}\n\n{entry['text']}\n")
        write_case(build(self.loader, self.seed, entry["index"]), folder)
        print(f"finding {len(self.findings)} (case {entry['index']}): {entry['key']}", flush=True)

    def save(self) -> None:
        """Writes the counts."""
        summary = {
            "loader": self.loader,
            "seed": self.seed,
            "cases": self.cases,
            "minutes": round((time.monotonic() - self.start) / 60, 2),
            "slowest": self.slowest,
            "findings": self.findings,
            "counts": dict(self.counts.most_common()),
        }
        (self.out / "summary.json").write_text(json.dumps(summary, indent=1))


def main() -> None:
    """Runs until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz")
    parser.add_argument("--loader", choices=tuple(LOADERS), required=True)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--cases", type=int, help="stop after so many, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--case", type=int)
    options = parser.parse_args()
    if not _ALONE.items() <= os.environ.items():  # read when the libraries are loaded
        os.environ |= _ALONE
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.fuzz", *sys.argv[1:]])  # noqa: S606
    box = options.out.resolve() / "box"
    (box / "tmp").mkdir(parents=True, exist_ok=True)
    _warm(options.loader, options.seed, box)
    if options.case is not None:
        files = build(options.loader, options.seed, options.case)
        print(write_case(files, box))
        entry = run_batch(options.loader, options.seed, range(options.case, options.case + 1), box, Limits())[0]
        print(entry["key"], entry["text"], sep="\n\n")
        return
    _run(options, box)


def _warm(loader: str, seed: int, box: Path) -> None:
    """Imports everything and makes the seeds here, once, so that every child has them."""
    tqdm.monitor_interval = 0  # torch shows progress somewhere, and tqdm would start a thread for it
    build(loader, seed, 0)
    for number, files in enumerate(LOADERS[loader].whole()):
        folder, work = box / f"seed{number}" / "case", box / f"seed{number}" / "work"
        for place in (folder, work):
            place.mkdir(parents=True, exist_ok=True)
        verdict = judge(LOADERS[loader], write_case(files, folder), work)
        if not verdict.key.startswith("opened"):
            raise SystemExit(f"seed {number} does not open: {verdict.key}: {verdict.text}")
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    if len([name for name in names if name != "jemalloc_bg_thd"]) > 1 + _ARROW_THREADS:
        raise SystemExit("there are several threads; a child made now could wait for them for ever")


def _run(options: argparse.Namespace, box: Path) -> None:
    log, index = Log(options.loader, options.seed, options.out), 0
    most = options.cases or sys.maxsize
    while time.monotonic() - log.start < options.seconds and index < most:
        batch = range(index, min(index + _BATCH, most))
        entries = run_batch(options.loader, options.seed, batch, box, Limits())
        if not entries:
            raise SystemExit(f"the child ran nothing: {(box / 'output').read_text()[-2000:]}")
        for entry in entries:
            if (
                not entry["good"]
                and "key" in entry
                and entry["key"].startswith(("timeout", "memory", "signal", "exit"))
            ):
                alone = range(entry["index"], entry["index"] + 1)  # was it this case, or all before it together?
                entry = run_batch(options.loader, options.seed, alone, box, Limits())[0]  # noqa: PLW2901
            log.add(entry)
        log.save()
        index = max(entry["index"] for entry in entries) + 1
    print(
        f"{log.cases} cases in {(time.monotonic() - log.start) / 60:.1f} minutes, {len(log.findings)} kinds of findings"
    )


if __name__ == "__main__":
    main()
