"""Names for what is stored: module paths that are safe as Python attributes, close to the original network's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

from torch import nn

from compressors.sources.onnx.model import Node, OnnxModel
from compressors.sources.onnx.scopes import safe_path

_ROLES: dict[str, tuple[str, ...]] = {
    "Conv": ("", "weight", "bias"),
    "ConvTranspose": ("", "weight", "bias"),
    ".Linear": ("", "weight", "bias"),
    "BatchNormalization": ("", "weight", "bias", "running_mean", "running_var"),
    "InstanceNormalization": ("", "weight", "bias"),
    "LayerNormalization": ("", "weight", "bias"),
    "GroupNormalization": ("", "weight", "bias"),
    ".LayerNorm": ("", "weight", "bias"),
    "RMSNormalization": ("", "weight"),
    "PRelu": ("", "weight"),
}
_TAKEN = frozenset(dir(nn.Module()))


def tensor_paths(model: OnnxModel) -> dict[str, str]:
    """Returns a unique module path for every stored tensor.

    A weight is called after the module that it belongs to: by its own name, its bias's, or the scope of its operator,
    whichever is known first; exporters rename weights that they change (`onnx::Conv_497`).
    """
    wanted = _weights(model.nodes, model.tensors)
    table = _Table()
    return {name: table.place(wanted.get(name) or safe_path(_dotted(name)) or "tensor") for name in model.tensors}


def _weights(nodes: Iterable[Node], tensors: Mapping[str, object]) -> dict[str, str]:
    """Returns the wanted paths of weights: the owner's path and the weight's role."""
    wanted: dict[str, str] = {}
    owners: set[str] = set()
    for node in nodes:
        roles = _ROLES.get(node.op, ())
        mine = {name: role for name, role in zip(node.inputs, roles, strict=False) if role and name in tensors}
        mine = {name: role for name, role in mine.items() if name not in wanted}
        if not mine:
            continue
        owner = base = _owner(node, mine)
        count = 0
        while owner in owners:
            count += 1
            owner = f"{base}_{count}"
        owners.add(owner)
        wanted |= {name: f"{owner}.{role}" for name, role in mine.items()}
    return wanted


def _owner(node: Node, mine: Mapping[str, str]) -> str:
    """Returns the path of the module that an operator is."""
    for name, role in mine.items():
        dotted = _dotted(name)
        if dotted.endswith(f".{role}") or name == role:
            return safe_path(dotted.removesuffix(role).rstrip(".")) or node.op.lstrip(".").lower()
    first = next(iter(mine))
    return node.scope or safe_path(_dotted(node.name)) or safe_path(_dotted(first)) or node.op.lstrip(".").lower()


def _dotted(name: str) -> str:
    return name.replace("::", "_").replace("/", ".")


@final
class _Table:
    """Paths in use: no path is used twice, and none lies below another."""

    def __init__(self) -> None:
        self.leaves: set[str] = set()
        self.branches: set[str] = set()

    def place(self, wanted: str) -> str:
        """Returns a free path like the wanted one and takes it."""
        parts = [f"{part}_" if part in _TAKEN else part for part in wanted.split(".")]
        for depth in range(1, len(parts)):
            while ".".join(parts[:depth]) in self.leaves:
                parts[depth - 1] += "_"
        path = base = ".".join(parts)
        count = 0
        while path in self.leaves or path in self.branches:
            count += 1
            path = f"{base}_{count}"
        self.leaves.add(path)
        whole = path.split(".")
        self.branches |= {".".join(whole[:depth]) for depth in range(1, len(whole))}
        return path
