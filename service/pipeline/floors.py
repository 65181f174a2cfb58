"""How fast a model could get at best, in every precision that its network may ship in.

A job plans in one of the precisions that may ship, so the operators of a floor are timed in each of them, as planning
would time them. Which of them is good enough takes samples to tell: of that nothing is said here. So the lowest floor
is what no job can go below, and a job that has to stay in another precision ends at that one's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, final

from pydantic import TypeAdapter

from compressors.memory import NoMemory
from compressors.problem import NO_SAMPLES, Problem
from compressors.strategies import find
from compressors.surgery import fold_norms
from deploy.precision.probe import probe
from service.pipeline.benches import latency_table
from service.pipeline.precisions import FORMATS
from service.worker.messages import FloorFacts, PrecisionFloorFacts, WrittenIn

if TYPE_CHECKING:
    from compressors.analysis import Analysis
    from compressors.graph import Graph
    from deploy.bench import Bench
    from deploy.table import LatencyTable
    from service.pipeline.phases import Phases
    from service.worker.messages import WorkOrder

_WRITTEN: Final[TypeAdapter[WrittenIn]] = TypeAdapter(WrittenIn)
_MAX_REFUSAL: Final = 2000


@final
@dataclass(frozen=True)
class Floors:
    """The floors of one model on one device.

    Attributes:
        order: What is asked for; the precisions are those of its target.
        phases: Where progress goes, and the clock.
        bench: What times it.
        graph: The model.
        analysis: What could be cut from it.
    """

    order: WorkOrder
    phases: Phases
    bench: Bench
    graph: Graph
    analysis: Analysis

    def estimate(self) -> FloorFacts:
        """Returns the floor in each precision that may ship, and the lowest of them.

        Raises:
            DeployError: Timing failed.
        """
        started = self.phases.elapsed
        found = tuple(self._in(_WRITTEN.validate_python(each)) for each in FORMATS[self.order.spec.target.precision])
        best = min((each for each in found if not each.refusal), key=lambda each: each.floor_ms or 0.0)
        return FloorFacts(
            baseline_ms=found[0].original_ms or 0.0,
            floor_ms=best.floor_ms or 0.0,
            elapsed_seconds=self.phases.elapsed - started,
            precision=best.precision,
            precisions=found,
        )

    def _in(self, precision: WrittenIn) -> PrecisionFloorFacts:
        able = probe(self.bench, precision)
        computes = _WRITTEN.validate_python(able.computes)
        if able.refusal is not None:
            return PrecisionFloorFacts(precision=precision, computes=computes, refusal=able.refusal[:_MAX_REFUSAL])
        self.phases(0.0, f"Timing the original and the floor in {precision}")
        timer = self._table(precision)
        folded = self._folded
        original = timer.networks([(folded.module, folded.inputs)])[0]
        plan = find(self.order.spec.strategy.name).start(self._problem(timer, original)).floor()
        floor = min(original, plan.predicted_seconds or original)
        return PrecisionFloorFacts(
            precision=precision, computes=computes, original_ms=original * 1e3, floor_ms=floor * 1e3
        )

    def _table(self, precision: WrittenIn) -> LatencyTable:
        """Returns the device in a precision; all are on the scale of float32, which is asked first."""
        if precision == "float32":
            return self._plain
        return latency_table(self.order, NoMemory(), self.bench, precision, self._plain.anchor)

    @cached_property
    def _plain(self) -> LatencyTable:
        return latency_table(self.order, NoMemory(), self.bench)

    @cached_property
    def _folded(self) -> Graph:
        return fold_norms(self.graph)

    def _problem(self, timer: LatencyTable, seconds: float) -> Problem:
        return Problem(
            graph=self.graph,
            analysis=self.analysis,
            budget_seconds=seconds,
            baseline_seconds=seconds,
            calibration=NO_SAMPLES,
            selection=NO_SAMPLES,
            timer=timer,
            progress=self.phases,
            seed=self.order.spec.seed,
        )
