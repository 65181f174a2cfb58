"""`python -m benchmarks.strategies MODEL --data DIR --minutes M --out DIR [--cases STRATEGY:BUDGET ...]`.

Each case is one `shoal optimize` with the same time limit, on a processor core of its own, so that as many run side by
side as there are cores. Every pair of files is then timed again, one pair after the other, by `shoal measure`; that is
the speed-up in the table. What OUT holds already is not done again. A strategy may carry options, as in
`tlc,parity=true:0.6x`. Of a virtual machine the table says what share of the core's time its host gave to others:
minutes of which half was stolen are half as long.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STRATEGIES = ("layerfit", "auto", "layer_merge", "easier", "tlc", "layer_folding", "layer_collapse")
BUDGETS = ("0.8x", "0.6x", "0.5x")
HEAD = (
    "strategy",
    "budget",
    "outcome",
    "speed-up",
    "measured again",
    "original",
    "result",
    "points",
    "minutes",
    "stolen %",
)
_STEAL = 7
"""Place of stolen time in a processor's line of `/proc/stat`; those after it are counted elsewhere too."""


@dataclass(frozen=True)
class Bench:
    """What all cases share.

    Attributes:
        model: To be made faster.
        data: As `shoal optimize --data` takes it.
        minutes: Time limit of each job.
        epochs: Most passes over the training data.
        out: One folder a case.
    """

    model: Path
    data: Path
    minutes: float
    epochs: float
    out: Path

    def run(self, case: str, core: int) -> dict[str, Any]:
        """Returns the report's figures for one case, from a job that ran now or earlier."""
        folder = self.out / case.replace(",", "-").replace("=", "-").replace(":", "-")
        answer = folder / "answer.json"
        if not answer.exists():
            strategy, budget = case.split(":")
            name, *options = strategy.split(",")
            given = [part for option in options for part in ("--option", option)]
            limits = ["--time-limit", f"{round(60 * self.minutes)}s", "--epochs", f"{self.epochs:g}"]
            asked = ["optimize", str(self.model), "--data", str(self.data), "--budget", budget, "--strategy", name]
            before = _ticks(core)
            found = shoal(core, self.out, *asked, *given, *limits, "--out", str(folder))
            found["stolen"] = stolen(before, _ticks(core))
            folder.mkdir(parents=True, exist_ok=True)
            answer.write_text(json.dumps(found, indent=1))
        return {**json.loads(answer.read_text()), "folder": str(folder)}


def _ticks(core: int) -> list[int]:
    """Returns what a processor did since the machine was started, by kind; nothing where the system does not say."""
    stat = Path("/proc/stat")
    lines = stat.read_text().splitlines() if stat.exists() else []
    return [int(part) for line in lines if line.startswith(f"cpu{core} ") for part in line.split()[1 : _STEAL + 2]]


def stolen(before: list[int], after: list[int]) -> float | None:
    """Returns the share of the time between that the host gave to others; None where nobody knows."""
    spent = [end - start for start, end in zip(before, after, strict=True)]
    return spent[_STEAL] / max(1, sum(spent)) if len(spent) > _STEAL else None


def shoal(core: int, out: Path, *arguments: str) -> dict[str, Any]:
    """Runs the command line on one core, with a server of that core's own, and returns what it prints."""
    command = [sys.executable, "-m", "service.cli", *arguments, "--json"]
    if arguments[0] == "optimize":
        command += ["--state-dir", str(out / f"state-{core}")]
    with (out / f"core-{core}.log").open("a") as log:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            check=False,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    if done.returncode not in (0, 3):
        return {"outcome": f"status {done.returncode}", "message": done.stdout[-2000:]}
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def run_all(bench: Bench, cases: list[str], cores: list[int]) -> list[dict[str, Any]]:
    """Runs the cases, as many side by side as there are cores, and returns their figures in order."""
    free, lock = list(cores), threading.Lock()

    def one(case: str) -> dict[str, Any]:
        with lock:
            core = free.pop()
        try:
            found = bench.run(case, core)
            print(case, found.get("outcome"), found.get("speedup"), flush=True)
            return found
        finally:
            with lock:
                free.append(core)

    with ThreadPoolExecutor(len(cores)) as pool:
        return list(pool.map(one, cases))


def cells(bench: Bench, case: str, found: dict[str, Any], core: int) -> list[str]:
    """Returns a case's row, its pair of files timed once more on a core."""
    strategy, budget = case.split(":")
    if "result" not in found:
        return [strategy, budget, str(found["outcome"]), *["-"] * (len(HEAD) - 3)]
    folder = Path(found["folder"])
    again = folder / "again.json"
    if not again.exists():
        files = (str(folder / "model.onnx"), "--baseline", str(folder / "baseline.onnx"))
        again.write_text(json.dumps(shoal(core, bench.out, "measure", *files)))
    before, after = found["baseline"]["accuracy"], found["result"]["accuracy"]
    return [
        strategy,
        budget,
        found["outcome"],
        f"{found['speedup']:.2f}" if found.get("speedup") else "-",
        f"{json.loads(again.read_text())['speedup']:.2f}",
        f"{100 * before:.2f}",
        f"{100 * after:.2f}",
        f"{100 * (after - before):+.2f}",
        f"{found['seconds'] / 60:.1f}",
        f"{100 * found['stolen']:.0f}" if found.get("stolen") is not None else "-",
    ]


def main() -> int:
    """Runs every case and prints a Markdown table."""
    parser = argparse.ArgumentParser(description="Strategies at several budgets.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cores", type=int, nargs="+", default=sorted(os.sched_getaffinity(0)))
    parser.add_argument("--cases", nargs="+", metavar="STRATEGY[,OPTION=VALUE]:BUDGET")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(asked.model, asked.data, asked.minutes, asked.epochs, asked.out)
    cases = asked.cases or [f"{strategy}:{budget}" for budget in BUDGETS for strategy in STRATEGIES]
    found = run_all(bench, cases, asked.cores)
    rows = [HEAD, *(cells(bench, case, one, asked.cores[0]) for case, one in zip(cases, found, strict=True))]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    table = "\n".join([lines[0], "|" + "---|" * len(HEAD), *lines[1:]]) + "\n"
    (asked.out / "table.md").write_text(table)
    print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
