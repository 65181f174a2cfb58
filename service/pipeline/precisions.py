"""Which precision a job plans in, and which one its network ships in.

The original is measured in float32, whatever was asked for, and speed-ups are over that. Then

1. the original is converted, judged and timed in each precision that may ship; the plan is made in the fastest that
   is good enough, so that what is timed while planning is what ships. If that alone keeps the budget, nothing is cut;
2. the network to ship is converted, judged and timed again, beside the original and its own float32 file, and one is
   chosen: the precision that was asked for, or, with `auto`, the fastest of all. One that is slower than float32 or
   not good enough is passed over with its reason, and float32 ships.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from compressors.errors import OptionError
from compressors.memory import key_of, remembered
from compressors.plan import Plan
from compressors.problem import Candidate
from deploy.artifact import copy_model
from deploy.measure.report import compare
from deploy.measure.whole import measure
from deploy.precision import PRECISIONS
from deploy.precision.pieces import write_in
from deploy.precision.probe import probe
from service.pipeline.conversion import Attempt, Conversion, Converter, Material
from service.pipeline.search import SAFE, Trial
from service.pipeline.shipping import Shipped, timing_settings

if TYPE_CHECKING:
    from deploy.bench import Bench
    from deploy.measure.report import Budget
    from service.judging.verdict import Verdict
    from service.spec import JobSpec, PrecisionName

FORMATS: Final[dict[PrecisionName, tuple[str, ...]]] = {
    "PRECISION_FP32": ("float32",),
    "PRECISION_FP16": ("float32", "float16"),
    "PRECISION_BF16": ("float32", "bfloat16"),
    "PRECISION_INT8": ("float32", "int8"),
    "PRECISION_AUTO": PRECISIONS,
}
"""What may ship, by what was asked for; float32 always may."""

SLACK: Final = 1.02
"""How many times slower than float32 a precision that was asked for may be; with `auto`, how much faster it must be."""

CHOICE_SECONDS: Final = 1.0
"""How long each file is timed, so that a precision can be chosen; what ships is timed for longer."""


def check_precision(spec: JobSpec, bench: Bench) -> None:
    """Checks that the job's runtime can run what was asked for on its device.

    Raises:
        OptionError: It cannot; the message says why.
        RuntimeMissingError: The runtime is not installed.
    """
    asked = spec.target.precision
    if asked in ("PRECISION_FP32", "PRECISION_AUTO"):
        return
    name, runtime = FORMATS[asked][-1], bench.runtime
    refusal = probe(bench, name).refusal
    if refusal is not None:
        raise OptionError(
            "target.precision",
            f"{runtime} cannot run networks in {name} on {spec.target.device} ({refusal}); ask for another precision, "
            "or for auto, which takes the fastest of those that it can run",
        )


@dataclass(frozen=True)
class Settled:
    """What was chosen for a network.

    Attributes:
        chosen: What ships.
        attempts: All that were tried, float32 first.
        reason: Why this one, in a sentence; empty where there was no choice.
    """

    chosen: Attempt
    attempts: tuple[Attempt, ...]
    reason: str = ""


@final
class Precisions:
    """The precisions of one job.

    Args:
        spec: The job.
        baseline: The original's float32 file.
        material: What networks are converted and judged with.
        folder: Where files on their way lie.
    """

    def __init__(self, spec: JobSpec, baseline: Shipped, material: Material, folder: Path) -> None:
        self._spec, self._baseline, self._use, self._folder = spec, baseline, material, folder
        self._planned: Settled | None = None
        self._took = 0.0

    @property
    def active(self) -> bool:
        """Whether anything but float32 may ship."""
        return self._spec.target.precision != "PRECISION_FP32"

    @property
    def planned(self) -> Settled:
        """What the original comes to in each precision; the plan is made in the chosen one's."""
        if self._planned is None:
            started = time.monotonic()
            self._planned = self._settled(self._baseline, "original")
            took = time.monotonic() - started
            self._took = remembered(self._use.memory, "precision took", ["seconds"], lambda: {"seconds": took})[
                "seconds"
            ]
        return self._planned

    @property
    def seconds(self) -> float:
        """How long it took to choose for the original, and so about how long it will take to choose for the result."""
        return self._took

    @property
    def planning(self) -> str:
        """The precision that the plan is made in."""
        return self.planned.chosen.precision if self.active else "float32"

    def uncut(self, original_seconds: float, budget: Budget, strategy: str) -> Trial | None:
        """Returns the original in the chosen precision as what to ship, where that alone keeps the budget.

        Args:
            original_seconds: The float32 original's.
            budget: What to keep.
            strategy: The job's, for the empty plan.
        """
        if not self.active or self.planning == "float32":
            return None
        chosen = self.planned.chosen
        seconds = original_seconds / (chosen.speedup or 1.0)
        if chosen.conversion.score is None or seconds > SAFE * budget.of(original_seconds):
            return None
        plan, graph = Plan(strategy=strategy, steps=()), self._baseline.graph
        return Trial(Candidate(plan, graph, chosen.conversion.score, seconds), graph, chosen.conversion.score, seconds)

    def for_timing(self, shipped: Shipped) -> Shipped:
        """Returns a network as it is in the precision of the plan, good for nothing but timing."""
        if self.planning == "float32":
            return shipped
        path = self._folder / "timed.onnx"
        copy_model(shipped.artifact.path, path)
        write_in([path], self.planning, self._spec.target.runtime)
        return replace(shipped, artifact=replace(shipped.artifact, path=path, precision=self.planning))

    def settle(self, plain: Shipped, to: Path) -> Settled:
        """Chooses what a network ships in, and writes it.

        Args:
            plain: The network's float32 file.
            to: Where what ships goes.
        """
        if not self.active:
            return Settled(Attempt(Conversion("float32", "float32"), plain), ())
        settled = self._settled(plain, "result")
        shipped = settled.chosen.shipped
        assert shipped is not None
        copy_model(shipped.artifact.path, to)
        moved = replace(shipped, artifact=replace(shipped.artifact, path=to))
        return replace(settled, chosen=replace(settled.chosen, shipped=moved))

    def _settled(self, plain: Shipped, name: str) -> Settled:
        """Converts, judges and times a network in everything that may ship, and chooses."""
        converter = Converter(plain, self._use)
        formats = FORMATS[self._spec.target.precision]
        attempts = [converter.convert(each, self._folder / f"{name}-{each}.onnx") for each in formats]
        timed = self._timed(attempts)
        chosen, reason = choose(timed, asked=None if len(formats) > 2 else formats[-1])
        return Settled(chosen, tuple(timed), reason)

    def _timed(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Returns the attempts with the speed-up of those that have a file, all timed interleaved with the original."""
        running = [attempt for attempt in attempts if attempt.shipped is not None]
        self._use.tell(0.9, f"timing {len(running)} precisions")
        files = [attempt.shipped.artifact for attempt in running if attempt.shipped is not None]
        key = key_of("precisions", self._baseline.artifact.sha256, [file.sha256 for file in files])
        found = remembered(
            self._use.memory,
            key,
            [file.precision for file in files],
            lambda: self._speedups([file.path for file in files], [file.precision for file in files]),
        )
        return [replace(each, speedup=found.get(each.precision)) if each in running else each for each in attempts]

    def _speedups(self, paths: Sequence[Path], names: Sequence[str]) -> dict[str, float]:
        settings = timing_settings(self._spec, CHOICE_SECONDS * (len(paths) + 1))
        original, *others = measure([self._baseline.artifact.path, *paths], settings, bench=self._use.bench)
        return {name: compare(original, other).speedup for name, other in zip(names, others, strict=True)}


def choose(attempts: Sequence[Attempt], asked: str | None) -> tuple[Attempt, str]:
    """Returns what ships of attempts that were timed, and why.

    Args:
        attempts: The first is float32, which may always ship.
        asked: The precision that was asked for; None for the fastest.
    """
    plain, rivals = attempts[0], [each for each in attempts[1:] if each.refusal is None and each.speedup is not None]
    base = plain.speedup or 1.0
    if asked is not None:
        return _asked_for(plain, next(each for each in attempts if each.precision == asked), base)
    best = max(rivals, key=lambda each: each.speedup or 0.0, default=plain)
    if (best.speedup or 0.0) <= SLACK * base:
        return plain, "No other precision is both good enough and faster than float32."
    gain = (best.speedup or 0.0) / base
    return best, f"Of the precisions tried, {best.precision} is the fastest: {gain:.2f}x float32's speed."


def _asked_for(plain: Attempt, asked: Attempt, base: float) -> tuple[Attempt, str]:
    if asked.refusal is not None or asked.speedup is None:
        return plain, f"{asked.precision} was asked for and is not returned: {asked.refusal}."
    if asked.speedup * SLACK < base:
        slower = base / asked.speedup
        return (
            plain,
            f"{asked.precision} was asked for and is not returned: it is {slower:.2f}x slower than float32 here.",
        )
    return asked, f"Its numbers are written in {asked.precision}."


def explained(verdict: Verdict, settled: Settled | None) -> Verdict:
    """Returns a verdict that says what the network's numbers are written in, where there was a choice."""
    if settled is None or not settled.reason:
        return verdict
    return replace(verdict, explanation=f"{verdict.explanation} {settled.reason}")
