"""A dry run: what could be cut from a model, and how fast it could get at best. Nothing is fitted or shipped."""

from __future__ import annotations

from compressors.analysis import Analysis, analyse, merge_space
from compressors.memory import NoMemory
from compressors.problem import NO_SAMPLES, Problem
from compressors.strategies import find
from compressors.surgery import fold_norms
from deploy.bench import Bench
from service.pipeline.benches import Announce, bench_of, latency_table, nobody
from service.pipeline.candidates import candidates
from service.pipeline.inputs import Model, load_model
from service.pipeline.phases import Phases
from service.pipeline.phases import Report as ReportProgress
from service.worker.messages import AnalysisResult, FloorFacts, RefusalFacts, SiteFacts, WorkOrder


def analyze(order: WorkOrder, progress: ReportProgress, announce: Announce = nobody) -> AnalysisResult:
    """Returns what could be cut from a model, and how fast it could get at best.

    Raises:
        EngineError: The model cannot be used.
        DeployError: Timing failed.
    """
    phases = Phases(progress, order.deadline_seconds)
    with phases.phase("load", "Loading and checking the model"):
        model = load_model(order)
    with phases.phase("analyze", "Looking for what can be cut"):
        analysis, space = analyse(model.graph), merge_space(model.graph)
    floor = None
    if not order.skip_floor:
        with phases.phase("baseline", "Timing the original and the floor"):
            floor = _floor(order, phases, bench_of(order, announce, phases), model, analysis)
    return AnalysisResult(
        parameters=sum(values.numel() for values in model.graph.module.parameters()),
        sites=tuple(SiteFacts(node=s.node, kind=s.kind, module=s.target, shape=s.shape) for s in analysis.sites),
        segments=candidates(analysis, space),
        refusals=tuple(
            RefusalFacts(where=r.where, code=r.code, reason=r.reason) for r in (*analysis.refusals, *space.refusals)
        ),
        floor=floor,
    )


def _floor(order: WorkOrder, phases: Phases, bench: Bench, model: Model, analysis: Analysis) -> FloorFacts:
    started = phases.elapsed
    timer = latency_table(order, NoMemory(), bench)
    folded = fold_norms(model.graph)
    baseline = timer.networks([(folded.module, folded.inputs)])[0]
    problem = Problem(
        graph=model.graph,
        analysis=analysis,
        budget_seconds=baseline,
        baseline_seconds=baseline,
        calibration=NO_SAMPLES,
        selection=NO_SAMPLES,
        timer=timer,
        progress=phases,
        seed=order.spec.seed,
    )
    plan = find(order.spec.strategy.name).start(problem).floor()
    return FloorFacts(
        baseline_ms=baseline * 1e3,
        floor_ms=min(baseline, plan.predicted_seconds or baseline) * 1e3,
        elapsed_seconds=phases.elapsed - started,
    )
