"""Reports to draw: a realistic one, and ways to change it."""

from __future__ import annotations

from typing import Any

import numpy as np

from service.report.schema import (
    ArtifactReport,
    BudgetReport,
    CandidateReport,
    DataReport,
    EpochReport,
    MachineReport,
    RefusalReport,
    Report,
    SpeedupReport,
    StepReport,
    TuningReport,
)
from tests.service.report.networks import CUT_BLOCKS, latency, network, resnet_layers, timed


def profiled() -> Report:
    """Returns a report of a large network that says where the time goes."""
    plain = large()
    return plain.model_copy(update={"baseline": timed(plain.baseline), "result": timed(plain.result)})


def candidates(original_ms: float = 1.62) -> tuple[CandidateReport, ...]:
    """Returns what a search tried: planned, measured, fine-tuned; the last one returned."""
    rng = np.random.default_rng(3)
    tried = []
    for cuts in range(1, 8):
        predicted = original_ms * (1 - 0.088 * cuts)
        accuracy = 0.921 - 0.0042 * cuts**1.75
        tried.append(
            CandidateReport(
                label=f"layerfit: {cuts} regressed",
                steps=tuple(f"regress 3x3 relu_{2 * i}..add_{i}" for i in range(cuts)),
                predicted_ms=predicted,
                latency_ms=predicted * (1 + 0.02 * rng.standard_normal()) if cuts in (1, 2, 3, 4, 5) else None,
                selection_accuracy=accuracy,
                selection_agreement=accuracy + 0.04,
                divergence=0.01 * cuts**1.6,
                tuned=False,
                chosen=False,
            )
        )
    last = tried[3].model_copy(
        update={
            "label": "layerfit: 4 regressed, fine-tuned",
            "selection_accuracy": 0.9144,
            "selection_agreement": 0.951,
            "divergence": 0.041,
            "tuned": True,
            "chosen": True,
        }
    )
    return (*tried, last)


def tuning() -> TuningReport:
    """Returns two epochs of fine-tuning, with one rollback."""
    scores = ((0.0, 2.1, 0.879, 0.11), (0.5, 1.62, 0.898, 0.071), (1.0, 1.41, 0.894, 0.076), (1.5, 1.2, 0.908, 0.052))
    history = [
        EpochReport(epoch=epoch, loss=loss, selection_accuracy=accuracy, divergence=divergence, kept=accuracy != 0.894)
        for epoch, loss, accuracy, divergence in (*scores, (2.0, 1.13, 0.9144, 0.041))
    ]
    return TuningReport(
        epochs=2.0,
        learning_rate=0.004,
        learning_rates_tried=(0.002, 0.004, 0.008),
        precision="bf16, channels last",
        seconds=97.3,
        history=tuple(history),
    )


def refusals() -> tuple[RefusalReport, ...]:
    """Returns refusals of several kinds, one of them many times."""
    shape = "The stretch changes the number of channels and the size at once."
    return (
        *(RefusalReport(where=f"layer{stage}.0", code="not-shape-preserving", reason=shape) for stage in range(1, 10)),
        RefusalReport(where="linear", code="classifier", reason="The classifier's output is the model's output."),
        RefusalReport(
            where="mean",
            code="no-operator",
            reason="The stretch mean to linear holds no operator.",
        ),
        RefusalReport(where="relu_3", code="no-operator", reason="The stretch relu_3 to relu_3 is empty."),
    )


STATE: dict[str, Any] = {
    "mhz": [2100.0, 2100.01, 2099.9, 2101.5, 2100.0, 2100.2],
    "governor": None,
    "load_average": [0.42, 0.51, 0.44],
    "temperature_celsius": 54.0,
}


def report(**changes: Any) -> Report:
    """Returns a realistic report with some top-level fields changed."""
    fields: dict[str, Any] = {
        "shoal_version": "0.1.0",
        "job": "optimizationJobs/0f3a9c52d1",
        "created": "2025-11-21T09:14:05+00:00",
        "model_name": "resnet20_cifar10",
        "model_source": "a .pt2 file",
        "model_sha256": "5e" * 32,
        "input_shape": (3, 32, 32),
        "outcome": "BUDGET_MET",
        "explanation": "The budget is met: 1.047 ms at p50, budget 1.134 ms. "
        "Speed-up 1.55x (95 % interval 1.53 to 1.57).",
        "budget": BudgetReport(asked="0.7x", milliseconds=1.134, percentile=50.0, batch=1, floor_ms=0.512),
        "machine": MachineReport(
            device="local/cpu",
            description="Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz, 2 cores, x86_64, Linux 6.1",
            runtime="onnxruntime",
            runtime_version="1.23.2",
            threads=1,
            precision="fp32",
            state_before=STATE,
            state_after={**STATE, "load_average": [1.02, 0.61, 0.47]},
            warnings=("the hypervisor gave 3 % of the processor time to others",),
        ),
        "baseline": network("baseline.onnx", "b1", latency(1.62, 1), 0.9172),
        "result": network("model.onnx", "c2", latency(1.047, 2), 0.9105, layers=resnet_layers(CUT_BLOCKS)),
        "speedup": SpeedupReport(value=1.547, low=1.531, high=1.566, rounds=40),
        "strategy": "layerfit",
        "strategy_options": {"refit": True},
        "steps": tuple(
            StepReport(
                kind="regress",
                segment=name,
                label=f"regress 3x3 relu_{index}..add_{index}",
                operators_before=2,
                activations_before=1,
            )
            for index, name in enumerate(CUT_BLOCKS)
        ),
        "candidates": candidates(),
        "refusals": refusals(),
        "tuning": tuning(),
        "data": DataReport(
            train=50_000,
            calibration=2048,
            selection=5000,
            validation=10_000,
            labelled=True,
            classes=10,
            broken=3,
            broken_examples=("data.train: cat/<7>.png: image file is truncated",),
            preprocessing={
                "sample_shape": [3, 32, 32],
                "resize": None,
                "crop_fraction": 1.0,
                "interpolation": "bilinear",
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "raw": False,
                "origin": {"mean": "job", "std": "job", "interpolation": "default"},
            },
        ),
        "accuracy_floor": 0.9,
        "seed": 17,
        "seconds": 231.7,
        "phase_seconds": {"load": 6.2, "analyze": 0.3, "baseline": 11.9, "plan": 83.4, "tune": 97.3, "measure": 30.1},
        "versions": {"python": "3.11.9", "torch": "2.14.1", "onnxruntime": "1.23.2"},
        "measure_command": "shoal measure model.onnx --baseline baseline.onnx --batch 1 --threads 1 --percentile 50",
        "artifacts": (
            ArtifactReport(filename="baseline.onnx", sha256="b1" * 32, size_bytes=1_088_389),
            ArtifactReport(filename="model.onnx", sha256="c2" * 32, size_bytes=812_345),
        ),
    }
    return Report(**{**fields, **changes})


def unimproved() -> Report:
    """Returns a report whose result is the original."""
    original = report().baseline
    return report(
        outcome="NO_IMPROVEMENT",
        explanation="No faster network was found within the time limit. The original is returned.",
        result=original.model_copy(update={"filename": "model.onnx"}),
        speedup=SpeedupReport(value=1.0, low=1.0, high=1.0, rounds=40),
        steps=(),
        candidates=tuple(c.model_copy(update={"chosen": False}) for c in candidates(1.8)[:2]),
        tuning=None,
        accuracy_floor=None,
    )


def unlabelled() -> Report:
    """Returns a report without labels anywhere, and without fine-tuning."""
    given = report()
    assert given.data is not None
    return report(
        baseline=given.baseline.model_copy(update={"accuracy": None}),
        result=given.result.model_copy(update={"accuracy": None}),
        candidates=tuple(c.model_copy(update={"selection_accuracy": None}) for c in candidates()),
        data=given.data.model_copy(update={"labelled": False, "validation": 0, "classes": None}),
        tuning=None,
        accuracy_floor=None,
    )


def bare() -> Report:
    """Returns a report with everything missing that may be."""
    return unimproved().model_copy(
        update={
            "candidates": (),
            "refusals": (),
            "data": None,
            "model_sha256": None,
            "versions": {},
            "phase_seconds": {},
            "budget": BudgetReport(asked="0.1ms", milliseconds=0.1, percentile=75.0, batch=1, floor_ms=None),
            "baseline": network("baseline.onnx", "b1", latency(1.6, 1, 8), None, agreement=(), layers=()),
            "result": network("model.onnx", "b1", latency(1.6, 1, 8), None, agreement=(), layers=()),
        }
    )


def large() -> Report:
    """Returns a report of a deep network with long names and many candidates."""
    tail = ".backbone.stage.wrapped_module._orig_mod.residual_branch.convolution_with_a_long_name" * 2
    before = tuple(layer.model_copy(update={"name": layer.name + tail}) for layer in resnet_layers(blocks=24))
    cut = tuple(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(2, 24, 3))
    after = tuple(layer.model_copy(update={"name": layer.name + tail}) for layer in resnet_layers(cut, blocks=24))
    return report(
        model_name="a_rather_long_model_name_" * 6,
        outcome="BUDGET_NOT_MET",
        explanation="The budget was not met: 14.81 ms at p99, budget 9.72 ms. The best network found is 1.21x.",
        budget=BudgetReport(asked="0.6x", milliseconds=9.72, percentile=99.0, batch=8, floor_ms=9.9),
        baseline=network("baseline.onnx", "b1", latency(16.2, 1), 0.9172, layers=before),
        result=network("model.onnx", "c2", latency(13.4, 2), 0.8105, layers=after),
        candidates=(*(c for step in range(8) for c in candidates(16.2 + 0.2 * step)[:-1]), candidates(16.2)[-1]),
        steps=tuple(
            StepReport(
                kind="remove",
                segment=name + tail,
                label=f"remove relu..{name}",
                operators_before=2,
                activations_before=2,
            )
            for name in cut
        ),
    )
