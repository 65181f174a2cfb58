"""The whole road with nothing replaced: command, embedded server, worker, engine, export, measurement."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.service.cli.command import shoal


class Block(nn.Module):
    """A residual block that can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + x)


def write_inputs(folder: Path) -> None:
    torch.manual_seed(0)
    blocks = [Block() for _ in range(4)]
    network = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(16, 4))
    batch = {0: torch.export.Dim("batch")}
    exported = torch.export.export(network.eval(), (torch.zeros(2, 1, 16, 16),), dynamic_shapes=(batch,))
    torch.export.save(exported, folder / "net.pt2")
    generator = np.random.default_rng(0)
    (folder / "data").mkdir()
    for split, count in (("train", 400), ("validation", 40)):
        images = generator.integers(0, 256, (count, 16, 16), dtype=np.uint8)
        np.savez(folder / f"data/{split}.npz", images=images, labels=np.arange(count) % 4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_network_becomes_faster_and_measures_so_in_another_process(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    flags = ["--budget", "0.8x", "--data", "data", "--no-finetune", "--out", "out", "--json"]
    done = shoal("optimize", "net.pt2", *flags, folder=tmp_path, SHOAL_STATE_DIR=str(tmp_path / "state"))
    document = json.loads(done.stdout)
    assert (done.returncode, document["outcome"]) == (0, "BUDGET_MET"), done.stderr
    assert document["speedup"] > 1.2
    files = {"model.onnx", "baseline.onnx", "report.json", "report.html", "plan.json", "manifest.json", "run.py"}
    assert set(document["artifacts"]) == files
    assert json.loads((tmp_path / "out/report.json").read_text())["display_name"] == "net.pt2"
    checked = shoal("verify", "out", "--data", "data/validation.npz", folder=tmp_path)
    assert checked.returncode == 0, checked.stdout

    flags = ["--baseline", "out/baseline.onnx", "--data", "data/validation.npz", "--seconds", "3", "--json"]
    again = json.loads(shoal("measure", "out/model.onnx", *flags, folder=tmp_path).stdout)
    assert again["sha256"] == document["result"]["sha256"]
    assert again["speedup"] == pytest.approx(document["speedup"], rel=0.25)
    assert again["accuracy"] == document["result"]["accuracy"]
    assert again["baseline"]["accuracy"] == document["baseline"]["accuracy"]
