"""Exact merges for deployment.

Cases:
1. A batch norm whose only input is a convolution, transposed convolution or linear that nothing else reads, and whose
   module is called nowhere else, is folded into it: W' = W * s, b' = b * s + t with s = gamma / sqrt(var + eps) and
   t = beta - mean * s, computed in float64. (After a linear on tokens, a batch norm's channels are the tokens: it
   stays.)
2. A ReLU or ReLU6 right after the same activation goes; it changes nothing. (Removed blocks leave such pairs.)
3. An affine stretch (`compressors.surgery.stretch`) becomes one operator.
Other norms stay.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import fx, nn

from compressors import algebra
from compressors.analysis.kinds import module_of
from compressors.errors import SurgeryError
from compressors.graph import Graph
from compressors.modules import BATCH_NORMS, OPERATORS, TRANSPOSED
from compressors.shapes import Shapes, propagate
from compressors.surgery.stretch import AffineStretch, merged
from compressors.surgery.verify import Verification, relative_error
from compressors.tidy import tidy

_TOLERANCE = 1e-10
_IDEMPOTENT = (nn.ReLU, nn.ReLU6)


@dataclass(frozen=True)
class Merged:
    """A merged graph and the proof of every merge.

    Attributes:
        graph: Ready for export.
        verifications: One per fold.
    """

    graph: Graph
    verifications: tuple[Verification, ...]


def fold_norms(graph: Graph) -> Graph:
    """Returns a new graph without the norms that can be folded; see `merge`."""
    return merge(graph).graph


def merge(graph: Graph) -> Merged:
    """Returns a new graph with every exact merge of the module docstring done and checked.

    Raises:
        SurgeryError: A fold or merge is off by more than 1e-10 (relative, float64); our fault.
    """
    copy = graph.copied()
    shapes = propagate(graph.module, graph.inputs)
    proofs = [_merge_stretch(copy.module, node) for node in copy.module.graph.nodes if _is_stretch(node)]
    calls = Counter(str(node.target) for node in copy.module.graph.nodes if node.op == "call_module")
    for node in list(copy.module.graph.nodes):
        source = _foldable(node, calls, shapes)
        if source is not None:
            proofs.append(_fold(copy.module, source, node))
        elif _repeats(node):
            node.replace_all_uses_with(node.args[0])
            copy.module.graph.erase_node(node)
    tidy(copy.module)
    return Merged(copy, tuple(proofs))


def _is_stretch(node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(module_of(node), AffineStretch)


def _merge_stretch(module: fx.GraphModule, node: fx.Node) -> Verification:
    """Case 3: merges a stretch and checks the result, at the size that it has and at every position."""
    stretch = module_of(node)
    assert isinstance(stretch, AffineStretch)
    exact = stretch.in_float64()
    operator = merged(exact)
    samples = [spec.random(2, seed) for seed, spec in enumerate(exact.specs)]
    with torch.no_grad():
        proof = Verification(f"{node.target}", relative_error(exact(*samples), operator(*samples)), _TOLERANCE)
    if not proof.passed:
        raise SurgeryError(f"merging {proof.name} is off by {proof.error:.3g} (relative), more than {_TOLERANCE}")
    module.set_submodule(str(node.target), operator.to(stretch.specs[0].dtype))
    return proof


def _foldable(node: fx.Node, calls: Counter[str], shapes: Shapes) -> fx.Node | None:
    """Case 1: returns the operator that a norm can be folded into."""
    if node.op != "call_module" or not isinstance(module_of(node), BATCH_NORMS):
        return None
    source = node.args[0]
    if not isinstance(source, fx.Node) or source.op != "call_module" or list(source.users) != [node]:
        return None
    operator, norm = module_of(source), module_of(node)
    alone = calls[str(source.target)] == calls[str(node.target)] == 1
    if not alone or not isinstance(operator, OPERATORS) or norm.running_mean is None:
        return None
    if isinstance(operator, nn.Linear) and len(shapes.full[source.name]) != 2:
        return None
    return source


def _fold(module: fx.GraphModule, source: fx.Node, node: fx.Node) -> Verification:
    """Folds a norm into its operator and checks the result."""
    operator, norm = module_of(source), module_of(node)
    assert isinstance(operator, OPERATORS)
    assert isinstance(norm, BATCH_NORMS)
    exact = deepcopy(operator).double()
    _scale(exact, *algebra.norm_scale(norm))
    proof = Verification(f"{source.target} + {node.target}", _error(operator, norm, exact), _TOLERANCE)
    if not proof.passed:
        raise SurgeryError(f"folding {proof.name} is off by {proof.error:.3g} (relative), more than {_TOLERANCE}")
    module.set_submodule(str(source.target), exact.to(operator.weight.dtype))
    node.replace_all_uses_with(source)
    module.graph.erase_node(node)
    return proof


def _scale(operator: nn.Module, scale: torch.Tensor, shift: torch.Tensor) -> None:
    """Scales and shifts the outputs of an operator that is ours alone."""
    assert isinstance(operator, OPERATORS)
    if isinstance(operator, TRANSPOSED):
        weight, bias = algebra.scale_transposed_outputs(operator.weight, operator.bias, operator.groups, scale, shift)
    else:
        scaled = algebra.scale_outputs(algebra.of_module(operator), scale, shift)
        weight, bias = scaled.weight, scaled.bias
    operator.weight = nn.Parameter(weight)
    operator.bias = nn.Parameter(bias)


def _error(operator: nn.Module, norm: nn.Module, folded: nn.Module) -> float:
    """Returns the relative difference between the pair and the folded operator on random inputs, in float64."""
    assert isinstance(operator, OPERATORS)
    generator = torch.Generator().manual_seed(0)
    if isinstance(operator, nn.Linear):
        shape: tuple[int, ...] = (4, operator.in_features)
    else:
        reach = [d * (k - 1) + 1 for d, k in zip(operator.dilation, operator.kernel_size, strict=True)]
        shape = (2, operator.in_channels, *(size + 1 for size in reach))
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        wanted = deepcopy(norm).double()(deepcopy(operator).double()(x))
        return relative_error(wanted, folded(x))


def _repeats(node: fx.Node) -> bool:
    """Case 2: says whether a node applies an activation that its input has just been through."""
    if node.op != "call_module" or not isinstance(module_of(node), _IDEMPOTENT):
        return False
    source = node.args[0]
    return (
        isinstance(source, fx.Node) and source.op == "call_module" and type(module_of(source)) is type(module_of(node))
    )
