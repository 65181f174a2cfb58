"""The figure of every task from files and samples alone, against values computed by hand from the same files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from sklearn.metrics import average_precision_score

from compressors.tasks import NoiseSchedule
from service.cli.accuracy import Question, score
from service.cli.errors import InputError
from service.judging.quality import AGREEMENT, RELATIVE_ERROR, Quality
from service.spec import Preprocessing

COUNT = 24
FLOAT = TensorProto.FLOAT
RAW = Preprocessing(raw=True)
Edges = dict[str, tuple[int, tuple[int, ...]]]


def written(path: Path, nodes: list[NodeProto], inputs: Edges, output: tuple[int, ...], **stored: np.ndarray) -> Path:
    """Returns a network as a file; its output is called `y`."""
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(name, kind, ["batch", *shape]) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *output])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def heads(folder: Path, seed: int) -> Path:
    """Returns a network that scores four classes."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return written(folder / f"net{seed}.onnx", nodes, {"x": (FLOAT, (6,))}, (4,), w=noise(seed, 6, 4))


def summed(folder: Path, seed: int) -> Path:
    """Returns a network of two inputs of different shapes, whose output is no class scores."""
    nodes = [
        helper.make_node("MatMul", ["left", "a"], ["p"]),
        helper.make_node("MatMul", ["right", "b"], ["q"]),
        helper.make_node("Add", ["p", "q"], ["sum"]),
        helper.make_node("Unsqueeze", ["sum", "axis"], ["y"]),
    ]
    weights = {"a": noise(seed, 5, 2), "b": noise(seed + 7, 3, 2), "axis": np.array([1])}
    inputs = {"left": (FLOAT, (5,)), "right": (FLOAT, (3,))}
    return written(folder / f"net{seed}.onnx", nodes, inputs, (1, 2), **weights)


def denoiser(folder: Path) -> Path:
    """Returns a network that calls a share of what it sees noise: the share that the timestep has of 1000."""
    nodes = [
        helper.make_node("Cast", ["timestep"], ["time"], to=FLOAT),
        helper.make_node("Div", ["time", "steps"], ["share"]),
        helper.make_node("Unsqueeze", ["share", "axes"], ["wide"]),
        helper.make_node("Mul", ["sample", "wide"], ["y"]),
    ]
    inputs = {"sample": (FLOAT, (3, 4, 4)), "timestep": (TensorProto.INT64, ())}
    stored = {"steps": np.array(1000, np.float32), "axes": np.array([1, 2, 3])}
    return written(folder / "model.onnx", nodes, inputs, (3, 4, 4), **stored)


def outputs(path: Path, *inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = dict(zip([each.name for each in session.get_inputs()], inputs, strict=True))
    (found,) = session.run(None, feeds)
    return found


def figures(question: Question) -> list[Quality]:
    found = [each.quality for each in score(question)]
    return [each for each in found if each is not None]


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_several_labels_have_a_mean_average_precision(tmp_path: Path) -> None:
    model, images = heads(tmp_path, 0), noise(9, COUNT, 6)
    targets = (noise(3, COUNT, 4) > 0).astype(np.float32)
    np.savez(tmp_path / "val.npz", images=images, labels=targets)
    (found,) = figures(Question((model,), tmp_path / "val.npz", RAW, "onnxruntime"))
    assert (found.figure.name, found.count) == ("mean average precision", COUNT)
    assert found.value == pytest.approx(average_precision_score(targets, outputs(model, images), average="macro"))


def test_a_regression_with_several_inputs_is_compared_with_the_baseline(tmp_path: Path) -> None:
    files = summed(tmp_path, 1), summed(tmp_path, 0)
    left, right = noise(1, COUNT, 5), noise(2, COUNT, 3)
    np.savez(tmp_path / "val.npz", left=left, right=right)
    question = Question(files, tmp_path / "val.npz", None, "onnxruntime")
    mine, theirs = (outputs(path, left, right) for path in files)
    changed, same = figures(question)
    assert (changed.figure, same.value) == (RELATIVE_ERROR, 0.0)
    by_hand = np.square(mine - theirs).mean() / np.square(theirs - theirs.mean(0)).mean()
    assert changed.value == pytest.approx(by_hand, rel=1e-4)
    with pytest.raises(InputError, match="give the original with --baseline, and the relative squared error"):
        score(Question(files[:1], tmp_path / "val.npz", None, "onnxruntime"))


def test_classes_without_labels_are_compared_with_the_baseline(tmp_path: Path) -> None:
    files = heads(tmp_path, 1), heads(tmp_path, 0)
    images = noise(9, COUNT, 6)
    np.savez(tmp_path / "val.npz", images=images)
    changed, same = figures(Question(files, tmp_path / "val.npz", RAW, "onnxruntime"))
    decisions = [outputs(path, images).argmax(1) for path in files]
    assert (changed.figure, same.value) == (AGREEMENT, 1.0)
    assert changed.value == pytest.approx((decisions[0] == decisions[1]).mean())


def test_a_denoiser_gets_the_noise_that_the_report_s_seed_gave(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "val.npz", images=images)
    question = Question((denoiser(tmp_path),), tmp_path / "val.npz", None, "onnxruntime")
    by_seed = []
    for seed in (0, 5):
        report = {"task": "denoising", "seed": seed, "data": {"preprocessing": {}}}
        (tmp_path / "report.json").write_text(json.dumps(report))
        (found,) = figures(question)
        assert (found.figure.name, found.figure.higher_is_better) == ("noise-prediction error", False)
        by_seed.append(found.value)
        assert found.value == pytest.approx(_error(images, seed), rel=1e-4)
    assert by_seed[0] != by_seed[1]


def _error(images: np.ndarray, seed: int) -> float:
    """Returns the mean squared error of the predicted noise, one sample after another."""
    kept, total = NoiseSchedule().kept(), 0.0
    for index, image in enumerate(images):
        clean = torch.from_numpy(image).permute(2, 0, 1).float() / 127.5 - 1
        share = (index + 1 + seed) * (np.sqrt(5) - 1) / 2 % 1.0
        time = torch.tensor([int(share * 1000)])
        drawn = torch.randn((3, 4, 4), generator=torch.Generator().manual_seed(seed * 1_000_003 + index))
        noisy = kept[time].sqrt().float() * clean + (1 - kept[time]).sqrt().float() * drawn
        total += float((noisy * time / 1000 - drawn).square().mean())
    return total / len(images)


def test_the_task_that_is_asked_for_counts_more_than_the_report(tmp_path: Path) -> None:
    files = heads(tmp_path, 1), heads(tmp_path, 0)
    np.savez(tmp_path / "val.npz", images=noise(9, COUNT, 6), labels=np.arange(COUNT) % 4)
    report = {"task": "classification", "seed": 0, "data": {"preprocessing": {}}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    told, asked = (
        figures(Question(files, tmp_path / "val.npz", RAW, "onnxruntime", task=task))[0] for task in (None, "none")
    )
    assert (told.figure.name, asked.figure) == ("top-1 accuracy", RELATIVE_ERROR)


def test_a_task_that_the_samples_contradict_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "val.npz", images=noise(9, COUNT, 6), labels=np.arange(COUNT) % 4)
    with pytest.raises(InputError, match=r"net0\.onnx is no network for the task 'multi_label'"):
        score(Question((heads(tmp_path, 0),), tmp_path / "val.npz", RAW, "onnxruntime", task="multi_label"))
