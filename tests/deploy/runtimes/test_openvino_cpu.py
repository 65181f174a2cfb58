from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest

from deploy.artifact import Artifact
from deploy.errors import DataError, ModelFileError
from deploy.measure.settings import TimingSettings
from deploy.measure.whole import measure
from deploy.precision.half import convert_half
from deploy.runtimes import SessionSettings, find_runtime
from deploy.runtimes.openvino_cpu import _hint


def test_a_missing_library_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from deploy.runtimes import find_runtime\n"
        "from deploy.errors import RuntimeMissingError\n"
        "try:\n    find_runtime('openvino').version()\n"
        "except RuntimeMissingError as exc:\n    print(exc)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert "pip install 'shoal[openvino]'" in done.stdout


def test_the_session_describes_itself(artifact: Artifact) -> None:
    session = find_runtime("openvino").load(artifact.path, SessionSettings(threads=2))
    assert openvino.get_version().startswith(session.describe().version)
    assert (session.describe().providers, session.describe().threads) == (("CPU",), 2)
    assert [(spec.name, spec.shape, spec.dtype) for spec in session.inputs] == [("image", (3, 8, 8), "float32")]
    assert [(spec.name, spec.shape) for spec in session.outputs] == [("logits", (3,))]
    assert session.fixed_batch is None


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_it_computes_what_onnx_runtime_computes(artifact: Artifact, batch: int) -> None:
    session, other = (find_runtime(name).load(artifact.path, SessionSettings()) for name in ("openvino", "onnxruntime"))
    feed = [session.inputs[0].random(batch, 0)]
    (wanted,) = other.run(feed)
    for (got,) in (session.run(feed), session.bind(feed)()):  # type: ignore[misc]
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_results_of_one_run_outlive_the_next(artifact: Artifact) -> None:
    session = find_runtime("openvino").load(artifact.path, SessionSettings())
    (first,) = session.run([session.inputs[0].random(2, 0)])
    kept = first.copy()
    session.run([session.inputs[0].random(2, 1)])
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ([], r"takes 1 inputs \(image\), got 0"),
        ([np.zeros((1, 3, 8, 8))], r"float32, got \(1, 3, 8, 8\) float64"),
        ([np.zeros((3, 8, 8), np.float32)], r"got \(3, 8, 8\) float32"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(artifact: Artifact, feed: list[np.ndarray], message: str) -> None:
    session = find_runtime("openvino").load(artifact.path, SessionSettings())
    for action in (session.run, session.bind):
        with pytest.raises(DataError, match=message):
            action(feed)


@pytest.mark.parametrize("content", [b"", b"garbage" * 50])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"cannot load 'bad\.onnx'"):
        find_runtime("openvino").load(path, SessionSettings())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no model file"):
        find_runtime("openvino").load(tmp_path / "none.onnx", SessionSettings())


def test_it_is_timed_in_a_process_of_its_own(artifact: Artifact) -> None:
    (timed,) = measure([artifact.path], TimingSettings(runtime="openvino", min_seconds=0.2, processes=1))
    assert timed.runtime.name == "openvino"
    assert 0 < timed.distribution.p50 <= timed.distribution.p99


@pytest.mark.parametrize(("precision", "hint", "ability"), [("float16", "f16", "FP16"), ("bfloat16", "bf16", "BF16")])
def test_a_half_precision_file_is_computed_in_its_format_where_the_processor_has_it(
    artifact: Artifact, tmp_path: Path, precision: str, hint: str, ability: str
) -> None:
    core, path = openvino.Core(), tmp_path / "half.onnx"
    convert_half(artifact.path, path, precision)
    able = ability in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert _hint(core, core.read_model(str(path))) == (hint if able else "f32")
    assert _hint(core, core.read_model(str(artifact.path))) == "f32"
