"""`python -m benchmarks.strategies.train NETWORK --data DIR --seconds S --out FILE.pt2`: trains what is to be cut.

DIR holds `train.parquet` and `test.parquet` of CIFAR-10. SGD (convolutions) or AdamW (ViT), one cycle over the time
that there is, random shifts and mirroring. Prints epochs, processor seconds and test accuracy as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from benchmarks.strategies.images import augmented, read, scaled
from benchmarks.strategies.networks import build

_BATCH = 128


def main() -> int:
    """Trains one network and writes it as a `.pt2` file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="processor seconds, one thread")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build(asked.network)
    epochs = train(model, read(asked.data, "train"), asked.seconds)
    accuracy = test(model.eval(), read(asked.data, "test"))
    shapes = ({0: Dim.AUTO},)
    torch.export.save(torch.export.export(model, (torch.zeros(2, 3, 32, 32),), dynamic_shapes=shapes), asked.out)
    facts = {"network": asked.network, "epochs": epochs, "processor_seconds": time.process_time(), "top1": accuracy}
    asked.out.with_suffix(".json").write_text(json.dumps(facts))
    print(json.dumps(facts))
    return 0


def train(model: nn.Module, data: tuple[torch.Tensor, torch.Tensor], seconds: float) -> float:
    """Trains for a processor time and returns the epochs that it was enough for."""
    images, labels = data
    generator = torch.Generator().manual_seed(0)
    attention = any(isinstance(module, nn.LayerNorm) for module in model.modules())
    parameters = model.parameters()
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(parameters, 1e-3, weight_decay=0.05)
        if attention
        else torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    )
    peak = optimizer.param_groups[0]["lr"]
    model.train().to(memory_format=torch.channels_last)
    started, steps, told = time.process_time(), 0, 0.0
    while (share := (time.process_time() - started) / seconds) < 1:
        picked = torch.randint(0, len(images), (_BATCH,), generator=generator)
        optimizer.param_groups[0]["lr"] = peak * min(share / 0.15, (1 - share) / 0.85)
        x = scaled(augmented(images[picked], generator)).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(model(x), labels[picked], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        if share - told > 0.05:
            told = share
            print(f"{100 * share:.0f} % {steps * _BATCH / len(images):.2f} epochs, loss {loss.item():.3f}", flush=True)
    return steps * _BATCH / len(images)


def test(model: nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Returns top-1 accuracy as a fraction."""
    images, labels = data
    with torch.no_grad():
        right = [
            (model(scaled(x)).argmax(1) == y).sum() for x, y in zip(images.split(500), labels.split(500), strict=True)
        ]
    return float(torch.stack(right).sum()) / len(labels)


if __name__ == "__main__":
    raise SystemExit(main())
