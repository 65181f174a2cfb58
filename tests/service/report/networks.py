"""Networks to report on: their layers, and times that were never measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from service.report.schema import (
    AccuracyReport,
    AddedReport,
    AgreementReport,
    LatencyReport,
    LayerReport,
    NetworkReport,
    ProfileReport,
)

CUT_BLOCKS = ("layer1.1", "layer2.1", "layer3.2")


def latency(median: float, seed: int, count: int = 400) -> LatencyReport:
    """Returns a distribution with a tail to the right."""
    rng = np.random.default_rng(seed)
    times = median * (1 + 0.012 * rng.standard_normal(count) + 0.02 * rng.exponential(size=count) - 0.012)
    times[:: max(2, count // 6)] *= 1 + 0.35 * rng.random(len(times[:: max(2, count // 6)]))
    p50, p90, p95, p99 = (float(value) for value in np.percentile(times, (50, 90, 95, 99)))
    return LatencyReport(
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        mean=float(times.mean()),
        min=float(times.min()),
        count=12 * count,
        samples_ms=tuple(float(value) for value in times.round(5)),
    )


def timed(network: NetworkReport) -> NetworkReport:
    """Returns the network with a profile: convolutions and additions take time, activations are part of others."""
    layers = tuple(
        layer.model_copy(update={"milliseconds": None if layer.op == "Relu" else 0.01 + layer.macs / 1e8})
        for layer in network.layers
    )
    added = (AddedReport(op="ReorderInput", count=3, milliseconds=0.021),)
    total = 0.021 + sum(layer.milliseconds or 0.0 for layer in layers)
    profile = ProfileReport(milliseconds=total, runs=30, added=added)
    return network.model_copy(update={"layers": layers, "profile": profile})


def resnet_layers(cut: tuple[str, ...] = (), blocks: int = 3) -> tuple[LayerReport, ...]:
    """Returns the operators of a small residual network; of `cut` blocks, one fitted convolution is left."""
    layers = [LayerReport(name="conv1", op="Conv", output_shape=(16, 32, 32), parameters=448, macs=442_368)]
    layers.append(LayerReport(name="relu", op="Relu", output_shape=(16, 32, 32), parameters=0, macs=0))
    number = 0
    for stage, (width, side) in enumerate(((16, 32), (32, 16), (64, 8)), start=1):
        shape = (width, side, side)
        conv = {"op": "Conv", "output_shape": shape, "parameters": 9 * width * width + width}
        conv["macs"] = 9 * width * width * side * side
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            parts = ["fitted"] if name in cut else ["conv1", "relu", "conv2", "add"]
            for part in [*parts, "relu"]:
                number += 1
                if part in ("relu", "add"):
                    kind = {"relu": "Relu", "add": "Add"}[part]
                    layers.append(
                        LayerReport(name=f"{part}_{number}", op=kind, output_shape=shape, parameters=0, macs=0)
                    )
                else:
                    layers.append(LayerReport(name=f"{name}.{part}", **conv))
    layers.append(LayerReport(name="mean", op="ReduceMean", output_shape=(64,), parameters=0, macs=0))
    layers.append(LayerReport(name="linear", op="Gemm", output_shape=(10,), parameters=650, macs=640))
    return tuple(layers)


def network(filename: str, digest: str, times: LatencyReport, top1: float | None, **changes: Any) -> NetworkReport:
    """Returns a network with its measurements."""
    layers = changes.pop("layers", resnet_layers())
    count = 10_000
    half = 0.0055
    fields: dict[str, Any] = {
        "filename": filename,
        "sha256": digest * 32,
        "size_bytes": 4 * sum(layer.parameters for layer in layers) + 9_000,
        "latency": times,
        "accuracy": None if top1 is None else AccuracyReport(top1=top1, low=top1 - half, high=top1 + half, count=count),
        "agreement": tuple(
            AgreementReport(batch=n, max_abs_error=3.1e-6 * n**0.5, max_rel_error=4e-6, tolerance=1e-3, passed=True)
            for n in (1, 3, 8)
        ),
        "parameters": sum(layer.parameters for layer in layers),
        "macs": sum(layer.macs for layer in layers),
        "depth": sum(layer.op in ("Conv", "Gemm") for layer in layers),
        "activations": sum(layer.op == "Relu" for layer in layers),
        "layers": layers,
    }
    return NetworkReport(**{**fields, **changes})
