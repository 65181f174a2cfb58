"""Lines into what computes their input, for deployment.

A line y = slope x + intercept on the output of one of these, along its channels, is exact in its own parameters:

1. Convolution or linear: W' = slope W (rows), b' = slope b + intercept. Padding does not matter: outputs are scaled.
2. Norm with weights (batch norm, group norm, layer norm over one dimension): the same with gamma and beta.

The source must be read by the line alone and its module called once. Every other line stays; it is one product and one
sum. (Into what reads it, a line could go only where nothing is padded.) Everything is computed and checked in float64.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

import torch
from torch import fx, nn

from compressors import modules
from compressors.analysis.kinds import module_of
from compressors.channel_line import ChannelLine
from compressors.errors import SurgeryError
from compressors.graph import Graph
from compressors.shapes import propagate
from compressors.surgery.merge import Merged
from compressors.surgery.verify import Verification, relative_error
from compressors.tidy import tidy

_TOLERANCE = 1e-10
_FOLDABLE = (*modules.CONVOLUTIONS, nn.Linear, *modules.NORMS)


def fold_lines(graph: Graph) -> Merged:
    """Returns a new graph in which every line that can be folded has been; the given graph is not changed.

    Raises:
        SurgeryError: A fold is off by more than 1e-10 (relative, float64); our fault.
    """
    copy = graph.copied()
    ranks = {name: len(shape) for name, shape in propagate(graph.module, graph.inputs).full.items()}
    calls = Counter(str(node.target) for node in copy.module.graph.nodes if node.op == "call_module")
    proofs = []
    for node in list(copy.module.graph.nodes):
        source = _source(node, calls, ranks)
        if source is not None:
            proofs.append(_fold(copy.module, source, node))
    tidy(copy.module)
    return Merged(copy, tuple(proofs))


def _source(node: fx.Node, calls: Counter[str], ranks: dict[str, int]) -> fx.Node | None:
    """Returns the operator or norm that a line can be folded into."""
    if node.op != "call_module" or not isinstance(module_of(node), ChannelLine):
        return None
    source = node.args[0]
    if not isinstance(source, fx.Node) or source.op != "call_module" or list(source.users) != [node]:
        return None
    module, line = module_of(source), module_of(node)
    if calls[str(source.target)] != 1 or not isinstance(module, _FOLDABLE) or module.weight is None:
        return None
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) != 1:
        return None
    assert isinstance(line, ChannelLine)
    rank = ranks[source.name]
    channels = rank - 1 if isinstance(module, nn.Linear | nn.LayerNorm) else 1
    along = line.axis % rank if line.axis < 0 else line.axis
    return source if line.slope.numel() == 1 or along == channels else None


def _fold(module: fx.GraphModule, source: fx.Node, node: fx.Node) -> Verification:
    before, line = module_of(source), module_of(node)
    assert isinstance(line, ChannelLine)
    after = deepcopy(before).double()
    slope, intercept = line.slope.detach().double(), line.intercept.detach().double()
    weight, bias = after.weight, after.bias
    assert isinstance(weight, torch.Tensor)
    rows = slope.reshape(-1, *(1,) * (weight.dim() - 1))  # (channels or 1, 1, ...)
    shift = bias.detach() * slope if isinstance(bias, torch.Tensor) else weight.new_zeros(len(weight))
    after.weight = nn.Parameter(weight.detach() * rows)
    after.bias = nn.Parameter(shift + intercept)
    proof = Verification(f"{source.target} + {node.target}", _error(before, line, after), _TOLERANCE)
    if not proof.passed:
        raise SurgeryError(f"folding {proof.name} is off by {proof.error:.3g} (relative), more than {_TOLERANCE}")
    assert isinstance(before.weight, torch.Tensor)
    module.set_submodule(str(source.target), after.to(before.weight.dtype))
    node.replace_all_uses_with(source)
    module.graph.erase_node(node)
    return proof


def _error(before: nn.Module, line: ChannelLine, after: nn.Module) -> float:
    """Returns the relative difference between the pair and the folded module on random inputs, in float64."""
    x = torch.randn(_input_shape(before), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x.to(line.slope.device)
    with torch.no_grad():
        wanted = deepcopy(line).double()(deepcopy(before).double()(x))
        return relative_error(wanted, after(x))


def _input_shape(module: nn.Module) -> tuple[int, ...]:
    """Returns a small input that shows every weight."""
    if isinstance(module, modules.CONVOLUTIONS):
        reach = [d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        return (2, module.in_channels, *(size + 1 for size in reach))
    if isinstance(module, modules.BATCH_NORMS):
        return (4, module.num_features, *(2,) * (modules.BATCH_NORMS.index(type(module)) + 1))
    if isinstance(module, nn.GroupNorm):
        return (4, module.num_channels, 3)
    if isinstance(module, nn.LayerNorm):
        return (4, *module.normalized_shape)
    assert isinstance(module, nn.Linear)
    return (4, module.in_features)
