"""Padding before and biases after a convolution, which some exporters (tf2onnx) keep apart, go into it."""

from __future__ import annotations

from dataclasses import replace

from compressors.sources.onnx.model import Node
from compressors.sources.onnx.patterns.draft import Draft


def join_convolution(draft: Draft) -> None:
    """Takes additions per channel and zero padding into convolutions; both are exact."""
    for node in list(draft.nodes.values()):
        if node.op == "Conv":
            _add_bias(draft, node)
    for node in list(draft.nodes.values()):
        if node.op == "Conv":
            _take_padding(draft, node)


def _add_bias(draft: Draft, node: Node) -> None:
    weight = draft.tensors.get(node.inputs[1])
    add = draft.reader(node.outputs[0], "Add")
    if weight is None or weight.dim() < 3 or add is None or (len(node.inputs) > 2 and node.inputs[2]):
        return
    name = draft.other(add, node.outputs[0])
    bias = draft.tensors.get(name or "")
    rank, channels = weight.dim(), weight.shape[0]
    if bias is None or bias.numel() != channels or bias.dim() not in {rank - 1, rank}:
        return
    if bias.shape[bias.dim() - rank + 1] != channels:
        return
    vector = draft.store(str(name), bias.reshape(-1).contiguous())
    draft.put(add, replace(node, inputs=(*node.inputs[:2], vector), outputs=add.outputs))


def _take_padding(draft: Draft, node: Node) -> None:
    pad = draft.maker(node.inputs[0], "Pad")
    weight = draft.tensors.get(node.inputs[1])
    if pad is None or weight is None or node.attributes.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID", ""}:
        return
    widths, rank = _zero_padding(draft, pad), weight.dim()
    if widths is None or len(widths) != 2 * rank or min(widths) < 0:
        return
    if widths[:2] != [0, 0] or widths[rank : rank + 2] != [0, 0]:
        return
    space = rank - 2
    own = list(node.attributes.get("pads") or [0] * 2 * space)
    if node.attributes.get("auto_pad") == "VALID":
        own = [0] * 2 * space
    both = [a + b for a, b in zip(own, widths[2:rank] + widths[rank + 2 :], strict=True)]
    attributes = {**node.attributes, "pads": tuple(both), "auto_pad": "NOTSET"}
    draft.put(node, replace(node, inputs=(pad.inputs[0], *node.inputs[1:]), attributes=attributes))


def _zero_padding(draft: Draft, pad: Node) -> list[int] | None:
    """Returns the widths of a padding with zeros, None for any other."""
    if pad.attributes.get("mode", "constant") != "constant" or len(pad.inputs) > 3:
        return None
    if pad.since < 11:
        return list(pad.attributes.get("pads") or ()) if not pad.attributes.get("value") else None
    zero = len(pad.inputs) < 3 or not pad.inputs[2] or draft.scalar(pad.inputs[2]) == 0
    widths = draft.tensors.get(pad.inputs[1])
    return [int(width) for width in widths.reshape(-1).tolist()] if zero and widths is not None else None
