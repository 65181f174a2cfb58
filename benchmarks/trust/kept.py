"""`python -m benchmarks.trust.kept MODEL --data DATA --jobs 100 --out OUT`: how many met budgets are met again.

Each job is one `shoal optimize` with a budget of its own between 0.5x and 0.9x, without fine-tuning. Where it claims
BUDGET_MET, the two files that it shipped are timed again by `shoal measure` in other processes, and the claim is kept
if the result is within the same share of the original.

What a claim is worth depends on how it was measured and not on how good the plan is, so jobs plan as little as they can
and their time limit is short; the final measurement is that of any job. A few hundred samples are enough.

It can be stopped at any moment and goes on from there: OUT has a file for each claim and one for each claim measured
again. What a stopped run left under way on its server is cancelled first, so that it takes no time from other jobs.
Jobs that came to nothing are tried again by the next run. `--first` makes a part of them, on another core or machine;
put together in one OUT, the parts' files are what a run that made all of them leaves, and the next run sums them up.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.evaluate import wilson

QUICK = {"selection_samples": 64, "refinements": 1, "comparisons": 1, "plans": 1}
"""Options of `layerfit` that make planning short."""


@dataclass(frozen=True)
class Trial:
    """What all jobs have in common.

    Attributes:
        model: What is made faster.
        data: Its samples.
        out: Where everything is kept.
        limit: Time limit of a job, as `--time-limit` takes it.
    """

    model: Path
    data: Path
    out: Path
    limit: str


def shoal(*arguments: str) -> Any:
    """Runs the command line and returns the JSON that it prints; None where it did not do what it was asked for."""
    command = [sys.executable, "-m", "service.cli", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        print(f"status {done.returncode}: {done.stderr.strip()[-500:]}", file=sys.stderr, flush=True)
        return None
    return json.loads(done.stdout)


def kept(path: Path, find: Any) -> dict[str, Any] | None:
    """Returns what a file holds; else what `find` finds, written there whole or, where it finds nothing, not at all."""
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_text())
        return known
    found: dict[str, Any] | None = find()
    if found is not None:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(found))
        partial.replace(path)
    return found


def claim(trial: Trial, number: int) -> dict[str, Any] | None:
    """Returns one job's budget and what it came to."""
    budget = round(random.Random(number).uniform(0.5, 0.9), 3)  # noqa: S311 - a budget is no secret
    asked = ["optimize", str(trial.model), "--data", str(trial.data), "--budget", f"{budget}x", "--no-finetune"]
    asked += ["--seed", str(number), "--time-limit", trial.limit, "--state-dir", str(trial.out / "state")]
    asked += ["--out", str(trial.out / str(number))]
    for name, value in QUICK.items():
        asked += ["--option", f"{name}={value}"]
    answer = shoal(*asked)
    if answer is None:
        return None
    return {name: answer[name] for name in ("outcome", "speedup", "seconds")} | {"budget": budget}


def measured_again(trial: Trial, number: int) -> dict[str, Any] | None:
    """Returns the share of the original's latency that the result of a job has now."""
    folder = trial.out / str(number)
    answer = shoal("measure", str(folder / "model.onnx"), "--baseline", str(folder / "baseline.onnx"))
    return None if answer is None else {"share": 1 / answer["speedup"]}


def job(trial: Trial, number: int) -> dict[str, Any]:
    """Returns what is known of one job, after what was missing was found out."""
    found = kept(trial.out / f"{number}.claim.json", lambda: claim(trial, number))
    if found is None:
        return {"outcome": "FAILED"}
    if found["outcome"] != "BUDGET_MET":
        return found
    again = kept(trial.out / f"{number}.again.json", lambda: measured_again(trial, number))
    return found if again is None else found | {"again": again["share"]}


def clear(trial: Trial) -> None:
    """Cancels what an earlier run left under way."""
    state = trial.out / "state"
    left = (shoal("jobs", "list", "--state-dir", str(state)) or []) if state.exists() else []
    for one in left:
        if one["state"] in ("QUEUED", "RUNNING"):
            shoal("jobs", "cancel", one["name"], "--state-dir", str(state))


def summarise(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns how many claims were kept, with the 95 % Wilson interval of their share."""
    claims = [one for one in found if "again" in one]
    held = [one for one in claims if one["again"] <= one["budget"]]
    low, high = wilson(len(held), len(claims)) if claims else (0.0, 1.0)
    return {
        "jobs": len(found),
        "failed": sum(one["outcome"] == "FAILED" for one in found),
        "claims": len(claims),
        "kept": len(held),
        "share_95": [low, high],
        "worst_over_budget": max((one["again"] / one["budget"] for one in claims), default=None),
    }


def main() -> int:
    """Runs the jobs and prints one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="of the jobs; for a part of them")
    parser.add_argument("--time-limit", default="2m", help="of each job; a minute of it is kept for the end")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    trial = Trial(asked.model, asked.data, asked.out, asked.time_limit)
    clear(trial)
    found = []
    for number in range(asked.first, asked.first + asked.jobs):
        found.append(job(trial, number))
        print(f"{number + 1}: {json.dumps(found[-1])}", flush=True)
    print(json.dumps(summarise(found), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
