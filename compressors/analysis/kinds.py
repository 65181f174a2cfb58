"""What each node of a graph is, as far as cutting is concerned."""

from __future__ import annotations

import operator
from enum import StrEnum

from torch import fx, nn
from torch._ops import OpOverload

from compressors import modules
from compressors.channel_line import ChannelLine
from compressors.lift.schema import base_name


class Kind(StrEnum):
    """Classes of nodes."""

    INPUT = "input"
    OPERATOR = "operator"
    RESIZE = "resize"
    NORM = "norm"
    LINE = "line"
    ACTIVATION = "activation"
    ADD = "add"
    MULTIPLY = "multiply"
    ELEMENTWISE = "elementwise"
    CONCAT = "concat"
    SPLIT = "split"
    PERMUTE = "permute"
    RESHAPE = "reshape"
    SLICE = "slice"
    PAD = "pad"
    MEAN = "mean"
    REDUCE = "reduce"
    AVERAGE_POOL = "average-pool"
    GLOBAL_POOL = "global-pool"
    MAX_POOL = "max-pool"
    ATTENTION = "attention"
    RECURRENT = "recurrent"
    OTHER = "other"


_GROUPS: dict[Kind, str] = {
    Kind.ADD: "add sub rsub",
    Kind.MULTIPLY: "mul div",
    Kind.ELEMENTWISE: (
        "neg exp pow abs sqrt rsqrt square erf log log1p sin cos maximum minimum clamp clamp_max clamp_min reciprocal "
        "softplus softsign sign to _to_copy where sigmoid tanh relu log_sigmoid threshold hardshrink softshrink"
    ),
    Kind.CONCAT: "cat concat stack",
    Kind.SPLIT: "chunk split split_with_sizes unbind getitem",
    Kind.PERMUTE: "permute transpose t movedim swapaxes",
    Kind.RESHAPE: "reshape view flatten unflatten squeeze unsqueeze",
    Kind.SLICE: "slice select narrow",
    Kind.PAD: "pad constant_pad_nd",
    Kind.MEAN: "mean",
    Kind.REDUCE: "sum linalg_vector_norm",
    Kind.AVERAGE_POOL: "avg_pool1d avg_pool2d avg_pool3d",
    Kind.GLOBAL_POOL: "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d",
    Kind.MAX_POOL: "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d amax max",
    Kind.ATTENTION: "scaled_dot_product_attention matmul bmm mm baddbmm einsum softmax _softmax linear",
    Kind.RECURRENT: "lstm gru rnn_tanh rnn_relu",
    Kind.RESIZE: (
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d pixel_shuffle"
    ),
}
_BY_NAME = {name: kind for kind, names in _GROUPS.items() for name in names.split()}


def module_of(node: fx.Node) -> nn.Module:
    """Returns the module that a `call_module` node calls."""
    assert node.graph.owning_module is not None
    return node.graph.owning_module.get_submodule(str(node.target))


def function_name(node: fx.Node) -> str:
    """Returns the plain name of the function that a node calls, e.g. `add` or `getitem`."""
    target = node.target
    if isinstance(target, OpOverload):
        return base_name(target)
    return target if isinstance(target, str) else target.__name__


def kind_of(node: fx.Node) -> Kind:
    """Returns what the node is."""
    if node.op == "placeholder":
        return Kind.INPUT
    if node.op == "call_module":
        return _module_kind(module_of(node))
    if node.target is operator.getitem:
        return Kind.SPLIT
    return _BY_NAME.get(function_name(node), Kind.OTHER) if node.op == "call_function" else Kind.OTHER


def _module_kind(module: nn.Module) -> Kind:
    if isinstance(module, modules.TRANSPOSED):
        return Kind.RESIZE
    if isinstance(module, modules.OPERATORS):
        return Kind.OPERATOR
    if isinstance(module, modules.NORMS):
        return Kind.NORM
    if isinstance(module, ChannelLine):
        return Kind.LINE
    return Kind.ACTIVATION if modules.activation_kind(module) else Kind.OTHER
