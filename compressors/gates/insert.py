"""Gates in and out: surgery on activation calls.

The call keeps its node and the node its name; only what it calls changes. So everything that was found out about the
graph without gates holds for the graph that comes back: sites, segments, regions, plans. A module that is called
several times has one gate per call. With gates in it, a graph has fewer sites: gates are no activations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import fx, nn

from compressors.analysis.kinds import module_of
from compressors.channel_line import Line
from compressors.collapse.linearise import linearise
from compressors.errors import OptionError, SurgeryError
from compressors.gates.gate import Gate
from compressors.graph import Graph
from compressors.modules import activation_kind
from compressors.shapes import propagate, remember
from compressors.surgery.verify import output_error
from compressors.tidy import tidy

_TOLERANCE = 1e-4


def insert_gates(
    graph: Graph,
    sites: Iterable[str],
    start: float = 0.02,
    lines: Mapping[str, Line] | None = None,
    *,
    rectified: bool = False,
) -> Graph:
    """Returns a new graph with a gate at every named activation call; the given graph is not changed.

    Args:
        graph: Where the sites are.
        sites: Node names, as in `Site.node`.
        start: Where the gates start, in [0, 1]. At 0 the function stays exactly what it was, and a penalty |1 - a^2|
            has no slope; a little above zero it has.
        lines: What each gate leads to, by node; the identity where there is none. They are trained along.
        rectified: Whether every gate is a ReLU's, whatever was there, as published for LayerCollapse: training has to
            repair the difference.

    Raises:
        OptionError: A name is no activation call, the start is out of range, or a line does not fit its tensor.
        SurgeryError: With gates at 0 the result does not compute what the graph does (our fault).
    """
    chosen = lines or {}
    if not 0 <= start <= 1:
        raise OptionError("gates", f"gates start between 0 and 1; got {start}")
    shapes = propagate(graph.module, graph.inputs)
    copy, reference = graph.copied(), graph.copied() if rectified else graph
    nodes = {node.name: node for node in copy.module.graph.nodes}
    same = {node.name: node for node in reference.module.graph.nodes}
    found = {name: _activation(graph, nodes.get(name), name) for name in sites}
    names = [name for name in nodes if name in found]
    for name in names:
        node = found[name]
        _check(name, chosen.get(name), shapes.full[name])
        activation = nn.ReLU() if rectified else deepcopy(module_of(node))
        if rectified:
            _retarget(reference.module, same[name], gate_name(name), nn.ReLU())
        gate = Gate(activation, str(node.target), 0.0, chosen.get(name), shapes.dtypes[name]).to(_device(copy.module))
        _retarget(copy.module, node, gate_name(name), gate)
    _close(graph, copy)
    if rectified:
        _close(graph, reference)
    _verify(reference, copy, f"{len(names)} gates at 0")
    return _set(copy, dict.fromkeys(names, start))


def gate_name(site: str) -> str:
    """Returns the module name of an activation call's gate."""
    return f"gate_{site}"


def amounts(module: nn.Module) -> dict[str, float]:
    """Returns where every gate of a graph stands, by node name, in the order in which they run."""
    return {name: float(gate.amount.detach()) for name, gate in gates_of(module).items()}


def gates_of(module: nn.Module) -> dict[str, Gate]:
    """Returns every gate below a module by the node name of its call."""
    gates = (item for item in module.named_modules() if isinstance(item[1], Gate))
    return {path.rpartition(".")[2].removeprefix("gate_"): gate for path, gate in gates if isinstance(gate, Gate)}


def gate_lines(graph: Graph) -> dict[str, Line]:
    """Returns the line that each gate leads to, as trained so far, by node name."""
    return {name: gate.as_line() for name, gate in gates_of(graph.module).items()}


def remove_gates(graph: Graph, linear: Collection[str] = ()) -> Graph:
    """Returns a new graph without gates: the line where a call has become linear, its activation everywhere else.

    Args:
        graph: With gates; not changed.
        linear: Node names of the calls that become lines, wherever their gates stand.

    Raises:
        OptionError: A name has no gate.
        SurgeryError: The result does not compute what the decided gates do (our fault).
    """
    gates = gates_of(graph.module)
    unknown = [name for name in linear if name not in gates]
    if unknown:
        raise OptionError("gates", f"{graph.name!r} has no gate at {unknown[0]!r}; it has {', '.join(gates)}")
    copy = graph.copied()
    nodes = {node.name: node for node in copy.module.graph.nodes}
    calls = Counter(str(node.target) for node in nodes.values()) + Counter(gate.target for gate in gates.values())
    decided = {name: float(name in linear) for name in gates}
    for name, gate in gates_of(copy.module).items():
        alone = calls[gate.target] == 1 or not any(True for _ in gate.activation.parameters())
        path = gate.target if alone else f"{gate.target}_{name}"
        _retarget(copy.module, nodes[name], path, gate.activation)
    _close(graph, copy)
    result = linearise(copy, {name: gates[name].as_line() for name in linear})
    _verify(_set(graph.copied(), decided), result, f"removing {len(gates)} gates")
    return result


def _activation(graph: Graph, node: fx.Node | None, name: str) -> fx.Node:
    if node is None or node.op != "call_module" or activation_kind(module_of(node)) is None:
        raise OptionError("gates", f"{graph.name!r} has no activation {name!r} to put a gate at")
    return node


def _check(name: str, line: Line | None, shape: tuple[int, ...]) -> None:
    """Refuses a line with another number of channels than its tensor."""
    channels = 1 if line is None else line.slope.numel()
    if line is not None and channels != 1 and (line.axis >= len(shape) or shape[line.axis] != channels):
        raise OptionError(
            "gates", f"the line for {name!r} has {channels} channels along axis {line.axis}; the tensor has {shape[1:]}"
        )


def _retarget(module: fx.GraphModule, node: fx.Node, path: str, called: nn.Module) -> None:
    """Makes a node call another module under a path; what is there already is the same activation."""
    module.add_submodule(path, called.eval())
    node.target = path


def _close(before: Graph, after: Graph) -> None:
    """Cleans up; all tensors have the shapes and names that they had."""
    known = propagate(before.module, before.inputs)
    tidy(after.module)
    remember(after.module, after.inputs, known)


def _set(graph: Graph, values: Mapping[str, float]) -> Graph:
    """Moves the gates of a graph that is ours alone, and returns it."""
    with torch.no_grad():
        for name, gate in gates_of(graph.module).items():
            if name in values:
                gate.amount.fill_(values[name])
    return graph


def _verify(wanted: Graph, got: Graph, what: str) -> None:
    inputs: Any = tuple(value.to(_device(got.module)) for value in got.samples(2))
    with torch.no_grad():
        error = output_error(wanted.module(*inputs), got.module(*inputs))
    if not error <= _TOLERANCE:
        raise SurgeryError(f"{what} in {wanted.name!r} change its function by {error:.3g} (relative)")


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters(), torch.empty(0)).device
