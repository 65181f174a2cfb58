"""`python -m benchmarks.trust.kept MODEL --data DATA --jobs 100 --out OUT`: how many met budgets are met again.

Each job is one `shoal optimize` with a budget of its own between 0.5x and 0.9x, without fine-tuning. Where it claims
BUDGET_MET, the two files that it shipped are timed again by `shoal measure` in other processes, and the claim is kept
if the result is within the same share of the original. What OUT holds already is not done again.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from deploy.evaluate import wilson


def shoal(*arguments: str) -> dict[str, Any]:
    """Runs the command line and returns the JSON object that it prints last."""
    command = [sys.executable, "-m", "service.cli", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    if done.returncode not in (0, 3):
        return {"outcome": f"status {done.returncode}"}
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def job(number: int, model: Path, data: Path, out: Path) -> dict[str, Any]:
    """Returns one job's budget, what it claimed, and the share that was measured again."""
    kept = out / f"{number}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    budget = round(random.Random(number).uniform(0.5, 0.9), 3)  # noqa: S311 - a budget is no secret
    folder = out / str(number)
    asked = ["optimize", str(model), "--data", str(data), "--budget", f"{budget}x", "--no-finetune"]
    asked += ["--seed", str(number), "--time-limit", "3m", "--state-dir", str(out / "state"), "--out", str(folder)]
    answer = shoal(*asked)
    found = {"budget": budget, "outcome": answer["outcome"], "speedup": answer.get("speedup")}
    if answer["outcome"] == "BUDGET_MET":
        again = shoal("measure", str(folder / "model.onnx"), "--baseline", str(folder / "baseline.onnx"))
        found["again"] = 1 / again["speedup"]
    kept.write_text(json.dumps(found))
    return found


def main() -> int:
    """Runs the jobs and prints one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    claims = []
    for number in range(asked.jobs):
        found = job(number, asked.model, asked.data, asked.out)
        print(f"{number + 1}: {json.dumps(found)}", flush=True)
        if "again" in found:
            claims.append(found)
    kept = [one for one in claims if one["again"] <= one["budget"]]
    low, high = wilson(len(kept), len(claims)) if claims else (0.0, 1.0)
    worst = max((one["again"] / one["budget"] for one in claims), default=None)
    summary = {"jobs": asked.jobs, "claims": len(claims), "kept": len(kept), "share_95": [low, high]}
    print(json.dumps({**summary, "worst_over_budget": worst}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
