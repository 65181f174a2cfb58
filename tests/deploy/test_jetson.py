from __future__ import annotations

from pathlib import Path

import pytest

from deploy.jetson import find_gpu_clock, is_jetson, read_jetson_state, read_power_mode


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MAXN\n0\n", "MAXN"),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W_6CORE\n2\n", "MODE_15W_6CORE"),
        ("", None),
        ("Error opening /var/lib/nvpmodel/status", None),
    ],
)
def test_the_power_mode_is_read(text: str, mode: str | None) -> None:
    assert read_power_mode(text) == mode


@pytest.mark.parametrize("name", ["17000000.gpu", "17000000.ga10b", "17000000.gv11b", "gpu-gpc-0"])
def test_the_clock_of_the_gpu_is_found_among_others(name: str, tmp_path: Path) -> None:
    for folder in ("15480000.nvdec", name, "bwmgr"):
        (tmp_path / folder).mkdir()
    assert find_gpu_clock(tmp_path) == tmp_path / name


def test_where_there_is_no_such_clock_none_is_found(tmp_path: Path) -> None:
    assert find_gpu_clock(tmp_path) is None
    assert find_gpu_clock(tmp_path / "missing") is None


@pytest.mark.skipif(is_jetson(), reason="this machine is a Jetson")
def test_other_machines_have_no_such_state() -> None:
    assert read_jetson_state() is None
