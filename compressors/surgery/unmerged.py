"""The train form of a merge: the stretch as it was, made affine, with what goes taken out.

Cases:
1. An activation, or a norm that looks at the sample, becomes its line; without one it goes, as in the papers.
2. A pruned operator goes, and with it its batch norm and the line of its activation.
3. A branch that is pruned whole adds nothing: x + x, which would be left of a residual block, becomes x.
4. Where padding comes first, all of it moves to the entry (`compressors.surgery.halo`).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import fx

from compressors.algebra import Refused
from compressors.analysis.kinds import Kind, kind_of, module_of
from compressors.channel_line import ChannelLine, Line
from compressors.errors import OptionError
from compressors.graph import Graph, TensorSpec
from compressors.modules import BATCH_NORMS
from compressors.plan import Step
from compressors.surgery.compose import data_kinds
from compressors.surgery.extract import extract
from compressors.surgery.halo import pad_first
from compressors.surgery.stretch import AffineStretch
from compressors.tidy import tidy


def unmerged(graph: Graph, step: Step, lines: Mapping[str, Line]) -> AffineStretch:
    """Returns a "merge" step's stretch, ready to be trained and to be merged; it shares nothing with the graph.

    Args:
        graph: The original.
        step: What to make affine.
        lines: What takes the place of the step's sites, by node; none: nothing does.

    Raises:
        OptionError: The step names what is not in the stretch, or leaves something in it that is not affine.
    """
    shared, specs = extract(graph, step.entry, step.exit)
    body = deepcopy(shared)
    nodes = {node.name: node for node in body.graph.nodes}
    missing = [name for name in (*step.sites, *step.pruned) if name not in nodes]
    if missing:
        raise OptionError("plan", f"step {step.label!r} names {missing[0]!r}, which lies outside of it")
    for name in step.sites:
        _linearise(body, nodes[name], lines.get(name), specs[0])
    for name in step.pruned:
        _prune(nodes[name], step)
    tidy(body)
    _check(body, step)
    refused = pad_first(body, specs) if step.padding == "first" else None
    if isinstance(refused, Refused):
        raise OptionError("plan", f"step {step.label!r} cannot move its padding: {refused.reason}")
    return AffineStretch(tidy(body).eval(), specs)


def _linearise(body: fx.GraphModule, node: fx.Node, line: Line | None, spec: TensorSpec) -> None:
    """Case 1."""
    if line is None or line.is_identity:
        node.replace_all_uses_with(node.all_input_nodes[0])
        body.graph.erase_node(node)
        return
    name = f"line_{node.name}"
    body.add_submodule(name, ChannelLine(line, spec.dtype).eval())
    with body.graph.inserting_after(node):
        new = body.graph.call_module(name, (node.all_input_nodes[0],))
    node.replace_all_uses_with(new)
    body.graph.erase_node(node)


def _prune(node: fx.Node, step: Step) -> None:
    """Cases 2 and 3."""
    if kind_of(node) is not Kind.OPERATOR:
        raise OptionError("plan", f"step {step.label!r} prunes {node.name!r}, which is no convolution or linear")
    source = node.all_input_nodes[0]
    behind = _only_reader(node)
    while behind is not None and _belongs(behind):
        node, behind = behind, _only_reader(behind)
    node.replace_all_uses_with(source)
    for reader in list(source.users):
        operands: Any = reader.args[:2]
        if kind_of(reader) is Kind.ADD and len(operands) == 2 and operands[0] is operands[1] is source:
            reader.replace_all_uses_with(source)


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _belongs(node: fx.Node) -> bool:
    """Says whether a node is a batch norm or a line."""
    kind = kind_of(node)
    return kind is Kind.LINE or (kind is Kind.NORM and isinstance(module_of(node), BATCH_NORMS))


def _check(body: fx.GraphModule, step: Step) -> None:
    """Refuses what would not become affine; everything else is the composition's to judge."""
    entry = next(iter(body.graph.nodes))
    for node, kind in data_kinds(body, entry).items():
        if kind is Kind.ACTIVATION or (kind is Kind.NORM and not isinstance(module_of(node), BATCH_NORMS)):
            raise OptionError("plan", f"step {step.label!r} leaves {node.target!r}, which is not affine, where it is")
