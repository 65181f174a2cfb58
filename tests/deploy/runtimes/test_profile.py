"""What runtimes tell of single operators."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.artifact import Artifact
from deploy.errors import DataError
from deploy.runtimes import LayerTime, Runtime, SessionSettings, find_runtime
from deploy.runtimes.base import layer_times

BATCH = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)


def profiled(name: str, artifact: Artifact) -> tuple[LayerTime, ...]:
    found = find_runtime(name).profile(artifact.path, SessionSettings(), [BATCH], 5)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_every_operator_has_its_time_and_its_share(name: str, artifact: Artifact) -> None:
    layers = profiled(name, artifact)
    total = sum(layer.seconds for layer in layers)
    assert total > 0
    assert all(layer.share == pytest.approx(layer.seconds / total) for layer in layers)
    assert sum(layer.op in ("Conv", "FusedConv", "Convolution") for layer in layers) == 2
    assert len({(layer.name, layer.op) for layer in layers}) == len(layers)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_inputs_that_do_not_fit_are_refused(name: str, artifact: Artifact) -> None:
    with pytest.raises(DataError):
        find_runtime(name).profile(artifact.path, SessionSettings(), [BATCH[:, :1]], 1)


def test_what_is_slow_or_fast_by_chance_does_not_count() -> None:
    (first, second) = layer_times({("a", "Conv"): [9e9, 1.0, 3.0, 0.0], ("b", "Relu"): [2.0]})
    assert (first.seconds, second.seconds) == (2.0, 2.0)
    assert first.share == 0.5


def test_a_runtime_without_profiler_tells_nothing(artifact: Artifact) -> None:
    assert Runtime.profile(find_runtime("openvino"), artifact.path, SessionSettings(), [BATCH], 1) is None
