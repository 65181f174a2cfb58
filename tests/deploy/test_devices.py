from __future__ import annotations

import pytest

from deploy.devices import RUNTIME_DEVICES, DeviceName, explain_misfit, parse_device
from deploy.errors import DeviceMissingError


@pytest.mark.parametrize(
    ("name", "device"),
    [("cpu", DeviceName("cpu")), ("cuda:0", DeviceName("cuda", 0)), ("cuda:12", DeviceName("cuda", 12))],
)
def test_names_are_read_and_written_back(name: str, device: DeviceName) -> None:
    assert parse_device(name) == device
    assert str(device) == name


@pytest.mark.parametrize("name", ["", "cuda", "cuda:", "cuda:01", "cuda:-1", "CPU", "cpu:0", "cuda:0\n", "local/cpu"])
def test_other_names_are_refused_with_what_is_wanted(name: str) -> None:
    with pytest.raises(DeviceMissingError, match="wanted 'cpu' or 'cuda:N'"):
        parse_device(name)


def test_every_runtime_fits_exactly_the_kinds_that_the_table_names() -> None:
    for runtime, kinds in RUNTIME_DEVICES.items():
        for device, kind in (("cpu", "cpu"), ("cuda:0", "cuda")):
            assert (explain_misfit(runtime, device) is None) == (kind in kinds)


def test_a_misfit_names_both_and_the_choices() -> None:
    said = explain_misfit("openvino", "cuda:0")
    assert said == (
        "runtime 'openvino' cannot be used on 'cuda:0': it runs on cpu; "
        "choose onnxruntime, onnxruntime-tensorrt, tensorrt"
    )
