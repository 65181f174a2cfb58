"""The table and its summary."""

from __future__ import annotations

from collections import Counter
from typing import Any

Result = dict[str, Any]

_HEAD = [
    "architecture", "input", "parameters (M)", "sites", "segments", "merges", "layers", "refusals",
    "trace s", "lift s", "analyse s", "merge s", "export s", "peak analyse", "peak export",
    "rounding", "lift error", "merge float32", "merge float64", "file error",
]  # fmt: skip
_ERRORS = {"lift": "lift", "merge32": "merge in float32", "merge64": "merge in float64", "file": "file"}
_PHASES = ("trace", "lift", "analyse", "merge", "export")


def report(results: list[Result]) -> str:
    """Returns the whole page."""
    done = [result for result in results if "failure" not in result]
    failed = [result for result in results if "failure" in result]
    parts = [_header(results), _summary(done, failed), "## Architectures", _table(done)]
    parts += ["## What failed or is refused", _failures(failed), "## Refusals, by reason", _reasons(done)]
    return "\n\n".join(parts) + "\n"


def _header(results: list[Result]) -> str:
    newest = results[-1]
    commits = sorted({str(result["commit"]) for result in results})
    versions = ", ".join(f"{name} {number}" for name, number in newest["versions"].items())
    return f"""# Coverage

    python -m benchmarks.coverage --out docs/coverage.md

Every architecture in a process of its own, one thread; weights are random, and so are all norm statistics, scales and biases
that would be constant. {newest["processor"]}; {versions}; commit {", ".join(commits)}.

* *sites*: activations. *segments*: stretches that a convolution or linear may replace, or that may be removed. *merges*:
  regions of several operators that became one each when every activation that stood between was taken out (the deepest merge there
  can be, longest regions first; no network to ship), plus batch norms folded beside them. *layers*: convolutions, linears and norms
  called, before and after. *refusals*: what may not be cut, by reason.
* Seconds are processor seconds (user and system) of that phase, after the libraries have been loaded.
* *peak*: largest resident memory up to and with that phase, above that of the loaded libraries, as a multiple of the weights'
  bytes.
* Errors are the largest absolute difference relative to the largest absolute value of that output, on random inputs:
  lifted graph against the program, merged graph against the unmerged one in float32 and in float64, ONNX file in ONNX Runtime
  against the merged graph. *rounding* is the yardstick: the graph itself in float32 against float64. Deep networks with random
  weights amplify rounding; an error of about this size is no more than another order of summation."""


def _summary(done: list[Result], failed: list[Result]) -> str:
    total = len(done) + len(failed)
    lines = [f"{len(done)} of {total} architectures go the whole way; {len(failed)} do not (listed below)."]
    for key, title in _ERRORS.items():
        errors = sorted((result["errors"].get(key, 0.0), result["name"]) for result in done)
        errors = sorted((result["errors"].get(key, 0.0), result["name"]) for result in done)
        if errors:
            lines.append(f"Largest error of {title}: {errors[-1][0]:.1e} ({errors[-1][1]}).")
    return "\n".join(f"* {line}" for line in lines)


def _table(done: list[Result]) -> str:
    rows = ["| " + " | ".join(_HEAD) + " |", "|" + "---|" * len(_HEAD)]
    rows += ["| " + " | ".join(_cells(result)) + " |" for result in done]
    return "\n".join(rows)


def _cells(result: Result) -> list[str]:
    peaks = [result["peak_bytes"][phase] / max(result["weight_bytes"], 1) for phase in ("analyse", "export")]
    refusals = ", ".join(f"{code} {count}" for code, count in sorted(result["refusals"].items())) or "-"
    return [
        result["name"].partition("@")[0],
        ", ".join("x".join(map(str, shape)) for shape in result["inputs"]),
        f"{result['parameters'] / 1e6:.2f}",
        str(result["sites"]),
        str(result["segments"]),
        "{} + {}".format(*result["merges"]),
        "{} → {}".format(*result["layers"]),
        refusals,
        *(f"{result['cpu_seconds'][phase]:.1f}" for phase in _PHASES),
        *(f"{peak:.1f}" for peak in peaks),
        *(_error(result["errors"], key) for key in ("rounding", "lift", "merge32", "merge64", "file")),
    ]


def _error(errors: dict[str, float], key: str) -> str:
    return f"{errors[key]:.1e}" if key in errors else "-"


def _failures(failed: list[Result]) -> str:
    if not failed:
        return "Nothing."
    return "\n".join(
        f"* {r['name']}: in {r['failure']['phase']}, {r['failure']['kind']}: {' '.join(r['failure']['message'].split())[:300]}"
        for r in failed
    )


def _reasons(done: list[Result]) -> str:
    """Returns every reason code with its count, in how many architectures, and one sentence as an example."""
    counts: Counter[str] = Counter()
    where: Counter[str] = Counter()
    examples: dict[str, tuple[str, str]] = {}
    for result in done:
        counts.update(result["refusals"])
        where.update(result["refusals"].keys())
        for code, _, reason in result["reasons"]:
            examples.setdefault(code, (result["name"], reason))
    rows = ["| reason | refusals | architectures | example |", "|---|---|---|---|"]
    for code, count in counts.most_common():
        name, reason = examples[code]
        rows.append(f"| {code} | {count} | {where[code]} | {name}: {reason} |")
    return "\n".join(rows)
