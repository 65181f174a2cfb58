from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.runtimes.onnxruntime_profile import read_trace


def write(path: Path, *events: tuple[str, str, int]) -> Path:
    trace: list[dict[str, Any]] = [{"cat": "Session", "name": "model_run", "dur": 99, "args": {}}]
    trace += [{"cat": "Node", "name": name, "dur": dur, "args": {"op_name": op}} for name, op, dur in events]
    path.write_text(json.dumps(trace))
    return path


def test_first_runs_do_not_count(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", *(("conv_kernel_time", "Conv", dur) for dur in (900, 800, 10, 10)))
    (layer,) = read_trace(path, skipped=2)
    assert (layer.name, layer.op, layer.seconds) == ("conv", "Conv", pytest.approx(10e-6))


@pytest.mark.parametrize("name", ["c_nchwc", "c_token_12", "c_nchwc_token_3", "c/MatMulAddFusion/", "c/GeluFusion"])
def test_names_are_those_of_the_file(tmp_path: Path, name: str) -> None:
    (layer,) = read_trace(write(tmp_path / "t.json", (f"{name}_kernel_time", "Conv", 5)), skipped=0)
    assert layer.name == "c"


def test_what_only_its_decoration_tells_apart_is_told_as_one(tmp_path: Path) -> None:
    events = [(name, "ReorderInput", 3) for name in ("R_token_1_kernel_time", "R_token_2_kernel_time")] * 2
    (layer,) = read_trace(write(tmp_path / "t.json", *events), skipped=1)
    assert layer.seconds == pytest.approx(6e-6)


def test_other_events_are_passed_over(tmp_path: Path) -> None:
    assert read_trace(write(tmp_path / "t.json", ("conv_fence_before", "Conv", 5)), skipped=0) == ()
