from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from deploy.artifact import Artifact
from deploy.engines.settings import Batches
from deploy.errors import RuntimeMissingError
from deploy.runtimes import SessionSettings, find_runtime
from deploy.runtimes.onnxruntime_tensorrt import _describe_inputs, make_provider_options, read_tensorrt_version
from tests.deploy.gpus import needs_gpu, needs_tensorrt_provider

SHAPES = {
    "image": ((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8)),
    "mask": ((1, 7), (4, 7), (8, 7)),
}
HAS_TENSORRT = "TensorrtExecutionProvider" in onnxruntime.get_available_providers()


@pytest.mark.skipif(HAS_TENSORRT, reason="the ONNX Runtime installed here has a TensorRT provider")
def test_a_build_without_the_provider_is_refused(artifact: Artifact) -> None:
    with pytest.raises(RuntimeMissingError, match=r"no TensorrtExecutionProvider, only .*shoal\[cuda\]"):
        find_runtime("onnxruntime-tensorrt", "cuda:0").load(artifact.path, SessionSettings(device="cuda:0"))


def test_profiles_are_written_as_the_provider_reads_them() -> None:
    options = make_provider_options(1, Path("/cache/device/file"), 1 << 28, SHAPES)
    assert options["trt_profile_min_shapes"] == "image:1x3x8x8,mask:1x7"
    assert options["trt_profile_opt_shapes"] == "image:4x3x8x8,mask:4x7"
    assert options["trt_profile_max_shapes"] == "image:8x3x8x8,mask:8x7"


def test_candidates_share_the_timing_cache_and_not_the_engines() -> None:
    one, other = (make_provider_options(0, Path("/cache/device") / name, 1, {}) for name in ("one", "other"))
    assert one["trt_timing_cache_path"] == other["trt_timing_cache_path"]
    assert one["trt_engine_cache_path"] != other["trt_engine_cache_path"]


def test_no_precision_is_switched_on_and_a_fixed_file_has_no_profile() -> None:
    options = make_provider_options(0, Path("/cache/device/file"), 1, {})
    assert not [name for name in options if "fp16" in name or "int8" in name or "bf16" in name or "profile" in name]


def test_the_open_batch_of_a_file_is_found(artifact: Artifact) -> None:
    found = _describe_inputs(onnxruntime, artifact.path, Batches(1, 4, 8))
    assert found == {"image": ((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))}


@pytest.mark.parametrize("content", [None, b"no library is named here", b"\0libnvinfer.so.999\0"])
def test_a_tensorrt_that_is_not_there_has_no_version(content: bytes | None, tmp_path: Path) -> None:
    provider = tmp_path / "provider.so"
    if content is not None:
        provider.write_bytes(content)
    assert read_tensorrt_version(provider) is None


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine to stand a library in with")
def test_the_version_is_that_of_the_library_that_the_provider_names(tmp_path: Path) -> None:
    source, built = tmp_path / "nvinfer.c", tmp_path / "libnvinfer.so.998"
    source.write_text("int getInferLibVersion(void) { return 101303; }")
    # Once loaded, a library is found by its name, as TensorRT's is where its Python package was imported.
    subprocess.run(["cc", "-shared", "-o", built, source, "-Wl,-soname,libnvinfer.so.998"], check=True)
    ctypes.CDLL(str(built))
    provider = tmp_path / "provider.so"
    provider.write_bytes(b"\0libcudart.so.12\0libnvinfer.so.998\0")
    assert read_tensorrt_version(provider) == "10.13.3"


@needs_tensorrt_provider
def test_its_version_names_tensorrt_s() -> None:
    assert "+tensorrt." in find_runtime("onnxruntime-tensorrt", "cuda:0").version()


@needs_gpu
@needs_tensorrt_provider
def test_it_computes_what_the_processor_computes(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runtime = find_runtime("onnxruntime-tensorrt", "cuda:0")
    session = runtime.load(artifact.path, SessionSettings(device="cuda:0", batch=4))
    assert session.describe().providers[0] == "TensorrtExecutionProvider"
    feed = [session.inputs[0].random(4, 0)]
    (wanted,) = find_runtime("onnxruntime").load(artifact.path, SessionSettings()).run(feed)
    np.testing.assert_allclose(session.run(feed)[0], wanted, rtol=0, atol=1e-2 * np.abs(wanted).max())
