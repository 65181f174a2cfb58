"""`python -m benchmarks.coverage [--only PATTERN] [--again] [--out FILE] [--json FILE] [--work DIR]`.

Takes every architecture of `cases` through import, lift, analysis, merge, export and agreement, each in a process of its
own, and writes a table. What the work folder holds already is not done again.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.coverage.cases import Case, cases
from benchmarks.coverage.machine import describe
from benchmarks.coverage.table import report


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
    results = []
    for case in cases():
        file = options.work / f"{case.name.replace(':', '-')}.json"
        known = json.loads(file.read_text()) if file.exists() else None
        wanted = any(fnmatch.fnmatch(case.name, pattern) for pattern in patterns)
        stale = known is None or options.again or (options.failed and "failure" in known)
        if wanted and stale:
            known = {**_run(case, options.limit), **describe()}
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
    """Runs one case in a process of its own, on one thread."""
    command = [sys.executable, "-m", "benchmarks.coverage.worker", case.name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    empty = {"name": case.name, "seconds": {}, "cpu_seconds": {}, "errors": {}}
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=limit, check=False
        )
        result: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {**empty, "failure": {"phase": "?", "kind": "Timeout", "message": f"longer than {limit:g} s"}}
    except ValueError:
        message = f"the process ended with status {done.returncode}: {done.stderr.decode(errors='replace')[-600:]}"
        return {**empty, "failure": {"phase": "?", "kind": "Crash", "message": message}}
    return result


def _line(result: dict[str, Any]) -> str:
    failure = result.get("failure")
    if failure:
        return f"{result['name']}: {failure['kind']} in {failure['phase']}: {failure['message'][:300]}"
    errors = " ".join(f"{name} {value:.1e}" for name, value in result["errors"].items())
    seconds = " ".join(f"{name} {value:.1f}" for name, value in result["cpu_seconds"].items())
    return f"{result['name']}: {errors} | {seconds}"


if __name__ == "__main__":
    raise SystemExit(main())
