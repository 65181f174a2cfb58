"""The runtimes that Shoal can run and time models on. The registry is explicit: one line per runtime."""

from __future__ import annotations

from deploy.devices import explain_misfit, parse_device
from deploy.errors import RuntimeMissingError
from deploy.runtimes.base import LayerTime, Runtime, RuntimeInfo, Session, SessionSettings
from deploy.runtimes.onnxruntime_cpu import OnnxRuntimeCpu
from deploy.runtimes.onnxruntime_cuda import OnnxRuntimeCuda
from deploy.runtimes.onnxruntime_tensorrt import OnnxRuntimeTensorRt
from deploy.runtimes.openvino_cpu import OpenVinoCpu
from deploy.runtimes.tensorrt_engine import TensorRtEngine

_ALL: tuple[Runtime, ...] = (
    OnnxRuntimeCpu(),
    OnnxRuntimeCuda(),
    OnnxRuntimeTensorRt(),
    OpenVinoCpu(),
    TensorRtEngine(),
)

RUNTIMES: dict[tuple[str, str], Runtime] = {
    (runtime.name, kind): runtime for runtime in _ALL for kind in runtime.devices
}
"""By name and kind of device: one name may stand for several, as `onnxruntime` does."""

__all__ = ["RUNTIMES", "LayerTime", "Runtime", "RuntimeInfo", "Session", "SessionSettings", "find_runtime"]


def find_runtime(name: str, device: str = "cpu") -> Runtime:
    """Returns the runtime called `name` for a device. Whether its library and the device are there shows in `load`.

    Args:
        name: A registry name.
        device: `cpu` or `cuda:N`.

    Raises:
        RuntimeMissingError: If there is none, or it does not run on such a device; the message names the choices.
        DeviceMissingError: If no device is called that.
    """
    misfit = explain_misfit(name, device)
    if misfit is not None:
        raise RuntimeMissingError(misfit)
    return RUNTIMES[name, parse_device(device).kind]
