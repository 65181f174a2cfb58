"""What a job does, on one screen: source -> graph -> plan -> graph' -> file -> measurement -> report.

Runs in a worker process, never in the server's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from compressors.analysis import Analysis, analyse
from compressors.batches import count, fetch
from compressors.errors import SurgeryError
from compressors.graph import Graph
from compressors.memory import Memory, key_of, remembered
from compressors.plan import Plan
from compressors.precision import choose_precision
from compressors.problem import Candidate, Problem
from compressors.problem import Samples as EngineSamples
from compressors.strategies import find
from compressors.tune import Tuned
from deploy.artifact import copy_model
from deploy.bench import Bench
from deploy.measure.whole import measure
from deploy.table import LatencyTable
from service.delivery.describe import deliver
from service.judging.quality import Goal, classes, goal
from service.judging.verdict import Evidence, judge, judge_without_candidate
from service.pipeline.benches import ANCHOR, Announce, bench_of, latency_table, nobody
from service.pipeline.conversion import Material
from service.pipeline.inputs import Model, Samples, load_model, load_samples
from service.pipeline.layertimes import profiled, with_times
from service.pipeline.phases import Phases
from service.pipeline.phases import Report as ReportProgress
from service.pipeline.precisions import Precisions, Settled, check_precision, explained
from service.pipeline.scorings import Scorings
from service.pipeline.search import Found, Tools, search
from service.pipeline.shipping import Contest, Shipped, contest, engine_budget, ship, timing_settings
from service.pipeline.trainings import Trainings
from service.report.assemble import Ending, Facts, assemble
from service.report.render import render
from service.report.schema import Report
from service.resuming.attempt import opening, writer_of
from service.resuming.journal import Journal
from service.resuming.remembered import JobMemory, Readings, RememberedTimer, recalled
from service.worker.messages import WorkOrder

PLANNING_SHARE = 0.5
"""Of the time that is left when planning begins, the part that it may use in a job that trains."""

QUICK_SECONDS = 4.0
"""How long an exported candidate is timed before fine-tuning; what is shipped is timed for longer."""

_TOLD_BY = 256
"""Samples whose targets tell the task."""


def optimize(order: WorkOrder, progress: ReportProgress, announce: Announce = nobody) -> Report:
    """Does a job and returns its report; the files lie in `order.out`.

    Raises:
        EngineError: The model or the options cannot be used.
        DataError: The samples cannot be used.
        DeployError: Exporting or measuring failed.
    """
    order.folder.mkdir(parents=True, exist_ok=True)
    writer = writer_of(order)
    journal = Journal(order.folder, writer)
    memory = JobMemory(journal, order.folder, writer)
    phases = Phases(progress, order.deadline_seconds, journal.before.seconds, journal.clock)
    bench = bench_of(order, announce, phases)
    check_precision(order.spec, bench)
    order.out.mkdir(exist_ok=True)
    with phases.phase("load", opening(journal.before)):
        model = load_model(order)
        samples = load_samples(order, model, outputs=classes(model.graph, order.spec.task))
        wanted = goal(order.spec, model.graph, _targets(samples))
    with phases.phase("analyze", "Looking for what can be cut"):
        analysis = analyse(model.graph)
    with phases.phase("baseline", "Exporting and timing the original"):
        baseline = ship(model.graph, order.out / "baseline.onnx", samples.feeds.selection, bench)
        timer = latency_table(order, memory, bench)
        original = _original_seconds(baseline, timer, memory)
        phases(0.6, "Scoring the original")
        scorings = Scorings(
            model.graph, baseline.artifact, samples.feeds.validation, wanted, memory, bench, lambda: phases.elapsed
        )
        wind_up = scorings.wind_up_seconds()
        left = Readings(memory, "precision", partial(phases.seconds_left, wind_up))
        material = Material(samples.feeds.calibration, samples.feeds.selection, wanted, bench, memory, left, phases)
        precisions = Precisions(order.spec, baseline, material, order.folder)
        trainings = Trainings(
            model.graph,
            samples.feeds.fit,
            samples.feeds.selection,
            order,
            wanted,
            memory,
            phases,
            reserve=lambda: wind_up + precisions.seconds,
        )
        job = Job(
            order, phases, model, samples, baseline, wanted, memory, bench, precisions, original, trainings, scorings
        )
        problem = job.problem(analysis, timer)
        phases.note(baseline_ms=original * 1e3, budget_ms=problem.budget_seconds * 1e3)
    found = job.find(problem)
    return job.conclude(problem, found)


def _original_seconds(baseline: Shipped, table: LatencyTable, memory: Memory) -> float:
    """Returns the original's seconds in float32, and notes the scale that they are on."""
    seconds = RememberedTimer(table, memory).networks([(baseline.graph.module, baseline.graph.inputs)])[0]
    if table.anchor is not None and memory.recall(ANCHOR) is None:
        memory.keep(ANCHOR, table.anchor)
    return seconds


def _targets(samples: Samples) -> torch.Tensor:
    selection = samples.feeds.selection
    return fetch(selection, range(min(_TOLD_BY, count(selection)))).labels


def _impossible(problem: Problem, floor: Plan) -> str:
    return (
        f"The budget of {problem.budget_seconds * 1e3:.3g} ms cannot be met: with everything gone that can go, "
        f"the network takes {(floor.predicted_seconds or 0.0) * 1e3:.3g} ms. Making the fastest; cancel if it is no use"
    )


@dataclass(frozen=True)
class Job:
    """One job under way: what every step of it needs to know."""

    order: WorkOrder
    phases: Phases
    model: Model
    samples: Samples
    baseline: Shipped
    goal: Goal
    memory: Memory
    bench: Bench
    precisions: Precisions
    original_seconds: float
    trainings: Trainings
    scorings: Scorings

    def problem(self, analysis: Analysis, table: LatencyTable) -> Problem:
        """Returns the job as a strategy sees it: all latencies are of networks in the precision that is planned in."""
        folded, planning = self.baseline.graph, self.precisions.planning
        if planning != "float32":
            table = latency_table(self.order, self.memory, self.bench, planning, table.anchor)
        timer = RememberedTimer(table, self.memory, planning)
        seconds = timer.networks([(folded.module, folded.inputs)])[0]
        limit = engine_budget(self.order.spec)
        reserve = self._reserve(self._clock("training", self._wind_up)())
        return Problem(
            graph=self.model.graph,
            analysis=analysis,
            budget_seconds=limit.of(self.original_seconds),
            baseline_seconds=seconds,
            calibration=self.samples.feeds.calibration,
            selection=self.samples.feeds.selection,
            timer=timer,
            progress=self.phases,
            seed=self.order.spec.seed,
            seconds_left=self._clock("planning", reserve),
            clock=partial(self.phases.seconds_left, reserve),
            train=self.trainings.on_the_way if self.trainings.wanted else None,
            task=self.goal.task.name,
            holds=lambda score: self.goal.holds(self.goal.of(score)),
            memory=self.memory,
            precision=choose_precision("cpu", "auto"),
        )

    def _renewed(self, problem: Problem, numbers: Iterator[int]) -> Problem:
        """Returns the problem with clocks that share out what is left now, when a network before has been trained."""
        who = f"others {next(numbers)}"
        reserve = self._reserve(self._clock(f"training of {who}", self._wind_up)())
        clock = partial(self.phases.seconds_left, reserve)
        return replace(problem, seconds_left=self._clock(f"planning of {who}", reserve), clock=clock)

    def _reserve(self, left: float) -> float:
        """Returns what is kept back from planning when so many seconds are left."""
        return self._wind_up + ((1 - PLANNING_SHARE) * left if self.trainings.wanted else 0.0)

    @property
    def _wind_up(self) -> float:
        """Seconds kept back from the time limit."""
        return self.trainings.reserve()

    def _clock(self, name: str, reserve: float) -> Readings:
        """Returns the time that is left as decisions see it, `reserve` seconds kept back."""
        return Readings(self.memory, name, partial(self.phases.seconds_left, reserve))

    def find(self, problem: Problem) -> Found:
        """Looks for the network to ship; none is needed when the original is within the budget already."""
        if self.original_seconds <= problem.budget_seconds:
            return Found()
        asked = self.order.spec.strategy
        uncut = self.precisions.uncut(self.original_seconds, engine_budget(self.order.spec), asked.name)
        if uncut is not None:
            return Found([uncut], uncut)
        strategy = find(asked.name)
        renewed = partial(self._renewed, problem, itertools.count(1))
        tools = Tools(self.time, self.tune, self._clock("search", self._wind_up), renewed)
        with self.phases.phase("plan", "Planning cuts"):
            started = strategy.start(problem, strategy.parse(asked.options))
            floor = started.floor()
            self.phases.note(floor_ms=(floor.predicted_seconds or 0.0) * 1e3)
            if (floor.predicted_seconds or 0.0) > problem.budget_seconds:
                self.phases(0.1, _impossible(problem, floor))
            found = search(problem, started, tools, self.goal)
        found.floor_seconds = floor.predicted_seconds
        return found

    def time(self, graph: Graph) -> float:
        """Exports a candidate, times it beside the original, and returns its seconds without the machine's drift."""
        shipped = self.precisions.for_timing(self._shipped(graph, self.order.folder / "candidate.onnx"))
        settings = timing_settings(self.order.spec, QUICK_SECONDS)

        def timed() -> dict[str, float]:
            quick = contest(self.baseline, shipped, self.order.spec, settings, self.bench)
            return {"seconds": self.original_seconds / quick.ratio.speedup}

        key = key_of("file", self.baseline.artifact.sha256, shipped.artifact.sha256, shipped.artifact.precision)
        return remembered(self.memory, key, ["seconds"], timed)["seconds"]

    def tune(self, candidate: Candidate) -> Tuned | None:
        """Fine-tunes a candidate within the job's limits."""
        if not self.trainings.wanted:
            return None
        with self.phases.phase("tune", "Fine-tuning"):
            return self.trainings.fine_tuned(
                candidate.graph, self.phases, refitted=candidate.plan.refit, recipe=candidate.recipe
            )

    def _shipped(self, graph: Graph, path: Path) -> Shipped:
        return ship(graph, path, self._selection, self.bench)

    def _ship(self, found: Found) -> Settled | None:
        """Exports the network to ship; the one before fine-tuning where the tuned one's file would differ from it."""
        if found.best is None:
            return None
        out = self.order.out / "model.onnx"
        path = self.order.folder / "plain.onnx" if self.precisions.active else out
        try:
            plain = self._shipped(found.best.graph, path)
        except SurgeryError as exc:
            before = found.fall_back(str(exc))
            if before is None:
                raise
            plain = self._shipped(before.graph, path)
        return self.precisions.settle(plain, out)

    def conclude(self, problem: Problem, found: Found) -> Report:
        """Ships the best network, measures it, and writes down everything that is known."""
        out = self.order.out
        with self.phases.phase("export", "Exporting the result"):
            settled = self._ship(found)
        with self.phases.phase("measure", "Timing original and result side by side"):
            ending = self._measure(settled, found)
            files = tuple(dict.fromkeys((self.baseline.artifact.path, ending.result.artifact.path)))
            times = profiled(files, timing_settings(self.order.spec), self.memory, self.bench)
        with self.phases.phase("report", "Writing the report"):
            if ending.result is self.baseline:
                copy_model(self.baseline.artifact.path, out / "model.onnx")
            plan = Plan(strategy=self.order.spec.strategy.name, steps=())
            if found.best is not None and ending.result is not self.baseline:
                plan = found.best.candidate.plan
            (out / "plan.json").write_text(plan.to_json())
            facts = Facts(
                self.order,
                self.model,
                self.samples,
                self.baseline,
                problem,
                found,
                ending,
                self.goal,
                dict(self.phases.seconds),
                self.phases.elapsed,
                self.original_seconds,
                settled or (self.precisions.planned if self.precisions.active else None),
            )
            named = (self.baseline.artifact, ending.result.plain or ending.result.artifact)
            report = with_times(assemble(facts), [artifact.path for artifact in named], times)
            (out / "report.json").write_text(report.model_dump_json(indent=2))
            (out / "report.html").write_text(render(report))
            deliver(facts, report, self.bench)
            self.phases(1.0, report.explanation)
        return report

    @property
    def _selection(self) -> EngineSamples:
        return self.samples.feeds.selection

    def _measure(self, settled: Settled | None, found: Found) -> Ending:
        """Times and scores what may ship, and decides what does."""
        spec, original = self.order.spec, self.baseline.artifact
        reference = self.scorings.of(original).score
        candidate = None if settled is None else settled.chosen.shipped
        if candidate is None:
            alone = measure([self.baseline.artifact.path], timing_settings(spec), bench=self.bench)[0]
            verdict = judge_without_candidate(alone, engine_budget(spec), self.goal, found.refusals)
            return Ending(verdict, self.baseline, (alone, alone), None, (reference, reference))
        key = key_of("contest", original.sha256, candidate.artifact.sha256)
        timed = recalled(
            self.memory,
            key,
            Contest,
            lambda: contest(self.baseline, candidate, spec, timing_settings(spec), self.bench),
        )
        scored = self.scorings.of(candidate.artifact).score
        verdict = explained(judge(Evidence(timed.check, timed.ratio, scored.quality, self.goal)), settled)
        if verdict.outcome == "NO_IMPROVEMENT":
            same = (timed.baseline, timed.baseline)
            return Ending(verdict, self.baseline, same, None, (reference, reference))
        return Ending(verdict, candidate, (timed.baseline, timed.result), timed.ratio, (reference, scored))
