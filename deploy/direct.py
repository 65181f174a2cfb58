"""Builds the ONNX of a convolution or linear layer, alone or with one activation, without the exporter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import fx, nn

if TYPE_CHECKING:
    from deploy.export import InputSpec

_OPSET = 20
_IR_VERSION = 10

Weights = dict[str, torch.Tensor]
Nodes = tuple[list[NodeProto], Weights]


def build_direct(module: nn.Module, inputs: Sequence[InputSpec], batch: int) -> onnx.ModelProto | None:
    """Returns the module as ONNX with a fixed batch size, or None where it is not such a simple one."""
    chain = _chain(module)
    if chain is None or not 1 <= len(chain) <= 2 or len(inputs) != 1 or inputs[0].dtype != torch.float32:
        return None
    first, activation = chain[0], chain[1] if len(chain) == 2 else None
    affine = _affine(first, len(inputs[0].shape), "y" if activation is None else "affine")
    if affine is None or (activation is not None and type(activation) not in _ACTIVATIONS):
        return None
    nodes, weights = affine
    if activation is not None:
        extra, constants = _ACTIVATIONS[type(activation)](activation)
        nodes, weights = [*nodes, *extra], {**weights, **constants}
    with torch.no_grad():
        output = module(torch.zeros((batch, *inputs[0].shape)))
    return _model(nodes, weights, (batch, *inputs[0].shape), tuple(output.shape))


def _model(
    nodes: list[NodeProto], weights: Weights, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "operator",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(value.detach().contiguous().numpy(), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def _chain(module: nn.Module) -> list[nn.Module] | None:
    """Returns the leaf modules in the order they run, where that is all there is."""
    if isinstance(module, nn.Sequential):
        parts = [_chain(part) for part in module]
        return [leaf for part in parts for leaf in part or []] if all(part is not None for part in parts) else None
    if isinstance(module, fx.GraphModule):
        return _traced_chain(module)
    leaf = type(module) in _ACTIVATIONS or isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear, nn.Identity))
    if not leaf:
        return None
    return [] if isinstance(module, nn.Identity) else [module]


def _traced_chain(module: fx.GraphModule) -> list[nn.Module] | None:
    nodes = list(module.graph.nodes)
    kinds = [node.op for node in nodes]
    if kinds != ["placeholder", *["call_module"] * (len(nodes) - 2), "output"]:
        return None
    for before, node in pairwise(nodes[:-1]):
        if node.args != (before,) or node.kwargs:
            return None
    if nodes[-1].args[0] is not nodes[-2] and nodes[-1].args[0] != (nodes[-2],):
        return None
    return _chain(nn.Sequential(*(module.get_submodule(str(node.target)) for node in nodes[1:-1])))


def _affine(module: nn.Module, dimensions: int, output: str) -> Nodes | None:
    if isinstance(module, (nn.Conv1d, nn.Conv2d)) and dimensions == len(module.kernel_size) + 1:
        return _convolution(module, output)
    if isinstance(module, nn.Linear):
        return _gemm(module, output) if dimensions == 1 else _matmul(module, output)
    return None


def _convolution(module: nn.Conv1d | nn.Conv2d, output: str) -> Nodes | None:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        return None
    node = helper.make_node(
        "Conv",
        ["x", "weight", *(["bias"] if module.bias is not None else [])],
        [output],
        kernel_shape=list(module.kernel_size),
        strides=list(module.stride),
        pads=[*module.padding, *module.padding],
        dilations=list(module.dilation),
        group=module.groups,
    )
    return [node], _weights(module.weight, module.bias)


def _gemm(module: nn.Linear, output: str) -> Nodes:
    names = ["x", "weight", *(["bias"] if module.bias is not None else [])]
    return [helper.make_node("Gemm", names, [output], transB=1)], _weights(module.weight, module.bias)


def _matmul(module: nn.Linear, output: str) -> Nodes:
    weights = _weights(module.weight.t(), module.bias)
    if module.bias is None:
        return [helper.make_node("MatMul", ["x", "weight"], [output])], weights
    product = helper.make_node("MatMul", ["x", "weight"], ["product"])
    return [product, helper.make_node("Add", ["product", "bias"], [output])], weights


def _weights(weight: torch.Tensor, bias: torch.Tensor | None) -> Weights:
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _plain(operator: str, **attributes: Any) -> Nodes:
    return [helper.make_node(operator, ["affine"], ["y"], **attributes)], {}


def _clip(low: float, high: float) -> Nodes:
    node = helper.make_node("Clip", ["affine", "low", "high"], ["y"])
    return [node], {"low": torch.tensor(low), "high": torch.tensor(high)}


def _swish(_: Any) -> Nodes:
    sigmoid = helper.make_node("Sigmoid", ["affine"], ["sigmoid"])
    return [sigmoid, helper.make_node("Mul", ["affine", "sigmoid"], ["y"])], {}


_ACTIVATIONS: dict[type[nn.Module], Callable[[Any], Nodes]] = {
    nn.ReLU: lambda _: _plain("Relu"),
    nn.ReLU6: lambda _: _clip(0.0, 6.0),
    nn.Hardtanh: lambda module: _clip(module.min_val, module.max_val),
    nn.Hardswish: lambda _: _plain("HardSwish"),
    nn.Hardsigmoid: lambda _: _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    nn.SiLU: _swish,
    nn.GELU: lambda module: _plain("Gelu", approximate=module.approximate),
    nn.Sigmoid: lambda _: _plain("Sigmoid"),
    nn.Tanh: lambda _: _plain("Tanh"),
    nn.LeakyReLU: lambda module: _plain("LeakyRelu", alpha=module.negative_slope),
    nn.ELU: lambda module: _plain("Elu", alpha=module.alpha),
}
