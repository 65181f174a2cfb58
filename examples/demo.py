"""The main job on real input, in two to three minutes on two cores: `python -m examples.demo --out demo-output`.

Trains a 20-layer residual network on scikit-learn's scans of handwritten digits, saves it as a user would, and asks
Shoal, through the command line and the real server, for half its latency. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

SIZE = 16
MEAN, STD = 0.3, 0.35
EPOCHS, BATCH, SEED = 8, 128, 0
BUDGET_NOT_MET = 3
"""Exit status of a job that worked and whose best network is still too slow."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, as in He et al., 2016."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            projection = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, channels_in, H, W) to (N, channels_out, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def build_network() -> nn.Module:
    """Returns an untrained network for (N, 1, 16, 16) images of ten classes: stem, nine blocks, classifier."""
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for stage, width in enumerate((16, 32, 64)):
        for block in range(3):
            layers.append(ResidualBlock(channels, width, 2 if stage > 0 and block == 0 else 1))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def write_digits(folder: Path) -> None:
    """Writes `train.npz` (1,437 images) and `validation.npz` (360), uint8, 16 x 16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    scans = (digits.images * (255 / 16)).astype(np.uint8)
    images = np.stack(
        [np.asarray(Image.fromarray(scan).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for scan in scans]
    )
    order = np.random.default_rng(SEED).permutation(len(images))
    folder.mkdir(parents=True, exist_ok=True)
    for split, picked in (("train", order[:1437]), ("validation", order[1437:])):
        np.savez(folder / f"{split}.npz", images=images[picked], labels=digits.target[picked])


def train(network: nn.Module, archive: Path) -> None:
    """Trains in place with SGD and one cycle of the learning rate."""
    arrays = np.load(archive)
    images = ((torch.from_numpy(arrays["images"]).float() / 255 - MEAN) / STD).unsqueeze(1)
    labels = torch.from_numpy(arrays["labels"])
    steps = EPOCHS * -(-len(images) // BATCH)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps)
    for epoch in range(EPOCHS):
        network.train()
        for picked in torch.randperm(len(images)).split(BATCH):
            loss = F.cross_entropy(network(images[picked]), labels[picked])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"  epoch {epoch + 1}/{EPOCHS}: loss {loss.item():.3f}", flush=True)
    network.eval()


def save(network: nn.Module, path: Path) -> None:
    """Writes the trained network as a `.pt2` file that takes any batch size."""
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, (torch.zeros(2, 1, SIZE, SIZE),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)


def shoal(command: list[str]) -> int:
    """Runs a command as a user would; returns its exit status."""
    print(f"\n$ shoal {' '.join(command)}", flush=True)
    return subprocess.run([sys.executable, "-m", "service.cli", *command], check=False).returncode  # noqa: S603 - our own command


def main() -> int:
    """Runs the demo; returns the exit status of `shoal optimize`, and 0 when a busy machine made it miss the budget."""
    parser = argparse.ArgumentParser(description="Train a small network and halve its latency.")
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    out: Path = parser.parse_args().out
    started = time.monotonic()
    torch.manual_seed(SEED)
    print("Training a residual network with 20 layers on handwritten digits", flush=True)
    write_digits(out / "data")
    network = build_network()
    train(network, out / "data/train.npz")
    save(network, out / "digits.pt2")
    command = ["optimize", str(out / "digits.pt2"), "--data", str(out / "data"), "--budget", "0.5x", "--epochs", "4"]
    command += ["--mean", str(MEAN), "--std", str(STD), "--out", str(out / "result"), "--state-dir", str(out / "state")]
    status = shoal(command)
    if status in (0, BUDGET_NOT_MET):
        status = shoal(["verify", str(out / "result")]) or status
    print(f"\n{time.monotonic() - started:.0f} s in all. Open {out / 'result' / 'report.html'}")
    return 0 if status == BUDGET_NOT_MET else status


if __name__ == "__main__":
    raise SystemExit(main())
