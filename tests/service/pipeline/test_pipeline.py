"""Whole jobs, from a model and samples to files and a report, one for each kind of network."""

from __future__ import annotations

import json
import math
from pathlib import Path

import diffusers
import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from compressors.errors import OptionError
from service.cli.accuracy import Question, score
from service.delivery.verify import verify
from service.report.schema import Report
from service.spec import ModelSource, Preprocessing
from tests.service.data.made import write_tokenizer, zip_of
from tests.service.runs import MODEL, TRAIN, VALIDATION, run, write_npz, write_pt2

RAW = Preprocessing(raw=True)
CLASSES = 6
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def check_again(report: Report, folder: Path, split: Path, tokenizer: Path | None = None) -> None:
    """Checks that who measures the delivered files on the same samples gets the report's figures."""
    out = folder / "job" / "out"
    files = (out / "model.onnx", out / "baseline.onnx")
    for network, found in zip(
        (report.result, report.baseline),
        score(Question(files, split, None, "onnxruntime", tokenizer=tokenizer)),
        strict=True,
    ):
        assert network.quality is not None
        assert found.quality is not None
        assert (found.quality.figure.name, found.quality.count) == (network.quality.figure.name, network.quality.count)
        assert found.quality.value == pytest.approx(network.quality.value, rel=1e-6)


def outputs(report_folder: Path, name: str, *inputs: np.ndarray) -> list[np.ndarray]:
    """Runs a shipped file by hand."""
    session = onnxruntime.InferenceSession(report_folder / "job" / "out" / name, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([each.name for each in session.get_inputs()], inputs, strict=True)))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Pictures(nn.Module):
    """Residual blocks with one head, or two: classes and a box."""

    def __init__(self, heads: int = 1, blocks: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), *(Residual(16) for _ in range(blocks)))
        self.classes, self.box = nn.Linear(64, CLASSES), nn.Linear(64, 4) if heads == 2 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        pooled = F.adaptive_avg_pool2d(self.body(x), 2).flatten(1)
        scores = self.classes(pooled)
        return scores if self.box is None else {"pred_boxes": self.box(pooled).sigmoid(), "logits": scores}


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise in which one channel varies more in one half; the class says which of both."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = rng.standard_normal((count, 3, 16, 16)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[label % 3, :, 8 * (label // 3) : 8 * (label // 3) + 8] *= 3.0
    return images, labels


def trained(network: Pictures, steps: int = 30) -> Pictures:
    images, labels = (torch.from_numpy(part) for part in pictures(256, 7))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(steps):
        found = network(images)
        loss = F.cross_entropy(found["logits"] if isinstance(found, dict) else found, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def picture_job(folder: Path, network: Pictures, **changes: object) -> Report:
    (images, labels), (held, wanted) = pictures(320, 1), pictures(60, 2)
    files = {
        MODEL: write_pt2(network, folder / "net.pt2", torch.randn(2, 3, 16, 16)),
        TRAIN: write_npz(folder / "train.npz", images=images, labels=labels),
        VALIDATION: write_npz(folder / "validation.npz", images=held, labels=wanted),
    }
    return run(folder, ModelSource(pt2_artifact=MODEL), files, preprocessing=RAW, **changes)


def test_images_are_classified_by_a_faster_file_whose_accuracy_is_its_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    report = picture_job(tmp_path, trained(Pictures()))
    assert report.outcome in ("BUDGET_MET", "BUDGET_NOT_MET", "NO_IMPROVEMENT")
    images, labels = pictures(60, 2)
    for network in (report.baseline, report.result):
        (scores,) = outputs(tmp_path, network.filename, images)
        assert network.accuracy is not None
        assert network.accuracy.top1 == pytest.approx((scores.argmax(1) == labels).mean())
        assert network.quality is not None
        assert (network.quality.figure.name, network.quality.value) == ("top-1 accuracy", network.accuracy.top1)
    assert report.baseline.accuracy is not None
    assert report.baseline.accuracy.top1 > 0.9
    assert (report.task, report.divergence_unit) == ("classification", "nats")
    assert all(c.selection_quality == c.selection_accuracy for c in report.candidates)
    out = tmp_path / "job" / "out"
    assert {path.name for path in out.iterdir()} >= {"report.html", "plan.json", "model.onnx", "run.py"}
    assert [check for check in verify(out).checks if check.status != "ok"] == []
    assert report.result.profile is not None
    assert any(layer.milliseconds for layer in report.result.layers)
    check_again(report, tmp_path, tmp_path / "validation.npz")


def test_two_heads_are_cut_together_and_judged_by_the_one_with_labels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    report = picture_job(tmp_path, trained(Pictures(heads=2)))
    assert report.task == "classification"
    images, labels = pictures(60, 2)
    for network in (report.baseline, report.result):
        _, scores = outputs(tmp_path, network.filename, images)
        assert network.accuracy is not None
        assert network.accuracy.top1 == pytest.approx((scores.argmax(1) == labels).mean())
    assert report.candidates
    assert all(c.divergence is not None and math.isfinite(c.divergence) for c in report.candidates)
    assert report.divergence_unit.startswith("nats (logits) and of the original's variance")
    check_again(report, tmp_path, tmp_path / "validation.npz")


def test_texts_are_classified_by_a_small_bert(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=10, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16, num_labels=2,
    )  # fmt: skip
    folder = write_tokenizer(tmp_path / "m")
    transformers.BertForSequenceClassification(config).eval().save_pretrained(folder)
    files = {MODEL: zip_of(folder, tmp_path / "m.zip")}
    for name, count in ((TRAIN, 80), (VALIDATION, 30)):
        rows = [{"text": ("good " if n % 2 else "bad ") + "film " * (n % 3), "label": n % 2} for n in range(count)]
        files[name] = tmp_path / f"{name.rpartition('/')[2]}.jsonl"
        files[name].write_text("\n".join(map(json.dumps, rows)))
    report = run(tmp_path, ModelSource(folder_artifact=MODEL), files)
    assert report.task == "classification"
    assert [each.name for each in report.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert report.result.accuracy is not None
    assert report.result.accuracy.count == 30
    assert report.candidates
    check_again(report, tmp_path, files[VALIDATION], folder)


def test_a_denoiser_gets_noise_and_timesteps_and_is_judged_by_its_error(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=2, block_out_channels=(32,), norm_num_groups=8,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    model.eval().save_pretrained(tmp_path / "unet")
    rng = np.random.default_rng(0)
    files = {MODEL: zip_of(tmp_path / "unet", tmp_path / "unet.zip")}
    for name, count in ((TRAIN, 60), (VALIDATION, 20)):
        images = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        files[name] = write_npz(tmp_path / f"{name.rpartition('/')[2]}.npz", images=images)
    report = run(tmp_path, ModelSource(folder_artifact=MODEL), files, quality_floor=1e6)
    assert (report.task, report.quality_floor) == ("denoising", 1e6)
    quality = report.baseline.quality
    assert quality is not None
    assert (quality.figure.name, quality.figure.higher_is_better) == ("noise-prediction error", False)
    assert quality.count == 20
    assert report.result.quality is not None
    assert report.divergence_unit == "of the original's variance"
    assert report.data is not None
    assert report.data.preprocessing["mean"] == [0.5, 0.5, 0.5]
    check_again(report, tmp_path, files[VALIDATION])


def test_a_task_that_the_network_cannot_have_ends_the_job_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"a denoiser takes a `sample` and a `timestep`, and net takes x"):
        picture_job(tmp_path, Pictures(blocks=1), task="denoising")
