"""Activations that exporters take apart.

* GELU: `x/2 (1 + erf(x / sqrt 2))`, or with tanh, `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`
  (Hendrycks and Gimpel 2016, arXiv:1606.08415).
* SiLU: `x sigmoid(x)`; Hardswish: `x hardsigmoid(x)`, or `x clip(x + 3, 0, 6) / 6`; Mish: `x tanh(softplus(x))`.
* Hardsigmoid: `clip(x + 3, 0, 6) / 6`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from compressors.sources.onnx.model import Node
from compressors.sources.onnx.patterns.draft import Draft, close

_CUBIC = 0.044715


def join_activations(draft: Draft) -> None:
    """Replaces every such formula by one operator."""
    for node in list(draft.nodes.values()):
        matcher = _MATCHERS.get(node.op)
        if matcher is not None:
            matcher(draft, node)


def _put(draft: Draft, last: Node, op: str, x: str, attributes: Mapping[str, Any] | None = None) -> None:
    draft.put(last, replace(last, op=op, since=max(last.opset, 20), inputs=(x,), attributes=attributes or {}))


def _gelu(draft: Draft, erf: Node) -> None:
    x = _scaled(draft, erf.inputs[0], 1 / math.sqrt(2))
    if x is not None:
        _half(draft, erf.outputs[0], x, "none")


def _scaled(draft: Draft, name: str, factor: float) -> str | None:
    """Returns what is multiplied by a number to give a value."""
    times, over = draft.maker(name, "Mul"), draft.maker(name, "Div")
    if times is not None:
        parts = draft.split(times)
        return parts[0] if parts is not None and close(parts[1], factor) else None
    if over is not None and close(draft.scalar(over.inputs[1]), 1 / factor):
        return over.inputs[0]
    return None


def _half(draft: Draft, name: str, x: str, kind: str) -> None:
    """Follows `name` through `+ 1` and the products with x and one half, in any order, and puts GELU in place."""
    plus = draft.reader(name, "Add")
    parts = None if plus is None else draft.split(plus)
    if plus is None or parts is None or parts[1] != 1:
        return
    left = {"x", "half"}
    current = plus
    while left:
        product = draft.reader(current.outputs[0], "Mul", "Div")
        found = None if product is None else _factors(draft, product, current.outputs[0], x)
        if product is None or not found or not found <= left:
            return
        left -= found
        current = product
    _put(draft, current, "Gelu", x, {"approximate": kind})


def _factors(draft: Draft, product: Node, name: str, x: str) -> set[str] | None:
    """Returns which of x and one half a product brings in."""
    other = draft.other(product, name)
    if other is None:
        return None
    if product.op == "Div":
        return {"half"} if product.inputs[0] == name and draft.scalar(other) == 2 else None
    if other == x:
        return {"x"}
    if draft.scalar(other) == 0.5:
        return {"half"}
    return {"x", "half"} if _scaled(draft, other, 0.5) == x else None


def _gelu_tanh(draft: Draft, tanh: Node) -> None:
    inner = _scaled(draft, tanh.inputs[0], math.sqrt(2 / math.pi))
    plus = None if inner is None else draft.maker(inner, "Add")
    if plus is None:
        _mish(draft, tanh)
        return
    for x, term in (plus.inputs, plus.inputs[::-1]):
        cube = _scaled(draft, term, _CUBIC)
        if cube is not None and _is_cube(draft, cube, x):
            _half(draft, tanh.outputs[0], x, "tanh")
            return


def _is_cube(draft: Draft, name: str, x: str) -> bool:
    power, times = draft.maker(name, "Pow"), draft.maker(name, "Mul")
    if power is not None:
        return power.inputs[0] == x and draft.scalar(power.inputs[1]) == 3
    if times is None:
        return False
    square = draft.maker(draft.other(times, x) or "", "Mul")
    return square is not None and square.inputs == (x, x)


def _mish(draft: Draft, tanh: Node) -> None:
    soft = draft.maker(tanh.inputs[0], "Softplus")
    _gated(draft, tanh, None if soft is None else soft.inputs[0], "Mish")


def _silu(draft: Draft, sigmoid: Node) -> None:
    _gated(draft, sigmoid, sigmoid.inputs[0], ".Silu")


def _hardswish(draft: Draft, gate: Node) -> None:
    if close(gate.attributes.get("alpha"), 1 / 6) and gate.attributes.get("beta") == 0.5:
        _gated(draft, gate, gate.inputs[0], "HardSwish")


def _gated(draft: Draft, gate: Node, x: str | None, op: str) -> None:
    """Replaces the product of x with its gate."""
    for product in draft.readers(gate.outputs[0]):
        if x is not None and product.op == "Mul" and set(product.inputs) == {x, gate.outputs[0]}:
            _put(draft, product, op, x)


def _clipped(draft: Draft, clip: Node) -> None:
    """Finds `clip(x + 3, 0, 6)` and what follows it: a division by six, and a product with x before or after."""
    plus = draft.maker(clip.inputs[0], "Add")
    parts = None if plus is None else draft.split(plus)
    if parts is None or parts[1] != 3 or not _zero_to_six(draft, clip):
        return
    x = parts[0]
    after = draft.reader(clip.outputs[0], "Mul", "Div")
    if after is None:
        return
    if after.op == "Mul" and set(after.inputs) == {x, clip.outputs[0]}:
        sixth = draft.reader(after.outputs[0], "Mul", "Div")
        if sixth is not None and _scaled(draft, sixth.outputs[0], 1 / 6) == after.outputs[0]:
            _put(draft, sixth, "HardSwish", x)
    elif _scaled(draft, after.outputs[0], 1 / 6) == clip.outputs[0]:
        _put(draft, after, "HardSigmoid", x, {"alpha": 1 / 6, "beta": 0.5})
        _gated(draft, after, x, "HardSwish")


def _zero_to_six(draft: Draft, clip: Node) -> bool:
    if clip.since < 11:
        return (clip.attributes.get("min"), clip.attributes.get("max")) == (0.0, 6.0)
    bounds = [draft.scalar(name) for name in clip.inputs[1:]]
    return bounds == [0.0, 6.0]


_MATCHERS: dict[str, Callable[[Draft, Node], None]] = {
    "Erf": _gelu,
    "Tanh": _gelu_tanh,
    "Sigmoid": _silu,
    "HardSigmoid": _hardswish,
    "Clip": _clipped,
}
