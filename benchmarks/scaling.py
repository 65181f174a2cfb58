"""How time grows with depth: `python -m benchmarks.scaling [--depths 20 56 110] [--json FILE]`.

Lifts and analyses CIFAR ResNets, looks for what can be merged, folds their norms, and prints processor seconds as a
Markdown table; the time per layer should be flat. Each depth runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from benchmarks.coverage.machine import describe
from benchmarks.coverage.networks import CifarResNet
from compressors.analysis import analyse
from compressors.analysis.regions import merge_space
from compressors.lift import lift
from compressors.surgery import merge

DEPTHS = (20, 32, 56, 110, 218, 434, 866, 1202)
PHASES = ("trace", "lift", "analyse", "regions", "fold")
SIZE = 8
"""Height and width of the input: the time of the engine's own work is what is asked for, not that of convolutions."""


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="How time grows with depth.")
    parser.add_argument("--depths", type=int, nargs="*", default=DEPTHS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return 0
    rows = [_apart(depth) for depth in options.depths]
    if options.json:
        options.json.write_text(json.dumps({**describe(), "rows": rows}, indent=1))
    print(table(rows))
    return 0


def measure(depth: int) -> dict[str, float]:
    """Returns processor seconds by phase for one depth, after a run on a small one."""
    _phases(8)
    return _phases(depth)


def _phases(depth: int) -> dict[str, float]:
    model = CifarResNet(depth).eval()
    sample = torch.zeros(2, 3, SIZE, SIZE)
    seconds: dict[str, float] = {"depth": depth}

    def timed(name: str, act: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = act()
        seconds[name] = time.process_time() - started
        return result

    program = timed("trace", lambda: torch.export.export(model, (sample,), dynamic_shapes=({0: Dim.AUTO},)))
    graph = timed("lift", lambda: lift(program, f"resnet{depth}"))
    analysis = timed("analyse", lambda: analyse(graph))
    timed("regions", lambda: merge_space(graph))
    timed("fold", lambda: merge(graph))
    return {**seconds, "nodes": len(graph.module.graph.nodes), "segments": len(analysis.segments)}


def _apart(depth: int) -> dict[str, float]:
    """Measures one depth in a process of its own, on one thread."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--one", str(depth)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, float] = json.loads(done.stdout)
    return row


def table(rows: list[dict[str, float]]) -> str:
    """Returns seconds by phase, and milliseconds per layer."""
    head = ["depth", "nodes", "segments", *(f"{p} s" for p in PHASES), *(f"{p} ms/layer" for p in PHASES)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [f"{row['depth']}", f"{row['nodes']}", f"{row['segments']}"]
        cells += [f"{row[phase]:.2f}" for phase in PHASES]
        cells += [f"{1000 * row[phase] / row['depth']:.2f}" for phase in PHASES]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
