"""The messages are ONNX Runtime's own words, as users have reported them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from deploy.artifact import Artifact
from deploy.devices import DeviceName
from deploy.errors import DataError, DeployError, DeviceFailedError, DeviceMemoryError, EngineBuildError, ModelFileError
from deploy.runtimes.onnxruntime_failures import classify_build_failure, classify_device_failure
from deploy.runtimes.onnxruntime_session import bind_on_device, start_session

CUDA_CALL = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: /onnxruntime_src/onnxruntime/core/"
    "providers/cuda/cuda_call.cc:129 std::conditional_t<THRW, void, onnxruntime::common::Status> onnxruntime::CudaCall("
    "ERRTYPE, const char*, const char*, ERRTYPE, const char*, const char*, int) [with ERRTYPE = cudaError; bool THRW = "
    "true] "
)
OUT_OF_MEMORY = (
    CUDA_CALL + "CUDA failure 2: out of memory ; GPU=0 ; hostname=box-17 ; file=/onnxruntime_src/onnxruntime/core/"
    "providers/cuda/cuda_allocator.cc ; line=47 ; expr=cudaMalloc((void**)&p, size);"
)
ARENA = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. Name:'conv1' "
    "Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::"
    "AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size "
    "17179869184\n"
)
CUBLAS = (
    CUDA_CALL + "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=box-17 ; expr=cublasCreate(&handle_);"
)
CUDNN = CUDA_CALL + "CUDNN failure 4: CUDNN_STATUS_INTERNAL_ERROR ; GPU=0 ; hostname=box-17 ; expr=cudnnCreate(&h);"
LAUNCH = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Relu node. Name:'relu' "
    "Status Message: CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available for execution"
)
BUILD = (
    "[ONNXRuntimeError] : 11 : EP_FAIL : TensorRT EP failed to create engine from network for fused node: "
    "TensorrtExecutionProvider_TRTKernel_graph_main_1234_0_0"
)
NO_KERNEL = "[ONNXRuntimeError] : 11 : EP_FAIL : Could not find any implementation for node /conv1/Conv."
ENQUEUE = "[ONNXRuntimeError] : 1 : FAIL : TensorRT EP execution context enqueue failed."
DAMAGED = "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from net.onnx failed:Protobuf parsing failed."
SHAPE = (
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: image for the following indices\n"
    " index: 1 Got: 4 Expected: 3\n Please fix either the inputs/outputs or the model."
)


@pytest.mark.parametrize("said", [OUT_OF_MEMORY, ARENA, CUBLAS])
def test_a_lack_of_memory_is_the_machine_s(said: str) -> None:
    error = classify_device_failure(said, "loading 'net.onnx'")
    assert isinstance(error, DeviceMemoryError)
    assert str(error).startswith("the GPU is out of memory while loading 'net.onnx' (")


@pytest.mark.parametrize("said", [CUDNN, LAUNCH, ENQUEUE])
def test_a_failed_call_to_the_device_is_the_machine_s(said: str) -> None:
    assert isinstance(classify_device_failure(said, "running inputs x"), DeviceFailedError)


@pytest.mark.parametrize("said", [DAMAGED, SHAPE, CUDNN.replace("INTERNAL_ERROR", "NOT_SUPPORTED")])
def test_what_tells_nothing_of_the_device_stays_the_caller_s(said: str) -> None:
    assert classify_device_failure(said, "loading") is None
    assert classify_build_failure(said, "loading", shares_memory=True, workspace_bytes=1) is None


@pytest.mark.parametrize("said", [OUT_OF_MEMORY, ARENA, CUBLAS, CUDNN, BUILD])
def test_neither_the_host_nor_the_library_s_sources_are_told(said: str) -> None:
    error = str(classify_build_failure(said, "loading 'net.onnx'", shares_memory=False, workspace_bytes=1))
    assert "box-17" not in error
    assert "/onnxruntime_src" not in error


@pytest.mark.parametrize(
    ("said", "shares_memory", "kind"),
    [
        (BUILD, False, EngineBuildError),
        (f"{BUILD}\n{OUT_OF_MEMORY}", False, DeviceMemoryError),
        (NO_KERNEL, False, EngineBuildError),
        (NO_KERNEL, True, DeviceMemoryError),
        (OUT_OF_MEMORY, False, DeviceMemoryError),
        (CUDNN, False, DeviceFailedError),
    ],
)
def test_a_build_that_fails_in_tensorrt_is_told_as_by_the_runtime_of_that_name(
    said: str, shares_memory: bool, kind: type[DeployError]
) -> None:
    assert type(classify_build_failure(said, "loading", shares_memory, 1 << 30)) is kind


def test_a_session_that_cannot_start_is_explained_before_the_file_is_blamed(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(DeviceMemoryError, match=r"loading 'broken\.onnx'"):
        start_session(
            onnxruntime, path, None, ["CPUExecutionProvider"], lambda _, doing: classify_device_failure(ARENA, doing)
        )
    with pytest.raises(ModelFileError, match=r"cannot load 'broken\.onnx'"):
        start_session(onnxruntime, path, None, ["CPUExecutionProvider"], classify_device_failure)


def test_inputs_that_cannot_be_bound_are_an_error_of_ours(artifact: Artifact) -> None:
    # The binding is the same on every device; the processor is one that is everywhere.
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    feed = {"image": np.zeros((1, 1, 1, 1), np.float32)}
    with pytest.raises(DataError, match=r"image \(1, 1, 1, 1\) float32"):
        bind_on_device(onnxruntime, session, feed, DeviceName("cpu"))()
