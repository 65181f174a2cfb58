"""A little of what `python -m benchmarks.fuzz` does for an hour: hostile files end in an error that says why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CASES = 50


@pytest.mark.parametrize("loader", ["onnx", "pt2", "data", "tokenizer"])
def test_no_damaged_file_does_more_than_be_refused(loader: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.fuzz", "--loader", loader, "--cases", str(CASES), "--seed", "5"]
    result = subprocess.run([*command, "--out", tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["findings"] == {}
    assert summary["cases"] == CASES
    assert len(summary["counts"]) > 10  # of different outcomes
