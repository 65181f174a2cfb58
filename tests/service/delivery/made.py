"""Delivered folders, made of real files without a job: a network of one convolution, and what belongs to it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.artifact import hash_model
from deploy.precision.half import convert_half
from service.delivery import runners
from service.delivery.manifest import FILENAME, Manifest
from service.report.schema import Report
from tests.service.report import made

NOWHERE = "local/cuda:99"
"""A device that no machine has."""

LABELS = ("cat", "dog", "fish")
RECIPE: dict[str, Any] = {
    "kind": "image",
    "input": "image",
    "color": "RGB",
    "size": [8, 8],
    "resize": [8, 8],
    "keep_proportions": True,
    "keep_exact": True,
    "interpolation": "bilinear",
    "antialias": True,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
}


def write_model(path: Path, batch: str | int = "n", bias: float = 0.0, repeat: int = 0, opset: int = 18) -> Path:
    """Writes a network that says which of three channels is brightest; the more it repeats itself, the slower."""
    weight = np.eye(3, dtype=np.float32)[:, :, None, None]
    stored = {"weight": weight, "bias": np.full(3, bias, np.float32), "axes": np.array([2, 3])}
    nodes = [helper.make_node("Conv", ["image", "weight", "bias"], ["h0"], name="conv")]
    nodes += [helper.make_node("Conv", [f"h{k}", "weight", "bias"], [f"h{k + 1}"]) for k in range(repeat)]
    nodes.append(helper.make_node("ReduceMean", [f"h{repeat}", "axes"], ["scores"], keepdims=0, name="mean"))
    graph = helper.make_graph(
        nodes,
        "brightest",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def write_half(path: Path, precision: str) -> Path:
    """Writes the same network in a half-precision format; inputs and outputs are float32."""
    plain = write_model(path.with_name("plain.onnx"), opset=22)
    convert_half(plain, path, precision)
    plain.unlink()
    return path


def claim(folder: Path, runtime: str, device: str) -> Path:
    """Makes the manifest say that the model was measured with this runtime, on this device; returns the folder."""
    document = json.loads((folder / FILENAME).read_bytes())
    document["runtime"]["name"], document["device"]["name"] = runtime, device
    (folder / FILENAME).write_text(json.dumps(document))
    return folder


def deliver(folder: Path, model: Callable[[Path], Path] = write_model, **changes: Any) -> Path:
    """Writes a folder as a job delivers it.

    Args:
        folder: Made if it does not exist.
        model: Writes `model.onnx`.
        **changes: Fields of the manifest's model entry.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model(folder / "model.onnx")
    write_model(folder / "baseline.onnx", repeat=20)
    (folder / "plan.json").write_text("{}")
    (folder / "run.py").write_bytes(runners.runner_bytes())
    write_report(folder, made.report())
    write_manifest(folder, **changes)
    return folder


def write_report(folder: Path, report: Report) -> Report:
    """Writes a report that speaks of the models in the folder."""
    networks = {
        side: network.model_copy(update=dict(zip(("sha256", "size_bytes"), hash_model(folder / name), strict=True)))
        for side, name, network in (
            ("baseline", "baseline.onnx", report.baseline),
            ("result", "model.onnx", report.result),
        )
    }
    report = report.model_copy(update=networks)
    (folder / "report.json").write_text(report.model_dump_json())
    return report


def write_manifest(folder: Path, **changes: Any) -> Manifest:
    """Writes the manifest of what lies in the folder; `changes` are fields of its model entry."""
    report = Report.model_validate_json((folder / "report.json").read_bytes())
    files = [path for path in sorted(folder.iterdir()) if path.name != FILENAME]
    fields: dict[str, Any] = {
        "filename": "model.onnx",
        "sha256": report.result.sha256,
        "opset": 18,
        "precision": "float32",
        "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 3, 8, 8]}],
        "outputs": [{"name": "scores", "dtype": "float32", "shape": ["batch", 3]}],
        "class_output": "scores",
        "labels": LABELS,
    }
    manifest = Manifest.model_validate(
        {
            "shoal_version": report.shoal_version,
            "job": report.job,
            "created": report.created,
            "files": [
                {
                    "filename": path.name,
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                    "size_bytes": path.stat().st_size,
                }
                for path in files
            ],
            "model": {**fields, **changes},
            "preprocessing": RECIPE,
            "task": report.task,
            "outcome": report.outcome,
            "budget": report.budget.model_dump(),
            "runtime": {"name": "onnxruntime", "version": "1", "threads": 1},
            "device": {"name": "local/cpu", "description": "a processor"},
            "latency": {
                "baseline_ms": {"p50": report.baseline.latency.p50},
                "result_ms": {"p50": report.result.latency.p50},
                "speedup": report.speedup.value,
                "speedup_interval": [report.speedup.low, report.speedup.high],
            },
            "figure": None,
            "source": {"kind": "onnx", "name": "bright est.onnx", "sha256": None},
            "strategy": report.strategy,
            "seed": report.seed,
            "versions": report.versions,
        }
    )
    (folder / FILENAME).write_text(manifest.model_dump_json())
    return manifest


def copy(folder: Path, to: Path) -> Path:
    """Returns a copy that may be spoiled."""
    return Path(shutil.copytree(folder, to, symlinks=True))
