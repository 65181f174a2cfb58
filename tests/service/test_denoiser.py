"""Whole jobs on a small denoising U-Net: noise-prediction loss, time embedding, attention, skip concatenations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from benchmarks.strategies.denoiser import Denoiser, Shape, export, train
from compressors.tasks.noise import NoiseSchedule, NoisySamples
from service.delivery.verify import verify
from service.report.schema import Report
from service.spec import ModelSource, StrategyChoice
from tests.compressors.samples import Tensors
from tests.service.runs import MODEL, QUICK, TRAIN, VALIDATION, run, write_npz

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SIZE = 8


def images(count: int, seed: int) -> np.ndarray:
    """Smooth coloured ramps, uint8 (count, 8, 8, 3): easy to tell from noise."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(-1, 1, SIZE)
    slopes = rng.normal(size=(count, 2, 1, 1, 3))
    ramps = slopes[:, 0] * axis[:, None, None] + slopes[:, 1] * axis[None, :, None] + rng.normal(size=(count, 1, 1, 3))
    return (127.5 + 60 * ramps).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learnt to tell ramps from noise, as a `.pt2` file."""
    torch.manual_seed(0)
    network = Denoiser(Shape(width=8, blocks=1, groups=4, size=SIZE))
    train(network, _scaled(images(512, 0)), seconds=8.0)
    path = tmp_path_factory.mktemp("denoiser") / "denoiser.pt2"
    export(network, SIZE, path)
    return path


def _scaled(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def job(folder: Path, model: Path, strategy: str, **options: object) -> Report:
    files = {
        MODEL: model,
        TRAIN: write_npz(folder / "train.npz", images=images(320, 1)),
        VALIDATION: write_npz(folder / "validation.npz", images=images(60, 2)),
    }
    quick = {} if options.get("parity") else QUICK
    return run(
        folder, ModelSource(pt2_artifact=MODEL), files, strategy=StrategyChoice(name=strategy, options=quick | options)
    )


def error_by_hand(file: Path) -> float:
    """The mean squared error of a shipped file's noise, computed sample by sample beside the service."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    noisy = NoisySamples(Tensors(_scaled(images(60, 2))), NoiseSchedule())
    (sample, timestep), noise = noisy.batch(range(60))
    (found,) = session.run(None, {"sample": sample.numpy(), "timestep": timestep.numpy()})
    return float(((torch.from_numpy(found) - noise) ** 2).mean())


@pytest.mark.parametrize(
    ("strategy", "options"),
    [("layer_merge", {}), ("layerfit", {}), ("layer_merge", {"parity": True})],
    ids=["layer_merge", "layerfit", "parity"],
)
def test_a_denoiser_comes_out_faster_with_its_error_measured(
    tmp_path: Path, model: Path, strategy: str, options: dict[str, object]
) -> None:
    report = job(tmp_path, model, strategy, **options)
    out = tmp_path / "job" / "out"
    assert report.task == "denoising"
    assert report.strategy == strategy
    for network in (report.baseline, report.result):
        assert network.quality is not None
        assert network.quality.figure.name == "noise-prediction error"
        assert network.quality.value == pytest.approx(error_by_hand(out / network.filename), rel=1e-3)
    assert report.baseline.quality is not None
    assert report.baseline.quality.value < 0.9
    assert report.candidates
    assert all(one.selection_quality is not None for one in report.candidates)
    assert [check for check in verify(out).checks if check.status != "ok"] == []
