"""Values while a graph is traced: tensors, and sizes that are computed on the side.

Exporters write shape arithmetic as operators on integer tensors. Traced as tensors, it would make every reshape depend
on data. So integers that come from shapes and constants stay numbers here: numpy arrays of Python numbers, or, where
the batch size takes part, of torch's symbolic integers. A reshape then becomes a plain reshape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from compressors.errors import ModelError, UnsupportedModelError
from compressors.sources.onnx.limits import CONSTANT_ELEMENTS, HOST_FLOATS, HOST_INTEGERS, RESULT_ELEMENTS
from compressors.sources.onnx.model import Node


class TooLargeError(Exception):
    """A result does not fit into shape arithmetic; it is computed as a tensor instead."""


@dataclass(frozen=True)
class Value:
    """One value of the graph, in one or both forms.

    Attributes:
        tensor: As the tracer sees it; None for sizes.
        host: As numbers; None for data and for large weights.
        constant: Whether it is the same for all inputs.
    """

    tensor: torch.Tensor | None = None
    host: Any = None
    constant: bool = False

    def as_tensor(self) -> torch.Tensor:
        """Returns it as a tensor."""
        return self.tensor if self.tensor is not None else to_tensor(self.host)


def stored(tensor: torch.Tensor) -> Any:
    """Returns the numbers of a stored tensor if it may take part in shape arithmetic, else None."""
    limit = HOST_FLOATS if tensor.is_floating_point() else HOST_INTEGERS
    return tensor.detach().numpy() if tensor.numel() <= limit else None


def normal(array: Any) -> Any:
    """Returns an array whose elements are plain numbers as an array of numbers, any other as objects."""
    array = np.asarray(array)
    if array.dtype != object:
        return array
    kinds = {type(item) for item in array.reshape(-1).tolist()}
    if kinds <= {int, bool, np.int64, np.bool_}:
        return array.astype(np.bool_ if kinds <= {bool, np.bool_} and kinds else np.int64)
    return array.astype(np.float32) if kinds <= {int, float, np.float32, np.float64} else array


def to_tensor(array: Any) -> torch.Tensor:
    """Returns numbers as a tensor; symbolic ones become part of the trace."""
    if array.dtype != object:
        return torch.tensor(np.array(array))
    items = [torch.scalar_tensor(item, dtype=torch.int64) for item in array.reshape(-1).tolist()]
    return torch.stack(items).reshape(array.shape) if array.ndim else items[0]


def hint(size: Any) -> int:
    """Returns the number behind a size, without tying the trace to it."""
    return size if isinstance(size, int) else int(size.node.hint or 1)


def elements(shape: Sequence[Any]) -> int:
    """Returns the number of elements, for the batch that is traced."""
    return math.prod(hint(size) for size in shape)


@final
class Call:
    """One operator with its inputs, as the functions of the operator table get it."""

    def __init__(self, node: Node, values: Sequence[Value | None]) -> None:
        self.node = node
        self.values = values
        self.since = node.since

    def has(self, index: int) -> bool:
        """Says whether an optional input is given."""
        return index < len(self.values) and self.values[index] is not None

    def value(self, index: int) -> Value:
        """Returns an input.

        Raises:
            ModelError: It is left out.
        """
        value = self.values[index] if index < len(self.values) else None
        if value is None:
            raise ModelError(f"{self.node.label} lacks its input {index}")
        return value

    def tensor(self, index: int) -> torch.Tensor:
        """Returns an input as a tensor."""
        return self.value(index).as_tensor()

    def optional(self, index: int) -> torch.Tensor | None:
        """Returns an input as a tensor, None if it is left out."""
        return self.tensor(index) if self.has(index) else None

    def array(self, index: int) -> Any:
        """Returns an input as numbers.

        Raises:
            UnsupportedModelError: It depends on the model's inputs.
        """
        host = self.value(index).host
        if host is None:
            raise self.refuse(
                f"its input {index} ({self.node.inputs[index]!r}) must be known when the model is read, but depends on "
                "the model's inputs"
            )
        return host

    def ints(self, index: int) -> list[Any]:
        """Returns an input as a list of integers; sizes that follow the batch are symbolic."""
        items: list[Any] = self.array(index).reshape(-1).tolist()
        return [item if isinstance(item, torch.SymInt) else int(item) for item in items]

    def number(self, index: int) -> Any:
        """Returns an input of one element as a Python number."""
        items = self.array(index).reshape(-1).tolist()
        if len(items) != 1:
            raise ModelError(f"{self.node.label}: its input {index} must have one element, it has {len(items)}")
        return items[0]

    def operand(self, index: int, rank: int) -> Any:
        """Returns an input for an elementwise operator: a Python number where broadcasting allows one."""
        value = self.value(index)
        known = value.host is not None and value.host.size == 1 and value.host.ndim <= rank
        return value.host.reshape(-1).tolist()[0] if known else value.as_tensor()

    def attr(self, name: str, default: Any = None) -> Any:
        """Returns an attribute, `default` where the file leaves it out and ONNX has no default."""
        return self.node.attributes.get(name, default)

    def wants(self, index: int) -> bool:
        """Says whether anybody reads a result."""
        return index < len(self.node.outputs) and bool(self.node.outputs[index])

    def refuse(self, reason: str) -> UnsupportedModelError:
        """Returns the error that names this operator."""
        return UnsupportedModelError(f"{self.node.label} cannot be imported: {reason}")

    def axis(self, axis: int, rank: int) -> int:
        """Returns a dimension counted from the front.

        Raises:
            ModelError: There is no such dimension.
        """
        if not -rank <= axis < rank:
            raise ModelError(f"{self.node.label} names axis {axis} of a tensor with {rank} dimensions")
        return axis % rank

    def check_size(self, shape: Sequence[Any], *, constant: bool) -> None:
        """Makes sure that a result fits into memory.

        Raises:
            ModelError: It does not.
        """
        limit, count = CONSTANT_ELEMENTS if constant else RESULT_ELEMENTS, elements(shape)
        if count > limit:
            kind = "a constant" if constant else "a result"
            raise ModelError(f"{self.node.label} makes {kind} of {count} elements, more than the {limit} allowed")
