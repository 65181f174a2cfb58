"""A dry run: what could be cut from a model, and how fast it could get at best. Nothing is fitted or shipped."""

from __future__ import annotations

from compressors.analysis import analyse, merge_space
from service.pipeline.benches import Announce, bench_of, nobody
from service.pipeline.candidates import candidates
from service.pipeline.floors import Floors
from service.pipeline.inputs import load_model
from service.pipeline.phases import Phases
from service.pipeline.phases import Report as ReportProgress
from service.pipeline.precisions import check_precision
from service.worker.messages import AnalysisResult, RefusalFacts, SiteFacts, WorkOrder


def analyze(order: WorkOrder, progress: ReportProgress, announce: Announce = nobody) -> AnalysisResult:
    """Returns what could be cut from a model, and how fast it could get at best.

    Raises:
        EngineError: The model, or the precision on this device, cannot be used.
        DeployError: Timing failed.
    """
    phases = Phases(progress, order.deadline_seconds)
    bench = bench_of(order, announce, phases)
    if not order.skip_floor:
        check_precision(order.spec, bench)
    with phases.phase("load", "Loading and checking the model"):
        model = load_model(order)
    with phases.phase("analyze", "Looking for what can be cut"):
        analysis, space = analyse(model.graph), merge_space(model.graph)
    floor = None
    if not order.skip_floor:
        with phases.phase("baseline", "Timing the original and the floor"):
            floor = Floors(order, phases, bench, model.graph, analysis).estimate()
    return AnalysisResult(
        parameters=sum(values.numel() for values in model.graph.module.parameters()),
        sites=tuple(SiteFacts(node=s.node, kind=s.kind, module=s.target, shape=s.shape) for s in analysis.sites),
        segments=candidates(analysis, space),
        refusals=tuple(
            RefusalFacts(where=r.where, code=r.code, reason=r.reason) for r in (*analysis.refusals, *space.refusals)
        ),
        floor=floor,
    )
