"""One architecture through the engine, in this process; what happened is returned as one JSON object."""

from __future__ import annotations

import resource
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from benchmarks.coverage.cases import Case
from benchmarks.coverage.merging import Outcome, count_layers, in_float64, merge_all, settle_statistics
from compressors.analysis import Analysis, analyse
from compressors.graph import Graph
from compressors.lift import Edges, lift
from compressors.lift.edges import input_specs, is_data
from compressors.sources import ModelSource, named, pt2
from compressors.surgery.verify import relative_error
from deploy.agree import agree
from deploy.export import export_onnx

BATCHES = (1, 3)
"""Batch sizes of the checks; neither is the one that programs are traced with."""


class Record:
    """What is known of one architecture so far."""

    def __init__(self, name: str) -> None:
        self.values: dict[str, Any] = {"name": name, "phase": "start", "seconds": {}, "cpu_seconds": {}, "errors": {}}
        self.baseline = _peak_bytes()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Notes the wall and processor seconds of what happens inside."""
        self.values["phase"] = name
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.values["seconds"][name] = time.perf_counter() - wall
        self.values["cpu_seconds"][name] = time.process_time() - cpu
        self.values.setdefault("peak_bytes", {})[name] = _peak_bytes() - self.baseline

    def fail(self, exc: Exception) -> None:
        """Notes what ended the run."""
        self.values["failure"] = {
            "phase": self.values["phase"],
            "kind": type(exc).__name__,
            "message": str(exc)[:600],
            "trace": traceback.format_exc()[-3000:],
        }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(case: Case) -> dict[str, Any]:
    """Returns what happened to one architecture; a failure is part of it."""
    with TemporaryDirectory() as folder:
        record = Record(case.name)
        try:
            _run(case, record, Path(folder))
            record.values["phase"] = "done"
        except Exception as exc:  # noqa: BLE001 - a benchmark of failures
            record.fail(exc)
    return record.values


def _run(case: Case, record: Record, folder: Path) -> None:
    torch.manual_seed(0)
    source = _source(case, folder)
    reader = pt2.read if source.kind == "pt2" else named.read
    with record.phase("trace"):
        traced = reader(source)
    program = traced.program
    edges = Edges(traced.ranges, traced.output_names)
    _spread(program, traced.ranges)
    weights = sum(v.nbytes for v in program.state_dict.values())
    record.values["weight_bytes"] = weights
    record.values["parameters"] = sum(p.numel() for p in program.parameters())
    with record.phase("lift"):
        graph = lift(program, case.name, None, edges)
    record.values["inputs"] = [list(spec.shape) for spec in graph.inputs]
    record.values["outputs"] = [list(spec.shape) for spec in graph.outputs]
    record.values["nodes"] = len(graph.module.graph.nodes)
    with record.phase("analyse"):
        analysis = analyse(graph)
    _note(analysis, record)
    with record.phase("merge"):
        outcome = merge_all(graph)
    record.values["merges"] = [outcome.regions, outcome.folds]
    record.values["layers"] = [count_layers(graph), count_layers(outcome.graph)]
    with record.phase("export"):
        names = [spec.name for spec in outcome.graph.outputs]
        artifact = export_onnx(outcome.graph.module, outcome.graph.inputs, names, folder / "model.onnx")
    record.values["notes"] = list(artifact.notes)
    with record.phase("agree"):
        entries = agree(artifact, outcome.graph.module, BATCHES).batches
    record.values["errors"]["file"] = max(entry.max_relative_error for entry in entries)
    with record.phase("check"):
        _compare(program, graph, outcome, record)


def _compare(program: ExportedProgram, graph: Graph, outcome: Outcome, record: Record) -> None:
    """Notes the errors of the lift and of the merge."""
    errors = record.values["errors"]
    errors["lift"] = _lift_error(program, graph)
    errors["merge32"] = _graph_error(outcome.reference, outcome.graph)
    double = in_float64(graph)
    errors["rounding"] = _graph_error(double, graph)
    exact = merge_all(double)
    errors["merge64"] = _graph_error(exact.reference, exact.graph)


def _source(case: Case, folder: Path) -> ModelSource:
    """Returns where a case comes from; a network of its own is saved first, as its user would."""
    if case.build is None:
        name = case.name.partition("@")[0]
        return ModelSource(
            "named", name=name, sample_shape=case.shape, options={"random_weights": True, **case.options}
        )
    assert case.shape is not None
    model = case.build().eval()
    sample = torch.zeros(2, *case.shape)
    torch.export.save(torch.export.export(model, (sample,), dynamic_shapes=({0: Dim.AUTO},)), folder / "model.pt2")
    return ModelSource("pt2", path=folder / "model.pt2")


def _spread(program: ExportedProgram, ranges: Mapping[str, tuple[int, int]]) -> None:
    """Gives every tensor that its initialisation filled with one value random values, as training would.

    Scales of one and zero, layer scales of 1e-6 and skip gains of zero would hide every mistake. Statistics of batch
    norms are set near those of random inputs, see `settle_statistics`.
    """
    generator = torch.Generator().manual_seed(1)
    for name, value in program.state_dict.items():
        if not value.is_floating_point() or not value.numel() or bool((value != value.flatten()[0]).any()):
            continue
        zero = bool((value == 0).all())
        with torch.no_grad():
            if name.endswith(("bias", "running_mean")):
                value.normal_(0, 0.2, generator=generator)
            elif zero:
                value.uniform_(-0.5, 0.5, generator=generator)
            else:
                value.uniform_(0.5, 1.5, generator=generator)
    samples = tuple(spec.random(_traced_batch(program) or 4, seed=2) for spec in input_specs(program, None, ranges))
    with torch.no_grad():
        _Settle(program.graph_module, generator).run(*_flat(program, samples))


class _Settle(fx.Interpreter):
    """Runs a program and sets the statistics of its batch norms near those of their inputs, in order."""

    def __init__(self, module: fx.GraphModule, generator: torch.Generator) -> None:
        super().__init__(module)
        self.generator = generator

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Sets the statistics before they are used."""
        if target is torch.ops.aten.batch_norm.default and args[3] is not None:
            settle_statistics(args[0], (args[3], args[4]), self.generator)
        return super().call_function(target, args, kwargs)


def _note(analysis: Analysis, record: Record) -> None:
    record.values["sites"] = len(analysis.sites)
    record.values["segments"] = len(analysis.segments)
    record.values["replaceable"] = sum(bool(segment.kernels) for segment in analysis.segments)
    record.values["refusals"] = dict(Counter(refusal.code for refusal in analysis.refusals))
    record.values["reasons"] = [[r.code, r.where, r.reason] for r in analysis.refusals]


def _lift_error(program: ExportedProgram, graph: Graph) -> float:
    """Compares the lifted graph with the program, at the one batch size that the program takes or at several."""
    size = _traced_batch(program)
    worst = 0.0
    for batch in [size] if size else BATCHES:
        samples = graph.samples(batch)
        with torch.no_grad():
            wanted = [x for x in program.graph_module(*_flat(program, samples)) if x is not None]
            got = _outputs(graph.module, samples)
        worst = max(worst, _worst(wanted, got))
    return worst


def _traced_batch(program: ExportedProgram) -> int | None:
    """Returns the batch size that a program was traced for, None if it takes any."""
    node = next(n for n in program.graph.nodes if n.name == program.graph_signature.user_inputs[0])
    size = node.meta["val"].shape[0]
    return size if isinstance(size, int) else None


def _flat(program: ExportedProgram, samples: tuple[torch.Tensor, ...]) -> list[Any]:
    """Returns everything that the program's graph takes, with copies of the samples: a program may write its inputs."""
    values = {**program.constants, **program.state_dict}
    data = iter(samples)
    flat = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            flat.append(values[str(spec.target)])
        else:
            flat.append(next(data).clone() if is_data(spec) else getattr(spec.arg, "value", None))
    return flat


def _graph_error(left: Graph, right: Graph) -> float:
    samples = left.samples(max(BATCHES))
    inputs = tuple(x.to(spec.dtype) for x, spec in zip(samples, right.inputs, strict=True))
    with torch.no_grad():
        return _worst(_outputs(left.module, samples), _outputs(right.module, inputs))


def _worst(wanted: list[torch.Tensor], got: list[torch.Tensor]) -> float:
    if len(wanted) != len(got) or any(a.shape != b.shape for a, b in zip(wanted, got, strict=True)):
        return float("inf")
    errors = [relative_error(a, b) for a, b in zip(wanted, got, strict=True)]
    return float("nan") if any(error != error for error in errors) else max(errors)  # noqa: PLR0124


def _outputs(module: nn.Module, samples: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    value = module(*samples)
    return list(value) if isinstance(value, tuple) else [value]


def warm_up() -> None:
    """Takes a tiny network the whole way, so that neither time nor memory counts what libraries load on first use."""
    import timm  # noqa: F401
    import torchvision  # noqa: F401

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    program = torch.export.export(model, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: Dim.AUTO},))
    graph = lift(program, "warm-up")
    analyse(graph)
    merged = merge_all(graph).graph
    with TemporaryDirectory() as folder:
        artifact = export_onnx(merged.module, merged.inputs, ["output"], Path(folder) / "warm-up.onnx")
        agree(artifact, merged.module, (1,))
