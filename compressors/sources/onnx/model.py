"""What an ONNX file says, checked and free of protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        op: Its type, e.g. `Conv`; operators of the importer's own start with a dot (`.Linear`).
        opset: Version of the operator set that the file follows.
        since: Version of the operator set in which this form of the operator appeared.
        name: The file's name for it, for messages.
        scope: Dotted path of the module that it came from, as far as the exporter tells; may be empty.
        inputs: Names of values; empty for an optional input that is left out.
        outputs: Names of values; empty for results that nobody wants.
        attributes: By name; defaults are filled in. Subgraphs are `Body`s, tensors are numpy's.
    """

    op: str
    opset: int
    since: int
    name: str
    scope: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The operator as messages name it."""
        name = f" {self.name!r}" if self.name else ""
        return f"{self.op.lstrip('.')}{name} (opset {self.opset})"


@dataclass(frozen=True)
class Body:
    """A branch of an If: it reads the values around it by name.

    Attributes:
        nodes: In an order in which they can run.
        outputs: Names of the results.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Input:
    """One input of the whole model.

    Attributes:
        name: Its name in the file.
        dtype: Element type.
        sizes: One per dimension: a number, a name, or None where the file says nothing.
    """

    name: str
    dtype: torch.dtype
    sizes: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class OnnxModel:
    """A whole file.

    Attributes:
        where: The file's name, for messages.
        inputs: What it takes.
        outputs: Names of what it returns, in order.
        nodes: In an order in which they can run.
        tensors: Stored tensors by name: initializers, and the values of Constant operators.
        literals: Names of those that are values of Constant operators.
    """

    where: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    tensors: Mapping[str, torch.Tensor]
    literals: frozenset[str] = frozenset()
