"""A model while patterns in it are replaced."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch

from compressors.sources.onnx.model import Body, Node, OnnxModel
from compressors.sources.onnx.order import reads


@final
class Draft:
    """An `OnnxModel` that may be edited; knows who makes and who reads each value."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self.nodes: dict[int, Node] = dict(enumerate(model.nodes))
        self.tensors = dict(model.tensors)
        self.literals = set(model.literals)
        self._makers = {name: index for index, node in self.nodes.items() for name in node.outputs}
        self._readers: dict[str, list[int]] = {}
        for index, node in self.nodes.items():
            for name in reads(node):
                self._readers.setdefault(name, []).append(index)
        self._shown = set(model.outputs)

    def finish(self) -> OnnxModel:
        """Returns the edited model without what nobody reads."""
        used = set(self._shown) | {name for node in self.nodes.values() for name in reads(node)}
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in used}
        nodes = tuple(self.nodes[index] for index in sorted(self.nodes))
        return replace(self._model, nodes=nodes, tensors=tensors, literals=frozenset(self.literals & used))

    def maker(self, name: str, *ops: str) -> Node | None:
        """Returns the operator that makes a value, if it is one of these."""
        node = self.nodes.get(self._makers.get(name, -1))
        return node if node is not None and node.op in ops else None

    def reader(self, name: str, *ops: str) -> Node | None:
        """Returns the only operator that reads a value, if it is one of these and the value is no output."""
        readers = self._readers.get(name, [])
        if len(set(readers)) != 1 or name in self._shown:
            return None
        node = self.nodes.get(readers[0])
        return node if node is not None and node.op in ops else None

    def readers(self, name: str) -> list[Node]:
        """Returns every operator that reads a value."""
        return [self.nodes[index] for index in dict.fromkeys(self._readers.get(name, [])) if index in self.nodes]

    def shown(self, name: str) -> bool:
        """Says whether a value is an output of the model."""
        return name in self._shown

    def scalar(self, name: str) -> float | None:
        """Returns the number behind a stored tensor of one element, None for anything else."""
        tensor = self.tensors.get(name)
        return float(tensor.reshape(-1)[0]) if tensor is not None and tensor.numel() == 1 else None

    def split(self, node: Node) -> tuple[str, float] | None:
        """Returns the data and the number of an operator on one of each, None for any other."""
        if len(node.inputs) != 2:
            return None
        for data, number in (node.inputs, node.inputs[::-1]):
            value = self.scalar(number)
            if value is not None and data not in self.tensors:
                return data, value
        return None

    def other(self, node: Node, name: str) -> str | None:
        """Returns the second operand of an operator whose first is `name`; the same for a square."""
        if len(node.inputs) != 2 or name not in node.inputs:
            return None
        return node.inputs[1] if node.inputs[0] == name else node.inputs[0]

    def put(self, old: Node, new: Node) -> None:
        """Puts an operator in place of one that has the same results."""
        index = self._makers[old.outputs[0]]
        for name in reads(old):
            if index in self._readers.get(name, []):
                self._readers[name].remove(index)
        self.nodes[index] = new
        for name in reads(new):
            self._readers.setdefault(name, []).append(index)

    def drop_unread(self) -> None:
        """Removes operators whose results nobody reads, to the last."""
        for index in sorted(self.nodes, reverse=True):
            node = self.nodes[index]
            wanted = any(self._readers.get(name) or name in self._shown for name in node.outputs)
            if wanted or any(isinstance(value, Body) for value in node.attributes.values()):
                continue
            del self.nodes[index]
            for name in reads(node):
                self._readers[name] = [reader for reader in self._readers[name] if reader != index]

    def store(self, name: str, tensor: torch.Tensor) -> str:
        """Stores a new tensor under a free name like this one and returns it."""
        free, count = name, 0
        while free in self.tensors or free in self._makers:
            count += 1
            free = f"{name}_{count}"
        self.tensors[free] = tensor
        return free


def close(value: float | None, wanted: float) -> bool:
    """Says whether a number is the wanted one, rounded to float32 or to the six digits that some exporters write."""
    return value is not None and abs(value - wanted) <= 2e-6 * abs(wanted)
