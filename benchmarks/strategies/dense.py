"""`python -m benchmarks.strategies.dense --data DIR --minutes M --out DIR`: networks that were never cut.

What the same minutes give without cutting: smaller ResNets trained from nothing on one core, each written as ONNX and
timed beside the network that the strategies were given (`--baseline`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.strategies.images import read
from benchmarks.strategies.networks import build
from benchmarks.strategies.train import test, train
from compressors.graph import TensorSpec
from deploy.export import export_onnx


def main() -> int:
    """Trains, exports and times each network, and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--baseline", type=Path, required=True, help="ONNX file")
    parser.add_argument("--networks", nargs="+", default=["resnet-14", "resnet-8"])
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    training, testing = (read(asked.data, split) for split in ("train", "test"))
    print("| network | speed-up | top-1 % | epochs | minutes |\n|---|---|---|---|---|")
    for name in asked.networks:
        torch.manual_seed(0)
        model = build(name)
        epochs = train(model, training, 60 * asked.minutes)
        accuracy = test(model.eval(), testing)
        file = asked.out / f"{name}.onnx"
        export_onnx(model.to(memory_format=torch.contiguous_format), [TensorSpec("x", (3, 32, 32))], ["y"], file)
        command = [
            sys.executable,
            "-m",
            "service.cli",
            "measure",
            str(file),
            "--baseline",
            str(asked.baseline),
            "--json",
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        speedup = json.loads(done.stdout)["speedup"]
        print(f"| {name} | {speedup:.2f} | {100 * accuracy:.2f} | {epochs:.2f} | {asked.minutes:g} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
