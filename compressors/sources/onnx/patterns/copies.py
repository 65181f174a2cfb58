"""Stored tensors under several names: exporters store equal tensors once, and read some through an Identity."""

from __future__ import annotations

from dataclasses import replace

from compressors.sources.onnx.model import Body, OnnxModel
from compressors.sources.onnx.patterns.draft import Draft

_STATISTICS = range(3, 5)


def read_directly(model: OnnxModel) -> OnnxModel:
    """Returns the model without operators that only give a stored tensor another name."""
    if any(isinstance(value, Body) for node in model.nodes for value in node.attributes.values()):
        return model  # A branch may read either name.
    names: dict[str, str] = {}
    nodes = []
    for node in model.nodes:
        inputs = tuple(names.get(name, name) for name in node.inputs)
        if node.op == "Identity" and inputs[0] in model.tensors and node.outputs[0] not in model.outputs:
            names[node.outputs[0]] = inputs[0]
        else:
            nodes.append(node if inputs == node.inputs else replace(node, inputs=inputs))
    return replace(model, nodes=tuple(nodes))


def part_statistics(draft: Draft) -> None:
    """Gives every batch norm statistics of its own: a mean that equals a bias is stored as one tensor with it."""
    seen: set[str] = set()
    for node in list(draft.nodes.values()):
        if node.op != "BatchNormalization":
            continue
        inputs = list(node.inputs)
        for index in _STATISTICS:
            name = inputs[index]
            alone = len(draft.readers(name)) == 1 and node.inputs.count(name) == 1
            if name in draft.tensors and not (alone and name not in seen):
                inputs[index] = draft.store(f"{name}.statistic", draft.tensors[name].clone())
            seen.add(inputs[index])
        if tuple(inputs) != node.inputs:
            draft.put(node, replace(node, inputs=tuple(inputs)))
