"""One network into one precision: converted, checked against its graph, judged beside its float32 file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from pydantic import TypeAdapter

from compressors.batches import in_order
from compressors.memory import Memory, key_of
from compressors.problem import Score
from deploy.agree import agree
from deploy.bench import Bench
from deploy.errors import DeviceFailedError, DeviceMemoryError, MeasureError
from deploy.precision import Converted, Kept
from deploy.precision.bound import error_bound
from deploy.precision.calibrate import CALIBRATORS, calibrate
from deploy.precision.half import convert_half
from deploy.precision.keep import Ranges
from deploy.precision.observe import Feeds, count_values, find_ranges
from deploy.precision.probe import DOUBTFUL, REFUSALS, probe
from deploy.precision.quantise import form_for, quantisable, quantise
from deploy.precision.sensitivity import operator_errors
from deploy.precision.written import describe_converted
from service.judging.fidelity import comparer, shortfall
from service.pipeline.shipping import AGREEMENT_BATCHES, Shipped, first_samples
from service.resuming.remembered import recalled

if TYPE_CHECKING:
    from compressors.problem import Samples
    from service.judging.quality import Goal
    from service.judging.scoring import Scorer

CALIBRATED_ON: Final = 256
"""At most so many calibration samples."""

CALIBRATED_NUMBERS: Final = 1 << 24
"""At most so many numbers in their inputs: 111 images of 3 x 224 x 224."""

COMPARED_ON: Final = 64
"""Of these, what operators' own errors are measured on."""

LEFT_OUT: Final = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the quantised operators that stay in float32, the most sensitive first, until the rest is good enough."""

_PASSING: Final = (DeviceFailedError, DeviceMemoryError, MeasureError)
"""Failures of the device that may be over by the next try."""

_MAX_TOLD: Final = 500
"""Characters of a device's words in a line for people."""

_BATCH: Final = 8
_FIRST: Final = "mse"
_RANGES: TypeAdapter[dict[str, tuple[float, float]]] = TypeAdapter(dict[str, tuple[float, float]])
_ALL_RANGES: TypeAdapter[dict[str, dict[str, tuple[float, float]]]] = TypeAdapter(
    dict[str, dict[str, tuple[float, float]]]
)
_SCORE: TypeAdapter[Score] = TypeAdapter(Score)
_ERRORS: TypeAdapter[dict[str, float]] = TypeAdapter(dict[str, float])

Tell = Callable[[float, str], None]
"""Takes the fraction that is done and a line for people."""


@dataclass(frozen=True)
class Conversion:
    """How a network's numbers are written.

    Attributes:
        precision: One of `deploy.precision.PRECISIONS`.
        computes: What the runtime computes in; `float32` where it only stores numbers in half precision.
        kept: Operators that stayed in float32.
        operators: How many could have been converted.
        calibrator: What chose the ranges of int8, None in other precisions.
        samples: Calibration samples, 0 where none were needed.
        score: The file, compared with the float32 file of the same network on selection samples.
    """

    precision: str
    computes: str
    kept: tuple[Kept, ...] = ()
    operators: int = 0
    calibrator: str | None = None
    samples: int = 0
    score: Score | None = None


@dataclass(frozen=True)
class Attempt:
    """What came of trying a precision.

    Attributes:
        conversion: How it was written.
        shipped: The file; None where there is none that can be run.
        refusal: Why it may not ship, None where it may.
        speedup: Over the original's float32 file, timed interleaved; None where it was not timed.
    """

    conversion: Conversion
    shipped: Shipped | None
    refusal: str | None = None
    speedup: float | None = None

    @property
    def precision(self) -> str:
        """Which precision."""
        return self.conversion.precision


@dataclass(frozen=True)
class Material:
    """What networks of a job are converted and judged with.

    Attributes:
        calibration: Samples that ranges are found on.
        selection: Samples that conversions are judged on.
        goal: What counts.
        bench: What will run the files.
        memory: Where what takes long is kept.
        seconds_left: Until the job must wind up.
        tell: Where progress goes.
    """

    calibration: Samples
    selection: Samples
    goal: Goal
    bench: Bench
    memory: Memory
    seconds_left: Callable[[], float] = field(default=lambda: math.inf)
    tell: Tell = field(default=lambda _fraction, _message: None)


@final
class Converter:
    """Converts one network to one precision after another.

    Args:
        plain: The network, with its float32 file.
        material: What it is converted and judged with.
    """

    def __init__(self, plain: Shipped, material: Material) -> None:
        self._plain, self._use = plain, material
        self._path = plain.artifact.path

    def convert(self, precision: str, to: Path) -> Attempt:
        """Writes the network in a precision and judges the file; what speaks against that is the attempt's refusal.

        Only what the network or the precision causes does: a device that fails is tried once more, and then its error
        is raised.

        Args:
            precision: One of `deploy.precision.PRECISIONS`.
            to: Where to write; what is tried on the way goes beside it.

        Raises:
            DeployError: The device failed: it is gone, out of memory, or a call to it failed.
        """
        ability = probe(self._use.bench, precision)
        if ability.refusal is not None:
            return Attempt(Conversion(precision, ability.computes), None, ability.refusal)
        bare = Conversion(precision, ability.computes)
        if precision == "float32":
            return Attempt(replace(bare, score=self._reference), self._plain)
        self._use.tell(0.0, f"writing the network in {precision}")
        try:
            return self._tried(bare, to)
        except _PASSING as exc:
            self._use.tell(0.0, f"trying {precision} once more, since the device failed: {str(exc)[:_MAX_TOLD]}")
            return self._tried(bare, to)

    def _tried(self, bare: Conversion, to: Path) -> Attempt:
        try:
            return self._quantised(bare, to) if bare.precision == "int8" else self._halved(bare, to)
        except REFUSALS as exc:
            return Attempt(bare, None, str(exc))
        except DOUBTFUL as exc:
            self._control()
            return Attempt(bare, None, str(exc))

    def _control(self) -> None:
        """Runs the float32 file on one sample: where that fails too, the device is to blame and not the precision."""
        for _ in self._use.bench.run(self._path, [tuple(first_samples(self._use.selection, 1))], threads=1):
            pass

    def _halved(self, bare: Conversion, to: Path) -> Attempt:
        converted = convert_half(self._path, to, bare.precision, self._ranges)
        shipped = self._checked(to, converted, error_bound(to, bare.precision))
        if not shipped.agreement.passed:
            worst = max(entry.max_relative_error for entry in shipped.agreement.batches)
            allowed = shipped.agreement.batches[0].tolerance
            why = f"its outputs are off by {worst:.1e} of the largest, where rounding explains {allowed:.1e}"
            return Attempt(self._told(bare, converted, None), shipped, why)
        return self._judged(self._told(bare, converted, None), shipped)

    def _quantised(self, bare: Conversion, to: Path) -> Attempt:
        """Tries the calibrators, then leaves the most sensitive operators out until the file is good enough."""
        names = [_FIRST, *(name for name in CALIBRATORS if name != _FIRST)]
        tries: list[Attempt] = []
        for at, name in enumerate(names):
            if tries and self._use.seconds_left() <= 0:
                break
            self._use.tell(0.1 + 0.1 * at, f"calibrating int8 by {name}")
            tries.append(self._with(bare, to, name, {}))
        best = closest(tries)
        return best if best.refusal is None else self._relieved(best, bare, to)

    def _relieved(self, best: Attempt, bare: Conversion, to: Path) -> Attempt:
        """Leaves out more and more; returns the first attempt that is good enough, or the last with its refusal."""
        calibrator, shipped = best.conversion.calibrator or _FIRST, best.shipped
        assert shipped is not None
        key = self._key("errors", calibrator)
        errors = recalled(self._use.memory, key, _ERRORS, lambda: self._errors(shipped.artifact.path))
        order = sorted((name for name in errors if errors[name] > 0), key=lambda name: -errors[name])
        for at, share in enumerate(LEFT_OUT if order else ()):
            if self._use.seconds_left() <= 0:
                why = f"{best.refusal}, and the time was over"
                return replace(best, refusal=why)
            out = order[: max(1, math.ceil(share * len(order)))]
            self._use.tell(0.6 + 0.1 * at, f"int8 with {len(out)} of {len(order)} operators left in float32")
            reasons = {name: f"adds {errors[name]:.1e} of the signal's square as error in int8" for name in out}
            best = self._with(bare, to, calibrator, reasons)
            if best.refusal is None:
                break
        return best

    def _with(self, bare: Conversion, to: Path, calibrator: str, left_out: Mapping[str, str]) -> Attempt:
        """Returns the network in int8 with ranges of one calibrator, judged, in a file of its own."""
        path, ranges = to.with_name(f"{to.stem}-{calibrator}-{len(left_out)}.onnx"), self._calibrated[calibrator]
        converted = quantise(self._path, path, ranges, form_for(self._use.bench.runtime), left_out)
        told = self._told(bare, converted, calibrator)
        return self._judged(told, self._checked(path, converted, math.inf))

    def _told(self, bare: Conversion, converted: Converted, calibrator: str | None) -> Conversion:
        samples = sum(len(batch[0]) for batch in self._feeds)
        return replace(bare, kept=converted.kept, operators=converted.operators, calibrator=calibrator, samples=samples)

    def _checked(self, path: Path, converted: Converted, tolerance: float) -> Shipped:
        plain = self._plain
        artifact = describe_converted(plain.artifact, path, converted)
        feeds = first_samples(self._use.selection, max(AGREEMENT_BATCHES))
        agreement = agree(artifact, plain.graph.module, AGREEMENT_BATCHES, feeds, self._use.bench, tolerance)
        return replace(plain, artifact=artifact, agreement=agreement, plain=plain.artifact)

    def _judged(self, conversion: Conversion, shipped: Shipped) -> Attempt:
        score = self._score(shipped.artifact.sha256, shipped.artifact.path)
        why = shortfall(self._use.goal, self._reference, score)
        return Attempt(replace(conversion, score=score), shipped, why)

    @cached_property
    def _reference(self) -> Score:
        return self._score(self._plain.artifact.sha256, self._path)

    def _score(self, sha256: str, path: Path) -> Score:
        key = self._key("compared", sha256, self._use.goal.task.name)
        return recalled(self._use.memory, key, _SCORE, lambda: self._comparer.compare(path))

    @cached_property
    def _comparer(self) -> Scorer:
        use = self._use
        return comparer(self._plain.graph, self._path, use.selection, use.goal, use.bench)

    @cached_property
    def _ranges(self) -> Ranges:
        return recalled(self._use.memory, self._key("ranges"), _RANGES, lambda: find_ranges(self._path, self._feeds))

    @cached_property
    def _calibrated(self) -> Mapping[str, Ranges]:
        form = form_for(self._use.bench.runtime)

        def found() -> dict[str, dict[str, tuple[float, float]]]:
            values = count_values(self._path, self._feeds, self._ranges)
            return {name: calibrate(values, name, symmetric=form == "symmetric") for name in CALIBRATORS}

        return recalled(self._use.memory, self._key("calibrated", form), _ALL_RANGES, found)

    def _errors(self, quantised: Path) -> dict[str, float]:
        names = quantisable(self._path, self._ranges, form_for(self._use.bench.runtime))
        return operator_errors(self._path, quantised, names, self._feeds[: max(1, COMPARED_ON // _BATCH)])

    @cached_property
    def _feeds(self) -> Feeds:
        """Calibration samples as batches."""
        numbers = sum(math.prod(spec.shape) for spec in self._plain.graph.inputs)
        most = max(_BATCH, min(CALIBRATED_ON, CALIBRATED_NUMBERS // max(1, numbers)))
        batches = in_order(self._use.calibration, _BATCH, most)
        return [tuple(values.numpy() for values in batch.inputs) for batch in batches]

    def _key(self, kind: str, *parts: object) -> str:
        return key_of(f"precision {kind}", self._plain.artifact.sha256, self._use.bench.runtime, *parts)


def closest(attempts: Sequence[Attempt]) -> Attempt:
    """Returns the attempt whose outputs are closest to the float32 file's, of those that may ship where one may."""
    return min(attempts, key=lambda attempt: (attempt.refusal is not None, _divergence(attempt)))


def _divergence(attempt: Attempt) -> float:
    score = attempt.conversion.score
    return math.inf if score is None else score.divergence
