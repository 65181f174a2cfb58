"""What models write out by hand, put together again; the function stays the same up to rounding.

Numbered cases:
1. A linear between two reshapes that only flatten the leading dimensions and restore them, as GPT-2's layers are
   written, becomes a linear on tokens.
2. x * sigmoid(x) becomes SiLU.
3. 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) becomes GELU with the tanh approximation (Hendrycks and Gimpel,
   "Gaussian Error Linear Units", 2016).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn
from torch._ops import OpOverload

from compressors.graph import TensorSpec
from compressors.lift.schema import base_name
from compressors.shapes import propagate
from compressors.tidy import tidy

_CLOSE = 1e-5
"""Relative. Constants are written with seven digits or more, sqrt(2 / pi) is not always."""


def recognise(module: fx.GraphModule, inputs: Sequence[TensorSpec]) -> None:
    """Rewrites the patterns in a module, in place.

    Args:
        module: A lifted graph that runs at any batch size.
        inputs: What it takes.
    """
    nodes = list(module.graph.nodes)
    candidates = [node for node in nodes if _is_linear(node)]
    shapes = propagate(module, inputs).full if candidates else {}
    changed = [_on_tokens(node, shapes) for node in candidates]
    changed += [_activation(module, node) for node in nodes if _is_call(node, "mul")]
    if any(changed):
        tidy(module)


def _is_linear(node: fx.Node) -> bool:
    return _is_module(node, nn.Linear) and _is_call(node.args[0], "reshape")


def _on_tokens(node: fx.Node, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Case 1: returns whether a linear was moved out of its reshapes."""
    flat: Any = node.args[0]
    back: Any = next(iter(node.users), None)
    source: Any = flat.args[0]
    if len(node.users) != 1 or not _is_call(back, "reshape") or not isinstance(source, fx.Node):
        return False
    before, inside = shapes[source.name], shapes[flat.name]
    flattens = len(before) > 2 and inside == (math.prod(before[:-1]), before[-1])
    if not flattens or shapes[back.name] != (*before[:-1], shapes[node.name][-1]):
        return False
    node.args = (source,)
    back.replace_all_uses_with(node)
    return True


def _activation(module: fx.GraphModule, node: fx.Node) -> bool:
    """Cases 2 and 3: returns whether a product was an activation."""
    source = _silu(node)
    found: nn.Module = nn.SiLU()
    if source is None:
        source, found = _tanh_gelu(node), nn.GELU("tanh")
    if source is None:
        return False
    name = f"{node.name}_{type(found).__name__.lower()}"
    path = str(node.meta.get("path", ""))
    parent = path if path and _has(module, path) else ""
    target = f"{parent}.{name}" if parent else name
    module.add_submodule(target, found.eval())
    with module.graph.inserting_after(node):
        called = module.graph.call_module(target, (source,))
    called.meta["path"] = target
    node.replace_all_uses_with(called)
    return True


def _has(module: fx.GraphModule, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True


def _silu(node: fx.Node) -> fx.Node | None:
    """Returns x where a node is x * sigmoid(x)."""
    for x, gate in _both_ways(node):
        gated = isinstance(gate, fx.Node) and _is_module(gate, nn.Sigmoid) and gate.args[0] is x
        if gated and isinstance(x, fx.Node):
            return x
    return None


def _tanh_gelu(node: fx.Node) -> fx.Node | None:
    """Returns x where a node is the tanh form of GELU of x."""
    for half, gate in _both_ways(node):
        x: Any = _times(half, 0.5)
        inner = _times(_argument(_plus(gate, 1.0)), math.sqrt(2 / math.pi))
        if x is None or inner is None or not _is_call(inner, "add"):
            continue
        for one, cubic in _both_ways(inner):
            cube = _times(cubic, 0.044715)
            if one is x and cube is not None and _is_call(cube, "pow") and tuple(cube.args) in {(x, 3), (x, 3.0)}:
                return x  # type: ignore[no-any-return]
    return None


def _both_ways(node: fx.Node) -> list[tuple[Any, Any]]:
    """Returns the two operands of a sum or product in either order."""
    plain = len(node.args) == 2 and not node.kwargs
    return [(node.args[0], node.args[1]), (node.args[1], node.args[0])] if plain else []


def _times(value: Any, factor: float) -> fx.Node | None:
    """Returns x where a value is x * factor."""
    return _with_constant(value, "mul", factor)


def _plus(value: Any, term: float) -> fx.Node | None:
    """Returns x where a value is x + term."""
    return _with_constant(value, "add", term)


def _with_constant(value: Any, name: str, constant: float) -> fx.Node | None:
    if not _is_call(value, name):
        return None
    for x, other in _both_ways(value):
        number = _number(other)
        if isinstance(x, fx.Node) and number is not None and abs(number - constant) <= _CLOSE * abs(constant):
            return x
    return None


def _number(value: Any) -> float | None:
    """Returns a number, or a constant tensor that holds a single one."""
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None
    held: Any = value.graph.owning_module
    for part in str(value.target).split("."):
        held = getattr(held, part)
    return float(held) if isinstance(held, torch.Tensor) and held.numel() == 1 else None


def _argument(value: fx.Node | None) -> Any:
    """Returns what a tanh is applied to."""
    return value.args[0] if value is not None and _is_module(value, nn.Tanh) else None


def _is_module(node: fx.Node, kind: type[nn.Module]) -> bool:
    if node.op != "call_module":
        return False
    assert node.graph.owning_module is not None
    return isinstance(node.graph.owning_module.get_submodule(str(node.target)), kind)


def _is_call(node: Any, name: str) -> bool:
    if not isinstance(node, fx.Node) or not isinstance(node.target, OpOverload):
        return False
    return node.op == "call_function" and base_name(node.target) == name
