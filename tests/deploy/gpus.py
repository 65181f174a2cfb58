"""What tests need of a GPU, with the reason why they are skipped where there is none."""

from __future__ import annotations

import importlib.util

import onnxruntime
import pytest

from deploy.gpu import Gpu, list_gpus

needs_gpu = pytest.mark.skipif(not list_gpus(), reason="no NVIDIA GPU on this machine")
needs_cuda_provider = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="the ONNX Runtime installed here has no CUDA provider (onnxruntime-gpu has)",
)
needs_tensorrt_provider = pytest.mark.skipif(
    "TensorrtExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="the ONNX Runtime installed here has no TensorRT provider (onnxruntime-gpu has)",
)
needs_tensorrt = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is None, reason="TensorRT is not installed here, and not on the package index"
)

SERVER = Gpu(0, "NVIDIA L4", "8.9", 24 << 30, False, "580.65", "13.0", "0" * 32)
JETSON = Gpu(0, "Orin", "8.7", 8 << 30, True, None, "12.6", "1" * 32)
