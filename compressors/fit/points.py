"""Where a cut network can be fitted to its original: each linear operator, and the tensor that it should reproduce.

Numbered cases, for an operator `op` of the cut network whose output y is compared with a tensor of the original:

1. op is new (a cut put it there): y, after its norm, should be what the cut replaced.
2. op -> add: y + other should be the original's sum, where `other` is what the cut network adds. Errors of the skip
   connection are repaired here.
3. op -> norm -> add: the same, the norm is part of the linear map.
4. op, or op -> norm: y should be the original's tensor of the same name.
5. A group norm is new behind a merge: its gain and shift should give what the merge replaced.

If only the positive part of the target is read (a ReLU follows), the fit need not reproduce what the ReLU hides.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from compressors.calibrate import fittable
from compressors.surgery import cut_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from compressors.graph import Graph
    from compressors.plan import Step

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_ADDS = (torch.add, operator.add, operator.iadd, torch.ops.aten.add.Tensor)
_RECTIFIERS = (nn.ReLU, nn.ReLU6)


@dataclass(frozen=True)
class FitPoint:
    """One operator of the cut network and what it is fitted to.

    Attributes:
        operator: Its node; in case 5 the norm's.
        input: The node it reads.
        norm: Node of the batch norm that follows and is fitted with it; None where there is none.
        target: Node of the original network whose value is wanted.
        other: Node of the cut network whose value is added before the comparison; None where nothing is.
        rectified: Whether only the positive part of the target is read.
        new: Whether a cut put the operator there, so that its present weights mean nothing.
    """

    operator: str
    input: str
    norm: str | None
    target: str
    other: str | None
    rectified: bool
    new: bool


def fit_points(original: Graph, cut: Graph, steps: Sequence[Step], *, refit: bool) -> tuple[FitPoint, ...]:
    """Returns what can be fitted after the steps were applied, in topological order.

    Args:
        original: The network before the cuts.
        cut: The network after them; nodes that a cut did not touch kept their names.
        steps: The cuts.
        refit: Whether operators behind the first cut are fitted too, or only the new ones.
    """
    known = {node.name: _reads(node) for node in original.module.graph.nodes}
    changed = _changed(cut.module, known)
    wanted = {cut_name(step): step.exit for step in steps if step.kind == "regress" or step.norm}
    points: list[FitPoint] = []
    for node in cut.module.graph.nodes:
        if _is_new_norm(cut.module, node, known):
            points.append(_norm_point(node, wanted[str(node.target).rpartition(".")[0]]))
        if not _is_operator(cut.module, node):
            continue
        if node.name not in known:
            points.append(_new_point(original.module, cut.module, node, wanted[str(node.target).rpartition(".")[0]]))
        elif refit and node.all_input_nodes[0].name in changed and _only_call(cut.module, node):
            pending = _pending(cut.module, node, known, changed)
            point = _later_point(cut.module, node, known, pending)
            if point is not None:
                points.append(point)
    return tuple(points)


def evaluation_order(cut: Graph, points: Sequence[FitPoint]) -> tuple[fx.Node, ...]:
    """Returns all nodes, each after what it reads, and each operator to be fitted after what its fit needs besides.

    `other` may stand behind the operator in the graph (a shortcut written after the branch); it never depends on it.
    """
    needs = {point.operator: point.other for point in points if point.other is not None}
    by_name = {node.name: node for node in cut.module.graph.nodes}
    order: dict[fx.Node, None] = {}
    stack = list(reversed(list(cut.module.graph.nodes)))
    while stack:
        node = stack[-1]
        before = [*node.all_input_nodes, *([by_name[needs[node.name]]] if node.name in needs else [])]
        missing = [read for read in before if read not in order]
        if missing:
            stack.extend(reversed(missing))
        else:
            order.setdefault(stack.pop())
    return tuple(order)


def _is_operator(module: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and fittable(module.get_submodule(str(node.target)))


def _is_new_norm(module: fx.GraphModule, node: fx.Node, known: Collection[str]) -> bool:
    new = node.op == "call_module" and node.name not in known
    return new and isinstance(module.get_submodule(str(node.target)), nn.GroupNorm)


def _only_call(module: fx.GraphModule, node: fx.Node) -> bool:
    """Returns whether nothing else reads the module's weights: a shared weight has no single target."""
    own = set(map(id, module.get_submodule(str(node.target)).parameters()))
    readers = [other for other in module.graph.nodes if not own.isdisjoint(_weights_read(module, other))]
    return readers == [node]


def _weights_read(module: fx.GraphModule, node: fx.Node) -> set[int]:
    """Returns the identities of the tensors that a node reads from the module."""
    if node.op == "call_module":
        return set(map(id, module.get_submodule(str(node.target)).parameters()))
    if node.op == "get_attr":
        return {id(reduce(getattr, str(node.target).split("."), module))}
    return set()


def _reads(node: fx.Node) -> list[str]:
    return [read.name for read in node.all_input_nodes]


def _changed(module: fx.GraphModule, known: Mapping[str, list[str]]) -> set[str]:
    """Returns the nodes of the cut network whose values differ from the original's: new, or reading something else."""
    changed: set[str] = set()
    for node in module.graph.nodes:
        reads = _reads(node)
        if known.get(node.name) != reads or not changed.isdisjoint(reads):
            changed.add(node.name)
    return changed


def _name(node: fx.Node | None) -> str | None:
    return None if node is None else node.name


def _norm_after(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Returns the affine batch norm that alone reads `node`."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    if user.op != "call_module":
        return None
    norm = module.get_submodule(str(user.target))
    usable = isinstance(norm, Norm) and norm.affine and norm.track_running_stats
    return user if usable and _only_call(module, user) else None


def _new_point(original: fx.GraphModule, cut: fx.GraphModule, node: fx.Node, target: str) -> FitPoint:
    """Case 1."""
    norm = _norm_after(cut, node)
    rectified = _rectified(original, target)
    return FitPoint(node.name, node.all_input_nodes[0].name, _name(norm), target, None, rectified, new=True)


def _norm_point(node: fx.Node, target: str) -> FitPoint:
    """Case 5."""
    return FitPoint(node.name, node.all_input_nodes[0].name, None, target, None, rectified=False, new=True)


def _later_point(
    module: fx.GraphModule, node: fx.Node, known: Collection[str], pending: Collection[str]
) -> FitPoint | None:
    """Cases 2 to 4; None where the original has no tensor to compare with."""
    norm = _norm_after(module, node)
    end = norm or node
    target, other = end, None
    if len(end.users) == 1:
        (user,) = end.users
        addend = _addend(user, end)
        if addend is not None and user.name in known and addend.name not in pending:
            target, other = user, addend
    if target.name not in known:
        return None
    rectified = _rectified(module, target.name)
    source = node.all_input_nodes[0].name
    return FitPoint(node.name, source, _name(norm), target.name, _name(other), rectified, new=False)


def _pending(module: fx.GraphModule, node: fx.Node, known: Collection[str], changed: Collection[str]) -> set[str]:
    """Returns the nodes that an operator still to be fitted after `node` feeds: they are not final yet."""
    later = False
    pending: set[str] = set()
    for at in module.graph.nodes:
        later = later or at is node
        reads = _reads(at)
        to_fit = later and _is_operator(module, at) and (at.name not in known or reads[0] in changed)
        if to_fit or not pending.isdisjoint(reads):
            pending.add(at.name)
    return pending


def _addend(node: fx.Node, one: fx.Node) -> fx.Node | None:
    """Returns what `node` adds to `one`, if a plain addition of two tensors is what it does."""
    is_add = node.op == "call_function" and node.target in _ADDS and not node.kwargs
    operands = node.all_input_nodes
    if not is_add or len(operands) != 2 or len(node.args) != 2:
        return None
    return operands[1] if operands[0] is one else operands[0]


def _rectified(module: fx.GraphModule, name: str) -> bool:
    """Returns whether everything that reads the node passes on its positive part only."""
    node = next(node for node in module.graph.nodes if node.name == name)
    readers = [
        user.op == "call_module" and isinstance(module.get_submodule(str(user.target)), _RECTIFIERS)
        for user in node.users
    ]
    return bool(readers) and all(readers)
