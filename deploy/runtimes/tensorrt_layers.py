"""Lays the times that TensorRT's profiler tells of an engine's layers on the nodes of the ONNX file it was built from.

TensorRT fuses: one of its layers stands for several nodes. Which ones says the engine inspector, for engines that were
built with detailed profiling: the parser writes each node's name into a layer's metadata, `[ONNX Layer: conv1]`, and
fusing strings them together. Where there is no metadata, a fused layer's name is the nodes' names with ` + ` between.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.runtimes.base import LayerTime, layer_times

_WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that a layer's time is told at, whatever is fused with them."""

_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_FUSED = " + "
_UNNAMED = "node_of_"


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        name: As TensorRT calls it, and tells its time.
        kind: TensorRT's type of layer; empty where that is not told.
        nodes: As the parser calls the nodes that its metadata names, in TensorRT's order.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class FileNode:
    """A node of the ONNX file.

    Attributes:
        name: Its own, or its output's where it has none.
        operator: Its ONNX type.
    """

    name: str
    operator: str


def read_layers(information: str) -> tuple[EngineLayer, ...]:
    """Returns an engine's layers.

    Args:
        information: What the engine inspector says of the engine, as JSON. What it says of the tensors differs between
            TensorRT 10 and 11 and is not read.
    """
    return tuple(_read_layer(entry) for entry in json.loads(information).get("Layers", ()))


def _read_layer(entry: str | Mapping[str, Any]) -> EngineLayer:
    if isinstance(entry, str):  # of an engine without detailed profiling
        return EngineLayer(entry, "", ())
    nodes = _NODE.findall(str(entry.get("Metadata", "")))
    return EngineLayer(str(entry["Name"]), str(entry.get("LayerType", "")), tuple(nodes))


def parser_names(nodes: Iterable[tuple[str, str, str]]) -> dict[str, FileNode]:
    """Returns the nodes of an ONNX file by the names that TensorRT's parser gives them.

    Args:
        nodes: Name, first output and operator of each; the name may be empty.
    """
    return {name or _UNNAMED + output: FileNode(name or output, operator) for name, output, operator in nodes}


def name_times(
    layers: Sequence[EngineLayer], seconds: Mapping[str, Sequence[float]], nodes: Mapping[str, FileNode]
) -> tuple[LayerTime, ...]:
    """Returns what each operator takes, in the order the layers run.

    A layer's time is told at the first of its nodes that has weights, else at the first that the file knows; where it
    stands for none, under TensorRT's own name. Layers that are told at one node, of one type, are told as one.

    Args:
        layers: Of the engine.
        seconds: Times of each run, by the layer's name.
        nodes: Of `parser_names`.
    """
    known = {layer.name: layer for layer in layers}
    merged: dict[tuple[str, str], list[float]] = {}
    for name, times in seconds.items():
        layer = known.get(name, EngineLayer(name, "", ()))
        key = _place(layer, nodes), layer.kind
        before = merged.get(key)
        merged[key] = list(times) if before is None else [a + b for a, b in zip(before, times, strict=False)]
    return layer_times(merged)


def _place(layer: EngineLayer, nodes: Mapping[str, FileNode]) -> str:
    parts = layer.name.split(_FUSED)
    # A change of layout is called after the layer that it stands before: that holds names of nodes, and other words.
    names = layer.nodes or (parts if all(part in nodes for part in parts) else ())
    found = [nodes[name] for name in names if name in nodes]
    first = next((node for node in found if node.operator in _WEIGHTED), found[0] if found else None)
    return layer.name if first is None else first.name
