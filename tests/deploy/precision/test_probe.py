from __future__ import annotations

import pytest

from deploy.bench import LocalBench
from deploy.errors import RuntimeMissingError
from deploy.precision.probe import probe


def test_float32_runs_everywhere_as_it_is() -> None:
    ability = probe(LocalBench("onnxruntime"), "float32")
    assert (ability.refusal, ability.computes) == (None, "float32")


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_onnx_runtime_runs_float16_and_int8(precision: str) -> None:
    ability = probe(LocalBench("onnxruntime"), precision)
    assert ability.refusal is None
    assert ability.computes in (precision, "float32")


def test_a_refusal_is_in_the_runtime_s_words() -> None:
    ability = probe(LocalBench("onnxruntime"), "bfloat16")
    # Kernels for it may come; until then the reason names what is missing.
    assert ability.refusal is None or "Conv" in ability.refusal


def test_openvino_runs_all_of_them() -> None:
    pytest.importorskip("openvino")
    assert [probe(LocalBench("openvino"), precision).refusal for precision in ("float16", "bfloat16", "int8")] == [
        None
    ] * 3


def test_a_runtime_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RuntimeMissingError):
        probe(LocalBench("nonsense"), "float16")
