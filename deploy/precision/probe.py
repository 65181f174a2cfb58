"""Whether a runtime runs a precision here, and what it computes in when it does: found by running a tiny network.

The network adds 1 to a number that is so large that a half-precision format cannot hold the sum, and then takes the
large number away again. What is left is 0 where intermediate results are rounded to that format, and 1 where the
runtime computes in float32 and only stores weights in half precision, as processors without half-precision units do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.bench import Bench
from deploy.cleaning import serialise
from deploy.errors import DataError, EngineBuildError, EngineOperatorError, ModelFileError, PrecisionError
from deploy.precision.half import convert_half
from deploy.precision.quantise import form_for, nominal_ranges, quantise
from deploy.tensors import Array

_LARGE: Final = {"float16": 2048.0, "bfloat16": 256.0}
"""In each format the next number after this is 2 larger."""

REFUSALS: Final = (PrecisionError, ModelFileError, EngineOperatorError)
"""What says that a runtime does not know the network in a precision; in float32 it is known to run."""

DOUBTFUL: Final = (DataError, EngineBuildError)
"""What says so only where the same network runs in float32; else something is wrong with the device."""

_CHANNELS: Final = 8
_SIDE: Final = 4


@dataclass(frozen=True)
class Ability:
    """What a runtime makes of a precision on this machine.

    Attributes:
        precision: One of `deploy.precision.PRECISIONS`.
        refusal: Why it cannot run such files; None where it can.
        computes: What it computes in: the precision, or `float32` where it only stores numbers in it.
    """

    precision: str
    refusal: str | None
    computes: str


@cache
def probe(bench: Bench, precision: str) -> Ability:
    """Returns whether a runtime runs files of a precision on its device, and how.

    Args:
        bench: The device with its runtime.
        precision: One of `deploy.precision.PRECISIONS`.

    Raises:
        RuntimeMissingError: The runtime is not installed.
        DeployError: The device failed, which says nothing about the precision: it is gone, out of memory, or busy.
    """
    bench.facts()
    if precision == "float32":
        return Ability(precision, None, precision)
    with TemporaryDirectory() as name:
        plain, path = Path(name) / "plain.onnx", Path(name) / f"{precision}.onnx"
        plain.write_bytes(serialise(_network(_LARGE.get(precision, 1.0))))
        try:
            _write(plain, path, precision, bench.runtime)
            result = _run(bench, path)
        except REFUSALS as exc:
            return Ability(precision, str(exc), precision)
        except DOUBTFUL as exc:
            _run(bench, plain)
            return Ability(precision, str(exc), precision)
    rounded = precision == "int8" or float(np.abs(result).max()) < 0.5
    return Ability(precision, None, precision if rounded else "float32")


def _write(plain: Path, to: Path, precision: str, runtime: str) -> None:
    if precision == "int8":
        quantise(plain, to, nominal_ranges(onnx.load(plain)), form_for(runtime))
    else:
        convert_half(plain, to, precision)


def _run(bench: Bench, path: Path) -> Array:
    feed = np.zeros((1, _CHANNELS, _SIDE, _SIDE), np.float32)
    ((result,),) = bench.run(path, [(feed,)], threads=1)
    return result


def _network(large: float) -> onnx.ModelProto:
    """Returns (relu(x + large + 1)) - large, by two 1x1 convolutions, so that nothing can be put together."""
    weight = np.eye(_CHANNELS, dtype=np.float32).reshape(_CHANNELS, _CHANNELS, 1, 1)
    # The first bias is itself rounded to the format, so the 1 is added in an operator of its own.
    weights = {
        "weight": weight,
        "large": np.full(_CHANNELS, large, np.float32),
        "one": np.full(_CHANNELS, 1.0, np.float32),
        "less": np.full(_CHANNELS, -large, np.float32),
    }
    shape = ("batch", _CHANNELS, _SIDE, _SIDE)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "weight", "large"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "weight", "one"], ["c"]),
            helper.make_node("Relu", ["c"], ["d"]),
            helper.make_node("Conv", ["d", "weight", "less"], ["y"]),
        ],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
