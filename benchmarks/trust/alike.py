"""`python -m benchmarks.trust.alike MODEL --pairs 200 --load 0`: how often two equal files are told to differ.

Each pair is one measurement of two copies of MODEL, as reports are made, in as many fresh processes. With `--load`, a
second process keeps that core busy all the time. A 95 % interval that leaves out 1 claims a difference that is not
there; that should happen in one of twenty pairs at most. With `--against OTHER`, files that do differ: how many pairs
are told so, and how wide the intervals are.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.evaluate import wilson
from deploy.measure.report import Ratio, compare
from deploy.measure.settings import PROCESSES, TimingSettings
from deploy.measure.whole import measure


@contextmanager
def busy(core: int | None) -> Iterator[None]:
    """Keeps a core busy meanwhile."""
    if core is None:
        yield
        return
    process = multiprocessing.get_context("spawn").Process(target=_spin, args=(core,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _spin(core: int) -> None:
    os.sched_setaffinity(0, {core})
    value = 0
    while True:
        value = (value * 31 + 7) % 1_000_003


def pair(model: Path, other: Path, settings: TimingSettings) -> Ratio:
    """Returns how a copy of a model compares with a copy of another, or of itself."""
    with tempfile.TemporaryDirectory() as name:
        sources = zip("ab", (model, other), strict=True)
        files = [Path(shutil.copy(source, Path(name) / f"{letter}.onnx")) for letter, source in sources]
        return compare(*measure(files, settings))


def main() -> int:
    """Measures the pairs and prints one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--load", type=int, metavar="CORE")
    parser.add_argument("--seconds", type=float, default=8.0, help="timed seconds of each pair, as reports have 8")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="as reports have by default")
    parser.add_argument("--against", type=Path, metavar="OTHER", help="a file that differs, as the second of each pair")
    asked = parser.parse_args()
    found: list[Ratio] = []
    with busy(asked.load):
        for number in range(asked.pairs):
            settings = TimingSettings(seed=number, min_seconds=asked.seconds, processes=asked.processes)
            one = pair(asked.model, asked.against or asked.model, settings)
            found.append(one)
            print(f"{number + 1}: {one.speedup:.4f}, {one.ci_low:.4f} to {one.ci_high:.4f}", flush=True)
    differ = sum(not one.ci_low <= 1.0 <= one.ci_high for one in found)
    low, high = wilson(differ, len(found))
    widths = sorted((one.ci_high - one.ci_low) / 2 for one in found)
    middles = sorted(one.speedup for one in found)
    summary = {
        "pairs": len(found),
        "processes": sorted({one.processes for one in found}),
        "claimed_to_differ": differ,
        "share": differ / len(found),
        "share_95": [low, high],
        "claimed_faster": sum(one.is_faster for one in found),
        "median_speedup": middles[len(middles) // 2],
        "farthest_from_1": max(abs(one.speedup - 1) for one in found),
        "median_half_width": widths[len(widths) // 2],
        "load": asked.load,
    }
    print(json.dumps(summary, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
