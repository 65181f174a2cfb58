"""What devices are called, and which runtime runs on which kind. Pure: the machine is not asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from deploy.errors import DeviceMissingError

DEVICE = r"(cpu|cuda:(0|[1-9][0-9]{0,2}))"
"""The names of devices of one machine, as a regular expression without anchors."""

RUNTIME_DEVICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "onnxruntime": ("cpu", "cuda"),
        "onnxruntime-tensorrt": ("cuda",),
        "openvino": ("cpu",),
        "tensorrt": ("cuda",),
    }
)
"""The kinds of devices that each runtime runs on: what the registry holds, for those who must not import a runtime."""


@dataclass(frozen=True)
class DeviceName:
    """A device of this machine.

    Attributes:
        kind: `cpu` or `cuda`.
        index: Which one of its kind, from 0.
    """

    kind: str
    index: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


def parse_device(name: str) -> DeviceName:
    """Returns the device called `name`.

    Raises:
        DeviceMissingError: If no device is called that.
    """
    if not re.fullmatch(DEVICE, name):
        msg = f"no device is called '{name}'; wanted 'cpu' or 'cuda:N', such as 'cuda:0'"
        raise DeviceMissingError(msg)
    kind, _, index = name.partition(":")
    return DeviceName(kind, int(index or 0))


def explain_misfit(runtime: str, device: str) -> str | None:
    """Returns why a runtime cannot be used on a device, with the choices; None where it can.

    Args:
        runtime: A registry name, or anything that a user wrote.
        device: `cpu` or `cuda:N`.
    """
    kind = parse_device(device).kind
    choices = ", ".join(sorted(name for name, kinds in RUNTIME_DEVICES.items() if kind in kinds))
    if runtime not in RUNTIME_DEVICES:
        return f"runtime '{runtime}' cannot be used: there is no runtime of that name; on '{device}' choose {choices}"
    kinds = RUNTIME_DEVICES[runtime]
    if kind in kinds:
        return None
    return f"runtime '{runtime}' cannot be used on '{device}': it runs on {' and '.join(kinds)}; choose {choices}"
