"""A small but complete report, with the files that it speaks of and their manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from service.delivery.manifest import Manifest
from service.report.schema import Report

FILES = {"model.onnx": b"shallow" * 1000, "baseline.onnx": b"deep" * 5000, "plan.json": b"{}"}


def write_result(out: Path, job: str, *, forged: bool = False, html: str = "<p>done</p>") -> None:
    """Writes the files of a finished job into `out`."""
    for name, content in FILES.items():
        (out / name).write_bytes(content)
    if forged:
        (out / "model.onnx").write_bytes(b"something else")
    (out / "report.html").write_text(html)
    report = make_report(job)
    (out / "report.json").write_text(report.model_dump_json())
    (out / "manifest.json").write_text(make_manifest(out, report).model_dump_json())


def make_manifest(out: Path, report: Report) -> Manifest:
    """Returns the manifest of what lies in `out`."""
    entries = [
        {
            "filename": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size_bytes": path.stat().st_size,
        }
        for path in out.iterdir()
    ]
    edges = {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 3, 8, 8]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 2]}],
    }
    times = dict.fromkeys(("p50", "p90", "p95", "p99"), 1.9)
    return Manifest.model_validate(
        {
            "shoal_version": "0",
            "job": report.job,
            "created": report.created,
            "files": entries,
            "model": {
                "filename": "model.onnx",
                "sha256": report.result.sha256,
                "opset": 20,
                "precision": "float32",
                "class_output": "y",
                "labels": ["cat", "dog"],
                **edges,
            },
            "preprocessing": None,
            "task": report.task,
            "outcome": report.outcome,
            "budget": {"asked": "0.5x", "milliseconds": 2.0, "percentile": 50, "batch": 1},
            "runtime": {"name": "onnxruntime", "version": "1", "threads": 1},
            "device": {"name": "local/cpu", "description": "cpu"},
            "latency": {"baseline_ms": times, "result_ms": times, "speedup": 2.1, "speedup_interval": [2.0, 2.2]},
            "figure": None,
            "source": {"kind": "pt2", "name": "net.pt2", "sha256": None},
            "strategy": report.strategy,
            "seed": 0,
            "versions": {},
        }
    )


def make_report(job: str) -> Report:
    """Returns a report in which every field is set."""
    return Report.model_validate(
        {
            "shoal_version": "0",
            "job": job,
            "created": "2026-01-01T00:00:00Z",
            "model_name": "net",
            "model_source": "artifact",
            "model_sha256": None,
            "input_shape": [3, 8, 8],
            "outcome": "BUDGET_MET",
            "explanation": "It is within the budget.",
            "budget": {"asked": "0.5x", "milliseconds": 2.0, "percentile": 50, "batch": 1, "floor_ms": 1.0},
            "machine": {
                "device": "local/cpu",
                "description": "cpu",
                "runtime": "onnxruntime",
                "runtime_version": "1",
                "threads": 1,
                "precision": "fp32",
                "state_before": {},
                "state_after": {},
                "warnings": [],
            },
            "baseline": _network("baseline.onnx", 4.0, 0.92),
            "result": {
                **_network("model.onnx", 1.9, 0.9),
                "precision": {"precision": "float32", "computes": "float32"},
            },
            "precisions": [_tried("float32", 2.1, None), _tried("int8", None, "it is not <good> enough")],
            "speedup": {"value": 2.1, "low": 2.0, "high": 2.2, "rounds": 10},
            "strategy": "layerfit",
            "strategy_options": {},
            "steps": [],
            "candidates": [
                {
                    "label": "one",
                    "steps": [],
                    "predicted_ms": None,
                    "latency_ms": 1.9,
                    "selection_accuracy": 0.9,
                    "selection_agreement": None,
                    "divergence": 0.1,
                    "tuned": False,
                    "chosen": True,
                }
            ],
            "refusals": [{"where": "head", "code": "last", "reason": "The head stays."}],
            "tuning": None,
            "data": None,
            "accuracy_floor": None,
            "seed": 0,
            "seconds": 1.0,
            "phase_seconds": {},
            "versions": {},
            "measure_command": "shoal measure model.onnx",
            "artifacts": [
                {"filename": name, "sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
                for name, content in FILES.items()
            ],
        }
    )


def _tried(precision: str, speedup: float | None, refusal: str | None) -> dict[str, Any]:
    return {
        "precision": precision,
        "computes": precision,
        "latency_ms": None if speedup is None else 4.0 / speedup,
        "speedup": speedup,
        "selection_quality": None,
        "agreement": None,
        "divergence": None,
        "calibrator": None,
        "kept": 0,
        "operators": 3,
        "refusal": refusal,
        "chosen": refusal is None,
    }


def _network(filename: str, latency: float, top1: float) -> dict[str, Any]:
    content = FILES[filename]
    times = {"p50": latency, "p90": latency, "p95": latency, "p99": latency, "mean": latency, "min": latency}
    return {
        "filename": filename,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "latency": {**times, "count": 100, "samples_ms": [latency]},
        "accuracy": {"top1": top1, "low": top1 - 0.01, "high": top1 + 0.01, "count": 1000},
        "agreement": [],
        "parameters": 10,
        "macs": 20,
        "depth": 3,
        "activations": 2,
        "layers": [],
    }
