"""What deploy raises. Every class says whose fault it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final


class DeployError(Exception):
    """Base of all deploy errors; the message is fit for the user."""


class ExportError(DeployError):
    """The module cannot be written as ONNX; `operator` names what stands in the way, where that is known."""

    def __init__(self, message: str, operator: str | None = None) -> None:
        super().__init__(message)
        self.operator = operator


class ModelFileError(DeployError):
    """The caller's fault: the model file is missing, damaged, or asks for something that is not allowed."""


class PrecisionError(DeployError):
    """Nobody's fault: the network cannot be written in the precision that was asked for; the message says why."""


class DataError(DeployError):
    """The caller's fault: samples or labels do not fit the model."""


class TimingSettingsError(DeployError):
    """The caller's fault: a timing setting is out of range; `field` names which one."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class RuntimeMissingError(DeployError):
    """The machine's fault: the runtime that was asked for is not installed here, or unknown."""


class MeasureError(DeployError):
    """The machine's fault: the timing process died, hung or gave no usable answer."""


class MeasureCancelledError(DeployError):
    """Nobody's fault: the caller asked the measurement to stop."""


class CacheError(DeployError):
    """The machine's fault: the latency cache cannot be opened or written."""


class DeviceMissingError(DeployError):
    """The machine's fault: the device that was asked for is not here, or no device is called that."""


class DeviceFailedError(DeployError):
    """The machine's fault: a call to the device failed."""


class DeviceMemoryError(DeployError):
    """The machine's fault: the device has too little free memory for what was asked."""


class EngineBuildError(DeployError):
    """The machine's fault: the engine builder failed, died or hung."""


class EngineOperatorError(DeployError):
    """The caller's fault: the engine builder does not know an operator; names it and its node, where they are known."""

    def __init__(self, message: str, operator: str = "", node: str = "") -> None:
        super().__init__(message)
        self.operator = operator
        self.node = node


class EngineMisfitError(DeployError):
    """The caller's fault: an engine was not built by this Shoal for this device, so it is not loaded."""


class EngineCancelledError(DeployError):
    """Nobody's fault: the caller asked the build to stop."""


class SandboxError(DeployError):
    """A process cannot be confined as it must be before it opens what a stranger sent."""


TOLD: Final[Mapping[str, type[DeployError]]] = {
    kind.__name__: kind
    for kind in (
        DataError,
        DeviceFailedError,
        DeviceMemoryError,
        DeviceMissingError,
        EngineBuildError,
        EngineCancelledError,
        EngineMisfitError,
        EngineOperatorError,
        MeasureCancelledError,
        MeasureError,
        ModelFileError,
        RuntimeMissingError,
        SandboxError,
    )
}
"""What a process of ours or an agent may answer instead of a result: by name, made anew of the message alone."""
