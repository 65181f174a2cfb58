"""Reading a float32 file for conversion, and writing what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper, inliner, numpy_helper, shape_inference

from deploy.artifact import DATA_SUFFIX
from deploy.cleaning import clean, serialise
from deploy.errors import ModelFileError, PrecisionError
from deploy.modelfile import open_model


def read_float_model(path: Path) -> onnx.ModelProto:
    """Returns the model in a float32 file: constants as initializers, functions inlined, nodes named.

    Raises:
        ModelFileError: The file is missing or damaged.
        PrecisionError: It is quantised or in half precision already, branches or loops, or has its weights beside it.
    """
    model = inliner.inline_local_functions(open_model(path))
    kinds = {weight.data_type for weight in model.graph.initializer}
    quantised = any(node.op_type in {"QuantizeLinear", "DequantizeLinear"} for node in model.graph.node)
    if quantised or kinds & {TensorProto.FLOAT16, TensorProto.BFLOAT16}:
        msg = f"'{path.name}' is not in float32: it is in another precision already; convert the float32 file"
        raise PrecisionError(msg)
    for node in model.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            msg = f"'{path.name}' branches or loops ({node.op_type}); only straight networks can be converted"
            raise PrecisionError(msg)
    if path.with_name(path.name + DATA_SUFFIX).exists():
        msg = f"the weights of '{path.name}' are too large for one file; such networks stay in float32"
        raise PrecisionError(msg)
    _lift_constants(model.graph)
    return clean(model)


def element_types(model: onnx.ModelProto) -> Mapping[str, int]:
    """Returns the element type of every value, weights included.

    Raises:
        ModelFileError: Its types contradict each other.
    """
    try:
        graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except shape_inference.InferenceError as exc:
        msg = f"the types in the model contradict each other: {str(exc).strip().splitlines()[0]}"
        raise ModelFileError(msg) from exc
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    return types | {weight.name: weight.data_type for weight in graph.initializer}


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Checks a converted model in full and writes it; the same model gives the same bytes.

    Raises:
        PrecisionError: It is not valid.
    """
    cleaned = clean(model)
    try:
        onnx.checker.check_model(cleaned, full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as exc:
        msg = f"the conversion gave an invalid file: {str(exc).strip().splitlines()[0]}"
        raise PrecisionError(msg) from exc
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(serialise(cleaned))
    partial.replace(path)


def stored_precision(model: onnx.ModelProto) -> str:
    """Returns what a file's numbers are stored as, one of `deploy.precision.PRECISIONS`."""
    if any(node.op_type in {"QuantizeLinear", "DequantizeLinear"} for node in model.graph.node):
        return "int8"
    kinds = {weight.data_type for weight in model.graph.initializer}
    if TensorProto.FLOAT16 in kinds:
        return "float16"
    return "bfloat16" if TensorProto.BFLOAT16 in kinds else "float32"


def opset_of(model: onnx.ModelProto) -> int:
    """Returns the version of the standard operator set."""
    return int(next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}))


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Makes initializers of `Constant` nodes, so that there is one kind of constant."""
    rest = []
    for node in graph.node:
        value = _constant(node)
        if value is None:
            rest.append(node)
        else:
            graph.initializer.append(value)
    del graph.node[:]
    graph.node.extend(rest)


def _constant(node: onnx.NodeProto) -> TensorProto | None:
    if node.op_type != "Constant":
        return None
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(value)
    elif attribute.name in {"value_float", "value_floats"}:
        tensor = helper.make_tensor("", TensorProto.FLOAT, _dims(value), _flat(value))
    elif attribute.name in {"value_int", "value_ints"}:
        tensor = helper.make_tensor("", TensorProto.INT64, _dims(value), _flat(value))
    else:
        return None
    tensor.name = node.output[0]
    return numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name)


def _dims(value: object) -> list[int]:
    return [len(value)] if isinstance(value, list | tuple) else []


def _flat(value: object) -> list[float]:
    return list(value) if isinstance(value, list | tuple) else [value]  # type: ignore[list-item]
