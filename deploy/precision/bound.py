"""How far a half-precision file may be from the network that it was made of.

Every number that is rounded to a format is off by at most its unit roundoff u, relatively: u = 2^-11 for float16 and
2^-8 for bfloat16. A layer's sum of products has terms of either sign, so an error of relative size e in its inputs is
passed on with relative size e, measured against the largest output, and roundings are taken as independent with mean
zero (Higham and Mary, "A new approach to probabilistic rounding error analysis", SISC 2019, model 2.1). With n
roundings one after the other, the error of an output has a standard deviation of at most u sqrt(n), and by their
theorem stays below lambda u sqrt(n) with probability 1 - 2 exp(-lambda^2 / 2). Here lambda = 5, which fails once in
130,000 outputs.

n is counted in the file: over the path with the most of them, one for the weights of each half-precision operator,
one for its result unless it only moves numbers, one for each cast to half precision.

The assumption that a network passes errors on without making them larger is the weak place: one that amplifies them
exceeds the bound, and is then rightly not shipped.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import onnx

from deploy.modelfile import open_model
from deploy.precision.formats import HALF_FORMATS, HalfFormat

LAMBDA: Final = 5.0
"""Standard deviations that are allowed for."""

_EXACT: Final = frozenset(
    {
        "Clip",
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GlobalMaxPool",
        "Identity",
        "Max",
        "MaxPool",
        "Min",
        "Neg",
        "Pad",
        "Relu",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)
"""Operators that round nothing."""


def error_bound(path: Path, precision: str) -> float:
    """Returns the largest error to expect, relative to the largest output, of a file in half precision.

    Args:
        path: The converted file.
        precision: `float16` or `bfloat16`.

    Raises:
        ModelFileError: The file is missing or damaged.
    """
    chosen = HALF_FORMATS[precision]
    return LAMBDA * chosen.unit * math.sqrt(max(1, count_roundings(open_model(path), chosen)))


def count_roundings(model: onnx.ModelProto, chosen: HalfFormat) -> int:
    """Returns how many roundings to a format lie on the path that has the most; ONNX keeps nodes in order."""
    weights = {weight.name for weight in model.graph.initializer if weight.data_type == chosen.element}
    halves, depths = set(weights), dict[str, int]()
    for node in model.graph.node:
        before = max((depths.get(name, 0) for name in node.input), default=0)
        half = _casts_to(node, chosen) or (node.op_type != "Cast" and any(name in halves for name in node.input))
        own = 0
        if half:
            halves.update(node.output)
            own = (node.op_type not in _EXACT) + any(name in weights for name in node.input)
        depths.update((name, before + own) for name in node.output)
    return max(depths.values(), default=0)


def _casts_to(node: onnx.NodeProto, chosen: HalfFormat) -> bool:
    return node.op_type == "Cast" and any(each.name == "to" and each.i == chosen.element for each in node.attribute)
