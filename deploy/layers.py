"""What a network consists of, read from its ONNX file: layers, parameters, multiply-accumulates, depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from onnx import shape_inference

from deploy.errors import ModelFileError
from deploy.modelfile import open_model

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_ACTIVATIONS = {
    "Celu",
    "Clip",
    "Elu",
    "Erf",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "PRelu",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
}

Shapes = Mapping[str, tuple[int | None, ...]]


@dataclass(frozen=True)
class Layer:
    """One operator.

    Attributes:
        name: Named after its weight where it has one, e.g. `layer1.0.conv1`; otherwise the node's name.
        operator: ONNX operator type.
        output_shape: Shape of its first output at batch 1; None marks a size that is not known from the file.
        parameters: Numbers in its weights. A weight that several layers share counts at the first.
        macs: Multiply-accumulates at batch 1, of convolutions and matrix products; 0 for everything else.
    """

    name: str
    operator: str
    output_shape: tuple[int | None, ...]
    parameters: int
    macs: int


@dataclass(frozen=True)
class NetworkSummary:
    """A network's layers and totals.

    Attributes:
        layers: In the order they run.
        depth: Convolutions and matrix products on the longest path.
        activations: Number of activation operators.
        parameters: Sum over the layers.
        macs: Sum over the layers, at batch 1.
    """

    layers: tuple[Layer, ...]
    depth: int
    activations: int
    parameters: int
    macs: int


def summarise_network(path: Path) -> NetworkSummary:
    """Returns the layers of an ONNX file.

    Raises:
        ModelFileError: If the file is missing or damaged.
    """
    model = _at_batch_one(open_model(path))
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except shape_inference.InferenceError as exc:
        msg = f"the shapes in '{path.name}' contradict each other: {str(exc).splitlines()[0]}"
        raise ModelFileError(msg) from exc
    layers = _layers(graph)
    return NetworkSummary(
        layers=layers,
        depth=_depth(graph),
        activations=sum(layer.operator in _ACTIVATIONS for layer in layers),
        parameters=sum(layer.parameters for layer in layers),
        macs=sum(layer.macs for layer in layers),
    )


def _at_batch_one(model: onnx.ModelProto) -> onnx.ModelProto:
    weights = {weight.name for weight in model.graph.initializer}
    for value in model.graph.input:
        sizes = value.type.tensor_type.shape.dim
        if value.name not in weights and len(sizes):
            sizes[0].dim_value = 1
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return model


def _layers(graph: onnx.GraphProto) -> tuple[Layer, ...]:
    shapes = _shapes(graph)
    weights = {weight.name: prod(weight.dims) for weight in graph.initializer if _is_learned(weight)}
    counted: set[str] = set()
    layers = []
    for node in graph.node:
        if node.op_type == "Constant":
            continue
        own = [name for name in dict.fromkeys(node.input) if name in weights and name not in counted]
        counted.update(own)
        shape = shapes.get(node.output[0], ())
        parameters = sum(weights[name] for name in own)
        layers.append(Layer(_name(node, weights), node.op_type, shape, parameters, _macs(node, shapes)))
    return tuple(layers)


def _is_learned(weight: onnx.TensorProto) -> bool:
    # Sizes and indices are int64, and a padding value has no dimension; neither was learned.
    return len(weight.dims) > 0 and weight.data_type not in {onnx.TensorProto.INT64, onnx.TensorProto.BOOL}


def _shapes(graph: onnx.GraphProto) -> Shapes:
    shapes: dict[str, tuple[int | None, ...]] = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes)
    return shapes


def _name(node: onnx.NodeProto, weights: Mapping[str, int]) -> str:
    if node.op_type in _WEIGHTED:
        for name in node.input[1:2]:
            if name in weights and name.endswith(".weight"):
                return name.removesuffix(".weight")
    return node.name or node.output[0]


def _macs(node: onnx.NodeProto, shapes: Shapes) -> int:
    known = [shapes.get(name, ()) for name in (*node.input[:2], node.output[0])]
    if node.op_type not in _WEIGHTED or not all(known) or any(None in shape for shape in known):
        return 0
    first, second, output = ([size or 0 for size in shape] for shape in known)
    match node.op_type:
        case "Conv":  # weight: (out, in / groups, *kernel)
            return prod(output) * prod(second[1:])
        case "ConvTranspose":  # weight: (in, out / groups, *kernel)
            return prod(first) * prod(second[1:])
        case "Gemm":
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            return prod(output) * first[0 if transposed else 1]
        case _:
            return prod(output) * first[-1]


def _depth(graph: onnx.GraphProto) -> int:
    """Returns how many weighted operators lie on the longest path; ONNX keeps nodes in topological order."""
    depths: dict[str, int] = {}
    for node in graph.node:
        depth = max((depths.get(name, 0) for name in node.input), default=0) + (node.op_type in _WEIGHTED)
        depths.update((name, depth) for name in node.output)
    return max(depths.values(), default=0)


def compare_layers(before: Sequence[Layer], after: Sequence[Layer]) -> tuple[tuple[Layer | None, Layer | None], ...]:
    """Returns layers side by side: those that kept their name face each other, others face None."""
    places = {layer.name: index for index, layer in enumerate(after)}
    rows: list[tuple[Layer | None, Layer | None]] = []
    reached = 0
    for layer in before:
        place = places.get(layer.name, -1)
        if place < reached or after[place].operator != layer.operator:
            rows.append((layer, None))
            continue
        rows.extend((None, added) for added in after[reached:place])
        rows.append((layer, after[place]))
        reached = place + 1
    rows.extend((None, added) for added in after[reached:])
    return tuple(rows)
