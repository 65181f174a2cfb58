"""Layer norms that exporters take apart: `(x - mean) / sqrt(mean((x - mean)^2) + eps) [* weight] [+ bias]`.

Ba, Kiros and Hinton 2016, arXiv:1607.06450, equation 3.
"""

from __future__ import annotations

from dataclasses import replace

from compressors.sources.onnx.model import Node
from compressors.sources.onnx.patterns.draft import Draft


def join_layer_norms(draft: Draft) -> None:
    """Replaces every such formula by one operator."""
    for node in list(draft.nodes.values()):
        if node.op == "Sqrt":
            _match(draft, node)


def _match(draft: Draft, root: Node) -> None:
    plus = draft.maker(root.inputs[0], "Add")
    parts = None if plus is None else draft.split(plus)
    spread = None if parts is None else draft.maker(parts[0], "ReduceMean")
    if parts is None or spread is None:
        return
    deviation = _squared(draft, spread.inputs[0])
    minus = None if deviation is None else draft.maker(deviation, "Sub")
    mean = None if minus is None else draft.maker(minus.inputs[1], "ReduceMean")
    over = draft.reader(root.outputs[0], "Div")
    if minus is None or mean is None or over is None or mean.inputs[0] != minus.inputs[0]:
        return
    axes = _axes(draft, mean)
    if axes is None or axes != _axes(draft, spread) or over.inputs[1] != root.outputs[0]:
        return
    if over.inputs[0] != deviation and not _same_deviation(draft, over.inputs[0], minus):
        return
    _replace(draft, over, minus.inputs[0], axes, parts[1])


def _squared(draft: Draft, name: str) -> str | None:
    power, times = draft.maker(name, "Pow"), draft.maker(name, "Mul")
    if power is not None and draft.scalar(power.inputs[1]) == 2:
        return power.inputs[0]
    return times.inputs[0] if times is not None and times.inputs[0] == times.inputs[1] else None


def _same_deviation(draft: Draft, name: str, minus: Node) -> bool:
    """Says whether a value is the same difference, computed a second time."""
    other = draft.maker(name, "Sub")
    return other is not None and other.inputs == minus.inputs


def _axes(draft: Draft, node: Node) -> tuple[int, ...] | None:
    """Returns the axes of a mean that keeps its dimensions, None for any other."""
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] in draft.tensors:
        axes = draft.tensors[node.inputs[1]].reshape(-1).tolist()
    return tuple(axes) if axes and node.attributes.get("keepdims", 1) else None


def _replace(draft: Draft, last: Node, x: str, axes: tuple[int, ...], epsilon: float) -> None:
    """Puts a layer norm in place of the formula, with the product and sum that follow where both are stored vectors."""
    inputs, end = [x], last
    for op in ("Mul", "Add"):
        after = draft.reader(end.outputs[0], op)
        name = None if after is None else draft.other(after, end.outputs[0])
        if after is None or name is None or not _vector(draft, name, axes):
            break
        inputs.append(name)
        end = after
    draft.put(
        end,
        replace(
            last,
            op=".LayerNorm",
            inputs=tuple(inputs),
            outputs=end.outputs,
            attributes={
                "axes": axes,
                "epsilon": epsilon,
            },
        ),
    )


def _vector(draft: Draft, name: str, axes: tuple[int, ...]) -> bool:
    tensor = draft.tensors.get(name)
    return tensor is not None and tensor.dim() == len(axes) and tensor.is_floating_point()
