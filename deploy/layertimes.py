"""Lays the times that a runtime's profiler tells on the layers of the model file.

A runtime fuses: one of its operators stands for several nodes of the file, and its time is told at the one that does
the work. What it adds of its own, such as changes of layout, belongs to no layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from deploy.modelfile import open_model
from deploy.runtimes.base import LayerTime

_FAR = 4
"""So many nodes back from where a fused operator ends, its first node is looked for: add, activation, clip, cast."""


@dataclass(frozen=True)
class LaidTimes:
    """Times of a network, by layer.

    Attributes:
        seconds: For each layer of `summarise_network`, in its order; None where it is part of another or cost nothing.
        added: What belongs to no layer.
    """

    seconds: tuple[float | None, ...]
    added: tuple[LayerTime, ...]


def lay_times(path: Path, times: Sequence[LayerTime]) -> LaidTimes:
    """Returns the times by layer.

    Args:
        path: The model file that was profiled.
        times: What the runtime told.

    Raises:
        ModelFileError: If the file is missing or damaged.
    """
    nodes = [node for node in open_model(path).graph.node if node.op_type != "Constant"]
    places = {node.name: index for index, node in enumerate(nodes) if node.name}
    makers = {name: index for index, node in enumerate(nodes) for name in node.output}
    seconds: list[float | None] = [None] * len(nodes)
    added = []
    for time in times:
        place = places.get(time.name)
        if place is None and time.name in makers:
            place = _first_of(nodes, makers, makers[time.name], time.op)
        if place is None:
            added.append(time)
        else:
            seconds[place] = (seconds[place] or 0.0) + time.seconds
    return LaidTimes(tuple(seconds), tuple(added))


def _first_of(nodes: Sequence[onnx.NodeProto], makers: Mapping[str, int], last: int, op: str) -> int:
    """Returns the nearest node at or before `last` that is of the operator's type; `last` where there is none."""
    plain, reached = op.removeprefix("Fused"), [last]
    for _ in range(_FAR):
        for place in reached:
            if nodes[place].op_type == plain:
                return place
        reached = [makers[name] for place in reached for name in nodes[place].input if name in makers]
    return last
