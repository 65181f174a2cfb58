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
    partners = _partners(plain, rounded)
    errors = _value_errors(plain, rounded, partners, feeds)
    return {
        node.name: max(
            0.0, _after(node, plain, errors) - max((errors.get(name, 0.0) for name in node.input), default=0.0)
        )
        for node in plain.graph.node
        if node.name in names
    }


def _partners(plain: onnx.ModelProto, rounded: onnx.ModelProto) -> dict[str, str]:
    """Returns what each float value of the one is called in the other, where it is there; behind its pair, if any."""
    there = {name for node in rounded.graph.node for name in node.output}
    types = element_types(plain)
    names = [name for node in plain.graph.node for name in node.output if types.get(name) == onnx.TensorProto.FLOAT]
    names += [value.name for value in plain.graph.input]
    pairs = {name: name + _SUFFIX if name + _SUFFIX in there else name for name in names}
    return {name: partner for name, partner in pairs.items() if partner in there}


def _value_errors(
    plain: onnx.ModelProto, rounded: onnx.ModelProto, partners: Mapping[str, str], feeds: Feeds
) -> dict[str, float]:
    inputs = {value.name for value in plain.graph.input}
    with TemporaryDirectory() as folder:
        first, second = (
            _exposed(model, wanted, Path(folder) / f"{index}.onnx")
            for index, (model, wanted) in enumerate(((plain, list(partners)), (rounded, list(partners.values()))))
        )
        off, size = dict.fromkeys(partners, 0.0), dict.fromkeys(partners, 0.0)
        for batch in feeds:
            mine, theirs = _outputs(first, batch), _outputs(second, batch)
            given = {spec.name: value for spec, value in zip(first.inputs, batch, strict=True)}
            for name, partner in partners.items():
                wanted = (given[name] if name in inputs else mine[name]).astype(np.float64)
                off[name] += float(np.square(theirs[partner].astype(np.float64) - wanted).sum())
                size[name] += float(np.square(wanted).sum())
    return {name: off[name] / size[name] if size[name] else 0.0 for name in partners}


def _exposed(model: onnx.ModelProto, names: Sequence[str], path: Path) -> Session:
    expose(model, element_types(model), names)
    path.write_bytes(serialise(model))
    return find_runtime(_RUNTIME).load(path, SessionSettings())


def _outputs(session: Session, batch: Sequence[Array]) -> dict[str, Array]:
    return dict(zip((spec.name for spec in session.outputs), session.run(batch), strict=True))


def _after(node: onnx.NodeProto, plain: onnx.ModelProto, errors: Mapping[str, float]) -> float:
    """Returns the error of a node's result: of the first value after it that both files have."""
    return next((errors[name] for name in _downstream(node, plain) if name in errors), 0.0)


def _downstream(node: onnx.NodeProto, plain: onnx.ModelProto) -> Iterator[str]:
    """Yields a node's result, and those of the nodes after it as long as there is one: a ReLU may be folded away."""
    name = node.output[0]
    while True:
        yield name
        users = [user for user in plain.graph.node if name in user.input]
        if len(users) != 1:
            return
        name = users[0].output[0]
