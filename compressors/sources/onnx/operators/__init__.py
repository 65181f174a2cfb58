"""The operator table of the importer: which ONNX operators Shoal knows, and how each is computed with torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from compressors.errors import UnsupportedModelError
from compressors.sources.onnx.model import Body, Node
from compressors.sources.onnx.operators import (
    activation,
    attention,
    convolution,
    elementwise,
    indexing,
    layout,
    normalization,
    pooling,
    reduction,
    resize,
)
from compressors.sources.onnx.operators.elementwise import Operator

OPERATORS: dict[str, Operator] = {
    **elementwise.OPERATORS,
    **activation.OPERATORS,
    **layout.OPERATORS,
    **convolution.OPERATORS,
    **pooling.OPERATORS,
    **normalization.OPERATORS,
    **reduction.OPERATORS,
    **indexing.OPERATORS,
    **resize.OPERATORS,
    **attention.OPERATORS,
}
"""By name; a call gives one result, or a list of them."""

_QUANTISED = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
}
_ADVICE = {
    "quantised": "export the model before it is quantised; Shoal quantises last",
    "com.microsoft": "export without optimisations for one runtime (they replace operators by that runtime's own)",
    "control": "control flow over data cannot be lifted; export with a fixed number of steps, written out",
    "custom": "operators outside ONNX's own set must be written out, or brought along as functions of the model",
    "unknown": "this version of Shoal does not know it",
}


def check_known(nodes: Iterable[Node], where: str) -> None:
    """Makes sure that every operator is in the table.

    Raises:
        UnsupportedModelError: Some are not; all are named, with what to do.
    """
    found: dict[str, list[Node]] = {}
    for node in _all(nodes):
        if node.op not in OPERATORS and node.op != "If":
            found.setdefault(node.op, []).append(node)
    if not found:
        return
    named = [
        f"{op} ({len(group)} times, first {group[0].name or group[0].outputs[0]!r}, opset {group[0].opset})"
        for op, group in sorted(found.items())
    ]
    advice = "; ".join(sorted({_ADVICE[_kind(op)] for op in found}))
    raise UnsupportedModelError(f"{where} uses operators that cannot be imported: {', '.join(named[:20])}. {advice}")


def _all(nodes: Iterable[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        for body in node.attributes.values():
            if isinstance(body, Body):
                yield from _all(body.nodes)


def _kind(op: str) -> str:
    if op.startswith("com.microsoft"):
        return "com.microsoft"
    if op in _QUANTISED:
        return "quantised"
    if op in {"Loop", "Scan", "SequenceMap"}:
        return "control"
    return "custom" if "." in op else "unknown"
