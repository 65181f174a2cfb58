"""What the values inside a float32 network are on samples: their ranges, and how they are spread over them.

The file is run with every value as an output, twice: the first run finds each value's smallest and largest number, the
second counts how many numbers fall into each of `BINS` equal parts between the two. Memory is that of one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from deploy.cleaning import serialise
from deploy.errors import DataError
from deploy.machine import usable_cores
from deploy.precision.keep import Ranges
from deploy.precision.model import element_types, read_float_model
from deploy.runtimes import SessionSettings, find_runtime
from deploy.tensors import Array

BINS: Final = 2048
"""Parts of a range; what calibrators have to choose between."""

_COUNTED: Final = 65_536
"""Numbers of one value that are looked at in a batch, evenly spread over it; ranges look at all of them."""

_RUNTIME: Final = "onnxruntime"

Feeds = Sequence[Sequence[Array]]
"""Batches; each has one array for each input, shape (batch, *shape)."""

Told = Callable[[float], None]
"""Is told the fraction that is done."""


@dataclass(frozen=True)
class Values:
    """The numbers of one value on samples.

    Attributes:
        low: The smallest finite one.
        high: The largest.
        counts: How many there are in each of `BINS` equal parts from `low` to `high`, (BINS,).
    """

    low: float
    high: float
    counts: NDArray[np.int64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each part, (BINS,)."""
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        return (edges[:-1] + edges[1:]) / 2


def _silent(_fraction: float) -> None:
    """Tells nobody."""


def find_ranges(path: Path, feeds: Feeds, tell: Told = _silent) -> dict[str, tuple[float, float]]:
    """Returns the smallest and largest finite number of every float value in a float32 file, inputs included.

    Args:
        path: The file.
        feeds: Samples.
        tell: Is told how far it is.

    Raises:
        ModelFileError: The file cannot be read or run.
        PrecisionError: It is not in float32.
        DataError: There are no samples, or they do not fit.
    """
    found: dict[str, tuple[float, float]] = {}
    for done, (name, values) in _run(path, feeds):
        tell(done)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = (min(low, float(finite.min())), max(high, float(finite.max())))
    return found


def count_values(path: Path, feeds: Feeds, ranges: Ranges, tell: Told = _silent) -> dict[str, Values]:
    """Returns how the numbers of every value are spread over its range.

    Args:
        path: A float32 file.
        feeds: The samples that the ranges were found on.
        ranges: What `find_ranges` found.
        tell: Is told how far it is.

    Raises:
        ModelFileError: The file cannot be read or run.
        PrecisionError: It is not in float32.
        DataError: There are no samples, or they do not fit.
    """
    counts = {name: np.zeros(BINS, np.int64) for name in ranges}
    for done, (name, values) in _run(path, feeds):
        tell(done)
        if name in ranges:
            flat = values.reshape(-1)
            thinned = flat[:: max(1, flat.size // _COUNTED)]
            counts[name] += np.histogram(thinned[np.isfinite(thinned)], BINS, _widened(*ranges[name]))[0]
    return {name: Values(*_widened(*ranges[name]), counts[name]) for name in ranges}


def _widened(low: float, high: float) -> tuple[float, float]:
    """Returns a range that can be divided into parts, for a value that is always the same or nearly so."""
    least = 1e-3 * max(abs(low), abs(high), 1e-6)
    return (low, high) if high - low >= least else (low - least, high + least)


def expose(model: onnx.ModelProto, types: Mapping[str, int], names: Sequence[str] | None = None) -> list[str]:
    """Makes outputs of a model's float values, of those called `names` only where given; returns what was added."""
    outputs = {value.name for value in model.graph.output}
    inner = [name for node in model.graph.node for name in node.output if types.get(name) == TensorProto.FLOAT]
    added = [name for name in inner if name not in outputs and (names is None or name in names)]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in added)
    return added


def _run(path: Path, feeds: Feeds) -> Iterator[tuple[float, tuple[str, Array]]]:
    """Yields every float value of every batch by its name, with the share of the batches that are done."""
    if not feeds or not all(len(part) for batch in feeds for part in batch):
        msg = "there are no samples to find the range of values on"
        raise DataError(msg)
    model = read_float_model(path)
    types = element_types(model)
    expose(model, types)
    names = [value.name for value in model.graph.output]
    inputs = [value.name for value in model.graph.input if types[value.name] == TensorProto.FLOAT]
    places = [at for at, value in enumerate(model.graph.input) if value.name in inputs]
    with TemporaryDirectory() as folder:
        exposed = Path(folder) / "exposed.onnx"
        exposed.write_bytes(serialise(model))
        session = find_runtime(_RUNTIME).load(exposed, SessionSettings(usable_cores()))
        for done, batch in enumerate(feeds, start=1):
            share = done / len(feeds)
            yield from ((share, (name, batch[at])) for name, at in zip(inputs, places, strict=True))
            outputs = zip(names, session.run(batch), strict=True)
            yield from ((share, (name, values)) for name, values in outputs if values.dtype == np.float32)
