"""Which operators lose most in int8: measured, by running the quantised file beside the float32 one.

The error of a value is its squared difference between the two files over its square in the float32 one, summed over
samples. What an operator adds is the error of its result less the largest error of what it takes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import onnx

from deploy.cleaning import serialise
from deploy.errors import DataError
from deploy.modelfile import open_model
from deploy.precision.model import element_types, read_float_model
from deploy.precision.observe import Feeds, expose
from deploy.runtimes import Session, SessionSettings, find_runtime
from deploy.tensors import Array

_SUFFIX: Final = "_DequantizeLinear_Output"
"""What ONNX Runtime's quantisation library calls a value after its pair."""

_RUNTIME: Final = "onnxruntime"


def operator_errors(path: Path, quantised: Path, names: Collection[str], feeds: Feeds) -> dict[str, float]:
    """Returns the relative squared error that each operator adds, by its name in the float32 file.

    Args:
        path: The float32 file.
        quantised: What `deploy.precision.quantise` made of it.
        names: Of the quantised operators (`Converted.names`).
        feeds: Samples.

    Raises:
        ModelFileError: A file cannot be read or run.
        DataError: There are no samples, or they do not fit.
    """
    if not feeds:
        msg = "there are no samples to compare the two files on"
        raise DataError(msg)
    plain, rounded = read_float_model(path), open_model(quantised)
    partners = _partners(plain, rounded, names)
    errors = _value_errors(plain, rounded, partners, feeds)
    return {
        node.name: max(0.0, _at(node.output[0], plain, errors) - _largest(node.input, plain, errors))
        for node in plain.graph.node
        if node.name in names
    }


def _partners(plain: onnx.ModelProto, rounded: onnx.ModelProto, names: Collection[str]) -> dict[str, str]:
    """Returns what each float value of the one is called in the other, where it is there.

    Behind its pair where a quantised operator makes it, for then the pair is that operator's; else before it.
    """
    there = {name for node in rounded.graph.node for name in node.output}
    types, partners = element_types(plain), dict[str, str]()
    for node in plain.graph.node:
        for name in node.output:
            paired = node.name in names and name + _SUFFIX in there
            if types.get(name) == onnx.TensorProto.FLOAT and (paired or name in there):
                partners[name] = name + _SUFFIX if paired else name
    return partners


def _value_errors(
    plain: onnx.ModelProto, rounded: onnx.ModelProto, partners: Mapping[str, str], feeds: Feeds
) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        first, second = (
            _exposed(model, wanted, Path(folder) / f"{index}.onnx")
            for index, (model, wanted) in enumerate(((plain, list(partners)), (rounded, list(partners.values()))))
        )
        off, size = dict.fromkeys(partners, 0.0), dict.fromkeys(partners, 0.0)
        for batch in feeds:
            mine, theirs = _outputs(first, batch), _outputs(second, batch)
            for name, partner in partners.items():
                wanted = mine[name].astype(np.float64)
                off[name] += float(np.square(theirs[partner].astype(np.float64) - wanted).sum())
                size[name] += float(np.square(wanted).sum())
    return {name: off[name] / size[name] if size[name] else 0.0 for name in partners}


def _exposed(model: onnx.ModelProto, names: Sequence[str], path: Path) -> Session:
    expose(model, element_types(model), names)
    path.write_bytes(serialise(model))
    return find_runtime(_RUNTIME).load(path, SessionSettings())


def _outputs(session: Session, batch: Sequence[Array]) -> dict[str, Array]:
    return dict(zip((spec.name for spec in session.outputs), session.run(batch), strict=True))


def _largest(names: Collection[str], plain: onnx.ModelProto, errors: Mapping[str, float]) -> float:
    exact = {"", *(weight.name for weight in plain.graph.initializer), *(value.name for value in plain.graph.input)}
    return max((_at(name, plain, errors) for name in names if name not in exact), default=0.0)


def _at(name: str, plain: onnx.ModelProto, errors: Mapping[str, float]) -> float:
    """Returns the error of a value: of the first one after it that both files have."""
    return next((errors[each] for each in _downstream(name, plain) if each in errors), 0.0)


def _downstream(name: str, plain: onnx.ModelProto) -> Iterator[str]:
    """Yields a value, and those made of it as long as there is one: a ReLU may have been folded into what is before."""
    while True:
        yield name
        users = [user for user in plain.graph.node if name in user.input]
        if len(users) != 1:
            return
        name = users[0].output[0]
