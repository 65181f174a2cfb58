"""Writes a float32 network in float16 or bfloat16: half-precision weights and operators, casts where the two meet.

A pass of our own: the converter that comes with ONNX Runtime knows no bfloat16, appends its casts out of order, pushes
constants beyond the format's range to its ends instead of leaving their operators alone, and has its operator list by
hand, where ONNX's own schemas say what each operator takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.errors import PrecisionError
from deploy.precision.formats import HALF_FORMATS, HalfFormat
from deploy.precision.keep import Decision, Ranges, decide, float_slots, is_float
from deploy.precision.model import element_types, opset_of, read_float_model, write_model
from deploy.precision.result import Converted

_LEAST_OPSET = 20
"""What networks are exported in. From this operator set to 22 operators gained types and kept their meaning."""


def convert_half(path: Path, to: Path, precision: str, ranges: Ranges | None = None) -> Converted:
    """Writes the network in `path` in half precision, with inputs and outputs in float32 as before.

    Args:
        path: A float32 file.
        to: Where to write.
        precision: `float16` or `bfloat16`.
        ranges: Of the file's values on samples (`deploy.precision.observe`); operators that leave the format's range
            stay in float32. None trusts that none does.

    Raises:
        ModelFileError: The file is missing or damaged.
        PrecisionError: It cannot be converted; the message says why.
    """
    chosen = HALF_FORMATS[precision]
    model = _in_opset(read_float_model(path), chosen)
    types = element_types(model)
    decision = decide(model, types, chosen, ranges)
    names = tuple(node.name for place, node in enumerate(model.graph.node) if place in decision.half)
    write_model(_Rewrite(model, types, decision, chosen).result(), to)
    return Converted(precision, decision.kept, names)


def _in_opset(model: onnx.ModelProto, chosen: HalfFormat) -> onnx.ModelProto:
    """Returns the model in an operator set whose operators take the format; later ones only added types to them."""
    opset = opset_of(model)
    if opset >= chosen.opset:
        return model
    if opset < _LEAST_OPSET:
        msg = (
            f"{chosen.name} needs operator set {chosen.opset}, where operators of operator set {opset} may mean others"
        )
        raise PrecisionError(msg)
    for entry in model.opset_import:
        if entry.domain in {"", "ai.onnx"}:
            entry.version = chosen.opset
    return model


@final
class _Rewrite:
    """One conversion under way: which values there are in which format, and the nodes so far."""

    def __init__(
        self, model: onnx.ModelProto, types: Mapping[str, int], decision: Decision, chosen: HalfFormat
    ) -> None:
        self._model, self._types, self._decision, self._chosen = model, types, decision, chosen
        self._weights = {w.name: w for w in model.graph.initializer if w.data_type == TensorProto.FLOAT}
        self._outputs = {value.name for value in model.graph.output}
        self._names: dict[tuple[str, bool], str] = {
            (name, False): name for name in (*self._weights, *(value.name for value in model.graph.input))
        }
        self._made: list[TensorProto] = []
        self._nodes: list[onnx.NodeProto] = []

    def result(self) -> onnx.ModelProto:
        """Returns the converted model."""
        for place, node in enumerate(self._model.graph.node):
            self._convert(node, half=place in self._decision.half)
        for name in sorted(self._outputs):
            if (name, False) not in self._names and is_float(name, self._types):
                self._cast(name, half=False, to=name)
        graph = self._model.graph
        used = {name for node in self._nodes for name in node.input} | self._outputs
        kept = [weight for weight in (*graph.initializer, *self._made) if weight.name in used]
        del graph.node[:]
        graph.node.extend(self._nodes)
        del graph.initializer[:]
        graph.initializer.extend(kept)
        return self._model

    def _convert(self, node: onnx.NodeProto, *, half: bool) -> None:
        slots = float_slots(node, opset_of(self._model), self._chosen.onnx_type) if half else None
        inputs = slots[0] if slots else [False] * len(node.input)
        for at, name in enumerate(node.input):
            if is_float(name, self._types):
                node.input[at] = self._named(name, half=inputs[at])
        for at, name in enumerate(node.output):
            if is_float(name, self._types):
                node.output[at] = self._born(name, half=half)
        self._nodes.append(node)

    def _born(self, name: str, *, half: bool) -> str:
        """Returns what a value that an operator makes is called in its format."""
        own = f"{name}.half" if half and name in self._outputs else name
        self._names[name, half] = own
        return own

    def _named(self, name: str, *, half: bool) -> str:
        """Returns what a value is called in a format; makes it in that format where it is not there yet."""
        if (name, half) not in self._names:
            if name in self._weights:
                self._names[name, half] = self._rounded(self._weights[name])
            else:
                own = name if not half and name in self._outputs else f"{name}.{'half' if half else 'float'}"
                self._cast(name, half=half, to=own)
        return self._names[name, half]

    def _rounded(self, weight: TensorProto) -> str:
        values = self._chosen.rounded(numpy_helper.to_array(weight))
        name = f"{weight.name}.half"
        self._made.append(numpy_helper.from_array(values, name))
        return name

    def _cast(self, name: str, *, half: bool, to: str) -> None:
        kind = self._chosen.element if half else TensorProto.FLOAT
        self._nodes.append(helper.make_node("Cast", [self._names[name, not half]], [to], to=kind))
        self._names[name, half] = to
