"""Problems for strategies, on a device whose clock is arithmetic."""

from compressors.analysis import analyse
from compressors.problem import Problem, Search
from compressors.strategies import find
from compressors.table import structure
from tests.compressors.networks import graph_of
from tests.compressors.samples import CountingTimer, Recorder, random_samples

QUICK = {"calibration_samples": 64, "selection_samples": 32, "refinements": 2, "plans": 2, "max_kernel": 3}


def problem_of(name: str, share: float, timer: CountingTimer | None = None, **changes) -> Problem:
    graph = graph_of(name)
    timer = timer or CountingTimer()
    (baseline,) = timer.networks([(structure(graph, ()).module, graph.inputs)])
    fields = {
        "graph": graph,
        "analysis": analyse(graph),
        "budget_seconds": baseline * share,
        "baseline_seconds": baseline,
        "calibration": random_samples(graph, 64, 1),
        "selection": random_samples(graph, 32, 2),
        "timer": timer,
        "progress": Recorder(),
        "seed": 0,
    }
    return Problem(**(fields | changes))


def started(problem: Problem, **options) -> Search:
    """A `layerfit` search with quick options."""
    strategy = find("layerfit")
    return strategy.start(problem, strategy.parse(QUICK | options))
