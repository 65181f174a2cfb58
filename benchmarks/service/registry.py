"""`python -m benchmarks.service.registry --out OUT`: a registry on a cluster, real models, and a node that dies.

Ten networks of four kinds are registered in a real MLflow server, half of them as PyTorch programs (`.pt2`), half as
ONNX. `shoal batch` has a server optimise them on a Ray cluster of two nodes; when two are done, the node that works is
killed as a machine dies. It ends when the batch does; a second run of the same command must do nothing.

Prints one JSON object; the exit status is 1 unless there are ten results, none twice, and none new after the second
run. The networks are not trained and the images are noise: nothing here is about accuracy.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import timm
import torch
from torch import nn

from benchmarks.coverage.networks import CifarResNet
from benchmarks.service.served import Served
from benchmarks.strategies.networks import Vgg16
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.client import Client
from tests.service.executors.cluster import RayCluster, node_of, raylet_of, worker_of
from tests.service.registries.conftest import SERVER as MLFLOW
from tests.service.registries.mlflow_models import register_onnx, register_pt2

_IMAGE = (1, 3, 32, 32)
_IMAGES = 512
_MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet-8": (lambda: CifarResNet(8), _IMAGE),
    "resnet-14": (lambda: CifarResNet(14), _IMAGE),
    "resnet-20": (lambda: CifarResNet(20), _IMAGE),
    "vgg-4": (lambda: Vgg16(4), _IMAGE),
    "vgg-8": (lambda: Vgg16(8), _IMAGE),
    "vgg-16": (lambda: Vgg16(16), _IMAGE),
    "mobilenet-35": (lambda: timm.create_model("mobilenetv2_035", num_classes=10), (1, 3, 64, 64)),
    "mixer": (
        lambda: timm.models.mlp_mixer.MlpMixer(10, img_size=32, patch_size=8, num_blocks=6, embed_dim=96),
        _IMAGE,
    ),
    "resnet-26": (lambda: CifarResNet(26), _IMAGE),
    "vgg-6": (lambda: Vgg16(6), _IMAGE),
}


def _exported(number: int, name: str) -> tuple[str, bytes]:
    """Returns the format and the bytes of a network with weights of its own."""
    build, shape = _MODELS[name]
    torch.manual_seed(number)
    network = build().train()
    with torch.no_grad():
        for _ in range(3):  # for batch norms that mean something
            network(torch.randn(8, *shape[1:]))
    program = torch.export.export(network.eval(), (torch.randn(shape),))
    buffer = io.BytesIO()
    if number % 2:
        onnx_program = torch.onnx.export(program, dynamo=True, verbose=False)
        assert onnx_program is not None
        return "onnx", onnx_program.model_proto.SerializeToString()
    torch.export.save(program, buffer)
    return "pt2", buffer.getvalue()


def _data(folder: Path, shape: tuple[int, ...]) -> Path:
    """Returns a folder of images without labels, of a network's size."""
    images = folder / f"images-{shape[-1]}"
    images.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (_IMAGES, *shape[2:], 3), dtype=np.uint8)
    np.savez(images / "train.npz", images=pixels)
    return images


@contextmanager
def _mlflow(folder: Path) -> Iterator[tuple[str, Any]]:
    """A real tracking server, its address and MLflow's own client of it."""
    from mlflow import MlflowClient

    folder.mkdir()
    command = [sys.executable, "-W", "ignore", str(MLFLOW), str(folder)]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        try:
            yield address, MlflowClient(tracking_uri=address)
        finally:
            process.kill()


def _results(client: Any) -> dict[str, int]:
    """Returns how many versions Shoal wrote for each model."""
    return {
        model.name: len(client.search_model_versions(f"name='{model.name}'"))
        for model in client.search_registered_models()
        if model.name.endswith("-shoal")
    }


def _busy(nodes: RayCluster, root: Path) -> Any:
    """Returns a node that works on a job."""
    while True:
        # Between two jobs there is none, and one that ends just now has no parents.
        with suppress(AssertionError, StopIteration, psutil.Error):
            raylet = node_of(worker_of(root))
            return next(node for node in nodes.nodes if raylet_of(node) == raylet)
        time.sleep(0.05)


def _batch(served: Served, tracking_uri: str, asked: argparse.Namespace) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "service.cli", "batch", "mlflow", "--tracking-uri", tracking_uri]
    command += ["--server", served.address, "--out", str(asked.out), "--jobs", "10"]
    command += ["--budget", asked.budget, "--no-finetune", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]
    with (asked.out / "batch.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def _jobs(served: Served) -> dict[str, dict[str, Any]]:
    with Client(served.address) as client:
        return {
            job.display_name or job.name: {
                "attempts": job.attempts,
                "state": job_pb.OptimizationJob.State.Name(job.state),
            }
            for job in client.list()
        }


def _run(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    with _mlflow(folder / "mlflow") as (address, registry), RayCluster() as cluster:
        for number, name in enumerate(_MODELS):
            kind, content = _exported(number, name)
            data = _data(folder, _MODELS[name][1])
            (register_onnx if kind == "onnx" else register_pt2)(registry, name, content, shoal__data=str(data))
        cluster.fill(2)
        settings = {"executor": "ray", "ray_address": cluster.address, "ray_node_dir": str(folder / "node")}
        with Served(folder / "state", **settings, workers=10) as served:
            start = time.monotonic()
            with _batch(served, address, asked) as first:
                while len(_results(registry)) < 2 and first.poll() is None:
                    time.sleep(0.5)
                cluster.kill(_busy(cluster, folder / "node"))
                killed = time.monotonic() - start
                first.wait()
            minutes = (time.monotonic() - start) / 60
            jobs, results = _jobs(served), _results(registry)
            start = time.monotonic()
            with _batch(served, address, asked) as second:
                second.wait()
            return {
                "budget": asked.budget,
                "minutes": round(minutes, 1),
                "node_killed_after_minutes": round(killed / 60, 1),
                "exit_status": [first.returncode, second.returncode],
                "jobs": jobs,
                "results": results,
                "second_run_seconds": round(time.monotonic() - start, 1),
                "second_run_new_jobs": len(_jobs(served)) - len(jobs),
                "second_run_new_results": sum(_results(registry).values()) - sum(results.values()),
            }


def main() -> int:
    """Runs it once, and prints one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", default="0.8x")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="shoal-registry-", ignore_cleanup_errors=True) as name:
        found = _run(asked, Path(name))
    print(json.dumps(found, indent=2))
    news = found["second_run_new_jobs"] or found["second_run_new_results"]
    once = len(found["results"]) == len(_MODELS) and set(found["results"].values()) == {1}
    return 0 if once and not news else 1


if __name__ == "__main__":
    raise SystemExit(main())
