"""Which operators stay in float32 when a network goes to half precision, and why.

An operator stays when, in this order,

1. ONNX has no such operator in the format, or it is not one of ONNX's own,
2. it sums over many values or takes exponentials, so that its inner results lose digits or overflow,
3. a constant of it is too large for the format, or so small that all of it would vanish,
4. what it takes or gives left the format's range on samples (`ranges`; found by running the float32 file).

Numbers that are made of integers (indices cast to float, ranges) stay too and are no operators that count: half
precision counts exactly only to 2048 or 256.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, defs, numpy_helper

from deploy.precision.formats import HalfFormat
from deploy.precision.model import opset_of
from deploy.precision.result import Kept

Ranges = Mapping[str, tuple[float, float]]
"""Smallest and largest finite number of each value, by its name in the file."""

SENSITIVE: Final = frozenset(
    {
        "CumSum",
        "Exp",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "MeanVarianceNormalization",
        "Pow",
        "RMSNormalization",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
        "Softplus",
    }
)
"""Operators of case 2."""

HEADROOM: Final = 2.0
"""Samples that come later may be so many times larger than those that ranges were found on."""


@dataclass(frozen=True)
class Decision:
    """What becomes of every operator.

    Attributes:
        half: Positions of the nodes that go to half precision.
        kept: The others that compute on floats, with reasons.
    """

    half: frozenset[int]
    kept: tuple[Kept, ...]


def decide(
    model: onnx.ModelProto, types: Mapping[str, int], chosen: HalfFormat, ranges: Ranges | None = None
) -> Decision:
    """Returns which nodes go to half precision.

    Args:
        model: A float32 model.
        types: Element types of all its values (`deploy.precision.model.element_types`).
        chosen: The format.
        ranges: Of its values on samples; None does not look at them.
    """
    opset = opset_of(model)
    constants = {
        weight.name: numpy_helper.to_array(weight)
        for weight in model.graph.initializer
        if weight.data_type == TensorProto.FLOAT
    }
    half, kept = set[int](), []
    for place, node in enumerate(model.graph.node):
        if _counts(node, types):
            continue
        reason = (
            _unknown(node, types, opset, chosen)
            or _sensitive(node)
            or _constant_out_of_range(node, constants, chosen)
            or _value_out_of_range(node, ranges or {}, chosen)
        )
        if reason is None:
            half.add(place)
        else:
            kept.append(Kept(node.name, node.op_type, reason))
    return Decision(frozenset(half), tuple(kept))


def float_slots(node: onnx.NodeProto, opset: int, kind: str) -> tuple[list[bool], list[bool]] | None:
    """Returns which inputs and outputs of an operator may be of a type (`tensor(float16)`) where they are float now.

    Types that the operator fixes to float, such as the scales of a `Resize`, may not. None where there is no such
    operator in the operator set.
    """
    if node.domain not in {"", "ai.onnx"} or not defs.has(node.op_type, max_inclusive_version=opset):
        return None
    schema = defs.get_schema(node.op_type, max_inclusive_version=opset)
    allowed = {each.type_param_str: set(each.allowed_type_strs) for each in schema.type_constraints}

    def takes(formals: list[defs.OpSchema.FormalParameter], at: int) -> bool:
        return kind in allowed.get(formals[min(at, len(formals) - 1)].type_str, set())

    return (
        [takes(list(schema.inputs), at) for at in range(len(node.input))],
        [takes(list(schema.outputs), at) for at in range(len(node.output))],
    )


def is_float(name: str, types: Mapping[str, int]) -> bool:
    """Returns whether a value is of float32."""
    return bool(name) and types.get(name) == TensorProto.FLOAT


def _counts(node: onnx.NodeProto, types: Mapping[str, int]) -> bool:
    """Returns whether a node has nothing to convert: no floats, or floats made of integers."""
    inputs, outputs = ([is_float(name, types) for name in names] for names in (node.input, node.output))
    made_of_integers = any(outputs) and not any(inputs)
    return not (any(inputs) or any(outputs)) or made_of_integers


def _unknown(node: onnx.NodeProto, types: Mapping[str, int], opset: int, chosen: HalfFormat) -> str | None:
    slots = float_slots(node, opset, chosen.onnx_type)
    if slots is None:
        return f"no standard operator ({node.domain or 'ai.onnx'})"
    outputs = [fits for name, fits in zip(node.output, slots[1], strict=True) if is_float(name, types)]
    inputs = [fits for name, fits in zip(node.input, slots[0], strict=True) if is_float(name, types)]
    return None if all(outputs) and any(inputs) else f"ONNX has it not in {chosen.name}"


def _sensitive(node: onnx.NodeProto) -> str | None:
    return "sums or exponentials lose digits" if node.op_type in SENSITIVE else None


def _constant_out_of_range(node: onnx.NodeProto, constants: Mapping[str, np.ndarray], chosen: HalfFormat) -> str | None:
    for name in node.input:
        largest = _largest_finite(constants[name]) if name in constants else 0.0
        if largest > chosen.largest:
            return f"a constant of {largest:.3g} does not fit"
        if 0.0 < largest < chosen.smallest:
            return f"a constant of {largest:.3g} would vanish"
    return None


def _largest_finite(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0))


def _value_out_of_range(node: onnx.NodeProto, ranges: Ranges, chosen: HalfFormat) -> str | None:
    for largest in _magnitudes(node, ranges):
        if largest * HEADROOM > chosen.largest:
            return f"values reach {largest:.3g} on samples"
        if 0.0 < largest < chosen.smallest:
            return f"values stay below {largest:.3g} on samples"
    return None


def _magnitudes(node: onnx.NodeProto, ranges: Ranges) -> Iterator[float]:
    for name in (*node.input, *node.output):
        if name in ranges:
            yield max(abs(end) for end in ranges[name])
