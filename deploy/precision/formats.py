"""The half-precision formats, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto


@dataclass(frozen=True)
class HalfFormat:
    """A floating-point format of 16 bits.

    Attributes:
        name: As `deploy.precision.PRECISIONS` has it.
        element: ONNX's number for it.
        onnx_type: ONNX's name for it in operator schemas.
        largest: The largest finite number.
        smallest: The smallest number that has all its digits.
        unit: Unit roundoff: the largest relative error of rounding to it, half the distance from 1 to the next number.
        opset: The first operator set in which convolutions and pools take it.
    """

    name: str
    element: int
    onnx_type: str
    largest: float
    smallest: float
    unit: float
    opset: int

    def rounded(self, values: NDArray[np.float32]) -> NDArray[np.generic]:
        """Returns the values in this format, rounded to nearest."""
        kind = np.float16 if self.name == "float16" else ml_dtypes.bfloat16
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray(values).astype(kind)


HALF_FORMATS: dict[str, HalfFormat] = {
    "float16": HalfFormat("float16", TensorProto.FLOAT16, "tensor(float16)", 65504.0, 2.0**-14, 2.0**-11, 13),
    "bfloat16": HalfFormat(
        "bfloat16", TensorProto.BFLOAT16, "tensor(bfloat16)", 3.3895313892515355e38, 2.0**-126, 2.0**-8, 22
    ),
}
