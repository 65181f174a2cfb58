"""What budgets cost on a published network: `python -m benchmarks.budgets --data DIR --out DIR`.

DIR holds `models/NAME.pt2` and an image data set. Each case is one `shoal optimize`, and one `shoal measure` of its two
files in another process; the table shows both, so that a figure that only one of them found is seen.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CASES = ("0.85x:0", "0.7x:0", "0.6x:0", "0.7x:2", "0.6x:2")


@dataclass(frozen=True)
class Row:
    """One case, by the report and by the second measurement."""

    case: str
    answer: dict[str, Any]
    again: dict[str, Any]

    def cells(self) -> list[str]:
        """Returns the table's cells."""
        budget, epochs = self.case.split(":")
        before, after = self.answer["baseline"], self.answer["result"]
        return [
            budget,
            epochs,
            self.answer["outcome"],
            f"{before['latency_ms']['p50']:.3f} → {after['latency_ms']['p50']:.3f}",
            f"{self.answer['speedup']:.3f}",
            f"{self.again['speedup']:.3f}",
            f"{100 * before['accuracy']:.2f} → {100 * after['accuracy']:.2f}",
            f"{100 * (after['accuracy'] - before['accuracy']):+.2f}",
            f"{self.answer['seconds']:.0f}",
        ]


HEAD = ["budget", "epochs", "outcome", "p50 ms", "speed-up", "measured again", "accuracy %", "points", "seconds"]


def shoal(*arguments: str) -> dict[str, Any]:
    """Runs the command line and returns the JSON object that it prints last."""
    command = [sys.executable, "-m", "service.cli", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"shoal {' '.join(arguments)} ended with status {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def run(model: Path, data: Path, case: str, out: Path) -> Row:
    """Optimises for one case and measures what came out a second time."""
    budget, epochs = case.split(":")
    folder = out / f"{model.stem}-{budget}-{epochs}"
    training = ["--no-finetune"] if epochs == "0" else ["--epochs", epochs]
    asked = ["optimize", str(model), "--data", str(data), "--budget", budget, "--out", str(folder)]
    answer = shoal(*asked, *training, "--time-limit", "2h")
    again = shoal("measure", str(folder / "model.onnx"), "--baseline", str(folder / "baseline.onnx"))
    return Row(case, answer, again)


def main() -> int:
    """Runs every case and prints a Markdown table."""
    parser = argparse.ArgumentParser(description="Latency and accuracy at several budgets.")
    parser.add_argument("--data", type=Path, required=True, help="folder with models/ and the data set")
    parser.add_argument("--model", default="resnet20_cifar10")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--out", type=Path, default=Path("benchmark-output"))
    parser.add_argument("--cases", nargs="+", default=list(CASES), metavar="BUDGET:EPOCHS")
    asked = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD), flush=True)
    for case in asked.cases:
        row = run(asked.data / "models" / f"{asked.model}.pt2", asked.data / asked.dataset, case, asked.out)
        print("| " + " | ".join(row.cells()) + " |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
