"""What a stretch is: with the same signature, two take the same time; with the same fingerprint, they are the same."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressors.graph import Graph, TensorSpec


def signature(module: fx.GraphModule, specs: Sequence[TensorSpec]) -> str:
    """Returns a key of the operators, their settings, how they are wired, and the inputs' shapes and types.

    Args:
        module: A stretch.
        specs: Its inputs, per sample; their names do not matter.
    """
    number = {node: index for index, node in enumerate(module.graph.nodes)}
    lines = [f"{spec.dtype} {spec.shape}" for spec in specs]
    for node in module.graph.nodes:
        args = _numbered((node.args, node.kwargs), number)
        lines.append(f"{number[node]} {_operation(module, node)} {args}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def fingerprint(graph: Graph) -> str:
    """Returns a key of a network with its weights: the same for the same network, in another process too."""
    digest = hashlib.sha256(signature(graph.module, graph.inputs).encode())
    for name, value in sorted(graph.module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _numbered(argument: Any, number: dict[fx.Node, int]) -> str:
    """Returns an argument as text, nodes by number, whatever they are called."""
    if isinstance(argument, fx.Node):
        return f"%{number[argument]}"
    if isinstance(argument, tuple | list):
        return f"({', '.join(_numbered(part, number) for part in argument)})"
    if isinstance(argument, dict):
        return _numbered(sorted(argument.items()), number)
    return repr(argument)


def _operation(module: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        # A module prints its type and settings, e.g. `Conv2d(16, 16, kernel_size=(3, 3), ...)`, never its weights.
        return f"module {module.get_submodule(str(node.target))!r}"
    if node.op == "get_attr":
        value: Any = module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return f"constant {value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else "constant"
    return f"{node.op} {'' if node.op in ('placeholder', 'output') else node.target}"
