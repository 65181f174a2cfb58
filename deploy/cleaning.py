"""Makes ONNX bytes say nothing about the machine they were made on, and equal for equal models."""

from __future__ import annotations

from collections import Counter

import onnx


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy without documentation strings and metadata, with nodes named by operator and position.

    Exporters leave stack traces, source paths and code in there. Names of inputs, outputs and weights stay.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ClearField("doc_string")
    del copy.metadata_props[:]
    _clean_graph(copy.graph, Counter())
    for function in copy.functions:
        function.ClearField("doc_string")
        del function.metadata_props[:]
        for node in function.node:
            _clean_node(node, Counter())
    return copy


def serialise(model: onnx.ModelProto) -> bytes:
    """Returns the same bytes for the same model."""
    return model.SerializeToString(deterministic=True)


def _clean_graph(graph: onnx.GraphProto, seen: Counter[str]) -> None:
    graph.ClearField("doc_string")
    del graph.metadata_props[:]
    # Shapes of intermediate tensors are inferred again by whoever needs them; exporters leave private symbols in them.
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.ClearField("doc_string")
        del value.metadata_props[:]
    for weight in graph.initializer:
        weight.ClearField("doc_string")
        del weight.metadata_props[:]
    for node in graph.node:
        _clean_node(node, seen)


def _clean_node(node: onnx.NodeProto, seen: Counter[str]) -> None:
    node.ClearField("doc_string")
    del node.metadata_props[:]
    node.name = f"{node.op_type}_{seen[node.op_type]}"
    seen[node.op_type] += 1
    for attribute in node.attribute:
        attribute.ClearField("doc_string")
        for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
            tensor.ClearField("doc_string")
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            _clean_graph(graph, seen)
