from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deploy.agree import agree
from deploy.artifact import Artifact
from deploy.errors import DataError, ModelFileError
from deploy.export import export_onnx
from tests.deploy.networks import Residual, Spec, make_residual


def test_a_faithful_file_agrees_at_every_batch_size(artifact: Artifact, residual: Residual) -> None:
    agreement = agree(artifact, residual)
    assert agreement.passed
    assert [entry.batch for entry in agreement.batches] == [1, 3, 8]
    assert not agreement.on_samples
    for entry in agreement.batches:
        assert 0 <= entry.max_relative_error < entry.tolerance == 1e-4


class Cancelling(nn.Module):
    """Gives what a network gives, in a way that loses three digits of float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.network(x)
        return (y + 1e4 * y.abs().amax()) - 1e4 * y.abs().amax()


def test_a_file_is_not_to_blame_for_what_the_module_loses_in_float32(artifact: Artifact, residual: Residual) -> None:
    lossy = Cancelling(residual).eval()
    feed = torch.from_numpy(artifact.inputs[0].random(8, 0))
    with torch.no_grad():
        lost = (lossy(feed) - residual(feed)).abs().max() / residual(feed).abs().max()
    assert lost > 1e-4  # the oracle: the module alone is off by more than a file may be

    assert agree(artifact, lossy).passed


def test_a_file_that_is_wrong_is_seen_though_the_module_is_lossy(artifact: Artifact) -> None:
    module = make_residual()
    with torch.no_grad():
        module.head.weight *= 1.001
    agreement = agree(artifact, Cancelling(module).eval())

    assert not agreement.passed
    assert max(entry.max_relative_error for entry in agreement.batches) < 2e-3


def test_a_module_that_cannot_run_in_float64_is_compared_as_it_is(artifact: Artifact) -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = make_residual(seed=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.network(x.float())
            return result

    assert not agree(artifact, Narrow().eval()).passed


def test_another_network_does_not_agree(artifact: Artifact) -> None:
    agreement = agree(artifact, make_residual(seed=1))
    assert not agreement.passed
    assert all(entry.max_relative_error > 1e-2 for entry in agreement.batches)


def test_a_weight_that_is_off_by_one_percent_is_seen(artifact: Artifact) -> None:
    module = make_residual()
    with torch.no_grad():
        module.head.weight *= 1.01
    assert not agree(artifact, module).passed


def test_the_error_is_relative_to_the_largest_output(artifact: Artifact, residual: Residual) -> None:
    class Shifted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return residual(x) + 0.5

    (entry,) = agree(artifact, Shifted(), batches=[4]).batches
    feed = torch.from_numpy(artifact.inputs[0].random(4, 0))
    with torch.no_grad():
        largest = float((residual(feed) + 0.5).abs().max())
    assert entry.max_abs_error == pytest.approx(0.5, rel=1e-4)
    assert entry.max_relative_error == pytest.approx(0.5 / largest, rel=1e-4)


def test_not_a_number_never_agrees(artifact: Artifact) -> None:
    module = make_residual()
    with torch.no_grad():
        module.head.bias.fill_(float("nan"))
    agreement = agree(artifact, module)
    assert not agreement.passed
    assert agreement.batches[0].max_abs_error == float("inf")


def test_integers_stay_in_the_range_that_the_input_says(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(100, 4)

        def forward(self, words: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            weights = torch.where(mask[:, None] > 0, 0.0, -torch.inf).expand(-1, words.shape[1], -1).softmax(-1)
            return weights @ self.words(words)

    model = Masked().eval()
    inputs = [Spec("words", (6,), torch.int64, 90, 100), Spec("mask", (6,), torch.int64, 1, 2)]
    artifact = export_onnx(model, inputs, ["y"], tmp_path / "model.onnx")
    assert agree(artifact, model).passed
    words, mask = (spec.random(8, 0) for spec in artifact.inputs)
    assert set(words.flatten()) == set(range(90, 100))
    assert (mask == 1).all()


def test_real_samples_are_used_and_repeated(artifact: Artifact, residual: Residual) -> None:
    samples = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    agreement = agree(artifact, residual, batches=[5], samples=[samples])
    assert agreement.on_samples
    assert agreement.passed


@pytest.mark.parametrize("samples", [[], [np.zeros((0, 3, 8, 8), np.float32)]])
def test_samples_must_be_there(artifact: Artifact, residual: Residual, samples: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match="non-empty array"):
        agree(artifact, residual, samples=samples)


def test_samples_of_another_shape_are_refused(artifact: Artifact, residual: Residual) -> None:
    with pytest.raises(DataError, match=r"wants shape \(batch, 3, 8, 8\) float32, got \(1, 3, 9, 9\)"):
        agree(artifact, residual, batches=[1], samples=[np.zeros((1, 3, 9, 9), np.float32)])


def test_a_missing_file_is_told(artifact: Artifact, residual: Residual) -> None:
    with pytest.raises(ModelFileError, match="no model file"):
        agree(replace(artifact, path=artifact.path.with_name("gone.onnx")), residual)
