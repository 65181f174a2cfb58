"""Files that are only timed, written in a precision: latency depends on no value, so nothing is calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from deploy.cleaning import serialise
from deploy.errors import PrecisionError
from deploy.precision.half import convert_half
from deploy.precision.model import read_float_model
from deploy.precision.quantise import form_for, nominal_ranges, quantise

_OPSET = 20
_IR_VERSION = 10


def write_in(paths: Sequence[Path], precision: str, runtime: str) -> None:
    """Replaces float32 files by what they are in a precision; those that have nothing to convert stay as they are.

    Args:
        paths: The files.
        precision: One of `deploy.precision.PRECISIONS`.
        runtime: Registry name of what times them.

    Raises:
        ModelFileError: A file cannot be read.
    """
    if precision == "float32":
        return
    for path in paths:
        try:
            if precision == "int8":
                quantise(path, path, nominal_ranges(read_float_model(path)), form_for(runtime))
            else:
                convert_half(path, path, precision)
        except PrecisionError:
            # No weighted operator, or types that the format lacks: inside a network it runs in float32 too.
            continue


def write_pair_edges(path: Path, to: Path, runtime: str) -> bool:
    """Writes what the pairs at the edges of a quantised file cost twice, and nothing else.

    An operator timed alone takes and gives float32; inside a network its neighbours take and give 8 bits.

    Args:
        path: A file that `write_in` wrote, of fixed shapes.
        to: Where to write.
        runtime: Registry name of what times it.

    Returns:
        Whether there is anything; a file without pairs has no such edges, and nothing is written.

    Raises:
        ModelFileError: The file cannot be read.
    """
    graph = onnx.load(path).graph
    if not any(node.op_type == "QuantizeLinear" for node in graph.node):
        return False
    values = [value for value in (*graph.input, *graph.output) if _is_float(value)]
    kind = TensorProto.UINT8 if form_for(runtime) == "unsigned" else TensorProto.INT8
    to.write_bytes(serialise(_pairs(values, kind)))
    return True


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == TensorProto.FLOAT)


def _pairs(values: Sequence[onnx.ValueInfoProto], kind: int) -> onnx.ModelProto:
    """Returns a model that takes every value to 8 bits and back."""
    nodes, inputs, outputs = [], [], []
    for index, value in enumerate(values):
        shape = [size.dim_value for size in value.type.tensor_type.shape.dim]
        inputs.append(helper.make_tensor_value_info(f"in{index}", TensorProto.FLOAT, shape))
        outputs.append(helper.make_tensor_value_info(f"out{index}", TensorProto.FLOAT, shape))
        nodes.append(helper.make_node("QuantizeLinear", [f"in{index}", "scale", "zero"], [f"q{index}"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"q{index}", "scale", "zero"], [f"out{index}"]))
    zero = helper.make_tensor("zero", kind, [], [0])
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [0.03])
    graph = helper.make_graph(nodes, "pairs", inputs, outputs, [scale, zero])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
