from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from deploy.artifact import Artifact
from deploy.devices import DeviceName
from deploy.errors import DeviceMissingError, RuntimeMissingError
from deploy.runtimes import SessionSettings, find_runtime
from deploy.runtimes.onnxruntime_cuda import check_providers, list_providers
from deploy.runtimes.onnxruntime_session import bind_on_device
from tests.deploy.gpus import needs_cuda_provider, needs_gpu

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.mark.skipif(HAS_CUDA, reason="the ONNX Runtime installed here has a CUDA provider")
def test_a_build_without_the_provider_is_refused_and_not_run_on_the_processor(artifact: Artifact) -> None:
    with pytest.raises(RuntimeMissingError, match=r"no CUDAExecutionProvider, only .*shoal\[cuda\]"):
        find_runtime("onnxruntime", "cuda:0").load(artifact.path, SessionSettings(device="cuda:0"))


def test_a_session_that_fell_back_is_refused_with_the_reason() -> None:
    with pytest.raises(RuntimeMissingError, match=r"could not start CUDA.* run on CPUExecutionProvider instead"):
        check_providers(["CPUExecutionProvider"], "CUDAExecutionProvider", "cuda")


def test_the_device_is_asked_for_by_number_and_tf32_is_off() -> None:
    (name, options), processor = list_providers(SessionSettings(device="cuda:2"))
    assert (name, processor) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["device_id"] == "2"  # type: ignore[index]
    assert options["use_tf32"] == "0"  # type: ignore[index]


def test_a_bound_run_computes_the_same_and_anew_each_time(artifact: Artifact) -> None:
    # The binding is the same on every device; the processor is one that is everywhere.
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    feed = {"image": artifact.inputs[0].random(2, 0)}
    run = bind_on_device(onnxruntime, session, feed, DeviceName("cpu"))
    (wanted,) = session.run(None, feed)
    for _ in range(2):
        (output,) = run()
        np.testing.assert_array_equal(output.numpy(), wanted)


@needs_gpu
@needs_cuda_provider
def test_it_computes_what_the_processor_computes(artifact: Artifact) -> None:
    session = find_runtime("onnxruntime", "cuda:0").load(artifact.path, SessionSettings(device="cuda:0"))
    assert session.describe().providers[0] == "CUDAExecutionProvider"
    assert session.describe().device == "cuda:0"
    feed = [session.inputs[0].random(3, 0)]
    (wanted,) = find_runtime("onnxruntime").load(artifact.path, SessionSettings()).run(feed)
    (bound,) = session.bind(feed)()  # type: ignore[misc]
    for got in (session.run(feed)[0], bound.numpy()):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@needs_cuda_provider
def test_a_gpu_that_is_not_there_is_refused(artifact: Artifact) -> None:
    with pytest.raises(DeviceMissingError, match="cuda:99"):
        find_runtime("onnxruntime", "cuda:99").load(artifact.path, SessionSettings(device="cuda:99"))
