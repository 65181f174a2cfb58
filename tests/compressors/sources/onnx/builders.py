"""Small ONNX models, and the two answers to what they compute: ONNX Runtime's and the importer's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from compressors.graph import Graph
from compressors.sources import ModelSource, load

FLOAT = TensorProto.FLOAT
INT64 = TensorProto.INT64


def node(op: str, inputs: Sequence[str], outputs: Sequence[str] | str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [outputs] if isinstance(outputs, str) else list(outputs), **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str] = ("n", 3, 6, 6),
    stored: dict[str, Any] | None = None,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
    **more: Any,
) -> onnx.ModelProto:
    """A model with the input x (float32) and what it stores by name."""
    inputs = [helper.make_tensor_value_info("x", FLOAT, list(shape))]
    returned = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (stored or {}).items()]
    graph = helper.make_graph(list(nodes), "g", inputs, returned, tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **more)
    made.ir_version = min(made.ir_version, 10)
    return made


def weights(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def imported(proto: onnx.ModelProto, folder: Path, **source: Any) -> Graph:
    return load(ModelSource(kind="onnx", path=write(proto, folder), **source))


def difference(path: Path, graph: Graph, batch: int = 3) -> float:
    """The largest error of the graph against ONNX Runtime, relative to the largest value."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options)
    samples = graph.samples(batch)
    feed = {item.name: x.numpy() for item, x in zip(session.get_inputs(), samples, strict=True)}
    with torch.no_grad():
        got = graph.module(*samples)
    got = got if isinstance(got, tuple) else (got,)
    worst = 0.0
    for left, right in zip(session.run(None, feed), got, strict=True):
        assert left.shape == tuple(right.shape)
        worst = max(worst, float(np.abs(left - right.numpy()).max() / max(np.abs(left).max(), 1e-30)))
    return worst


def kinds(graph: Graph) -> list[str]:
    """The types of the graph's modules, in the order of their calls."""
    calls = [item for item in graph.module.graph.nodes if item.op == "call_module"]
    return [type(graph.module.get_submodule(str(call.target))).__name__ for call in calls]


def functions(graph: Graph) -> list[str]:
    """The names of the functions that are called between the modules."""
    return [str(item.target).split(".")[1] for item in graph.module.graph.nodes if item.op == "call_function"]


def computed(proto: onnx.ModelProto, folder: Path, batch: int = 2) -> tuple[Any, list[Any]]:
    """Random values for x and the importer's results, operator by operator and without lifting."""
    from compressors.sources.onnx.network import Network
    from compressors.sources.onnx.operators import check_known
    from compressors.sources.onnx.parse import parse
    from compressors.sources.onnx.prepare import prepare

    parsed = parse(write(proto, folder))
    check_known(parsed.nodes, parsed.where)
    generator = np.random.default_rng(0)
    sizes = [batch if isinstance(size, str) else size for size in parsed.inputs[0].sizes or ()]
    x = generator.standard_normal(sizes).astype(np.float32)
    with torch.no_grad():
        return x, [value.numpy() for value in Network(prepare(parsed))(x=torch.from_numpy(x))]


def both(proto: onnx.ModelProto, folder: Path, batch: int = 2) -> list[tuple[Any, Any]]:
    """ONNX Runtime's results and the importer's."""
    x, got = computed(proto, folder, batch)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return list(zip(session.run(None, {"x": x}), got, strict=True))
