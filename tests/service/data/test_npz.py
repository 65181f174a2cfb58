"""NumPy archives."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.data import DataError, ResolvedPreprocessing, check_against
from tests.service.data.made import PLAIN, pixels, png
from tests.service.data.opened import RAW, expected, opened, refusal, save, stack


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 1, 2)])
@pytest.mark.parametrize(("image", "label"), [("images", "labels"), ("x", "y")])
def test_npz_in_either_layout(tmp_path: Path, order: tuple[int, ...], image: str, label: str):
    file = save(tmp_path / "blob", **{image: stack(4).transpose(order), label: np.array([0, 1, 1, 0])})
    split = opened(file, tmp_path)
    assert torch.equal(split.batch(range(4))[0][0], expected([0, 1, 2, 3]))
    assert split.labels().tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.bool_, np.float32])
def test_npz_with_several_labels(tmp_path: Path, kind: Any):
    labels = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], kind)
    split = opened(save(tmp_path / "blob", x=stack(4), y=labels), tmp_path)
    check_against(split, 3)
    _, targets = split.batch([3, 1, 0])
    assert targets.dtype == torch.float32
    assert targets.tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 1]]
    assert split.labelled
    assert split.several
    with pytest.raises(DataError, match="vectors over 3 classes and the model has 4 outputs"):
        check_against(split, 4)


def test_npz_without_labels(tmp_path: Path):
    assert opened(save(tmp_path / "blob", images=stack(4)), tmp_path).labels().tolist() == [-1] * 4


def test_npz_of_gray_images_without_channel_axis(tmp_path: Path):
    recipe = ResolvedPreprocessing((1, 8, 8), (0.0,), (1.0,))
    file = save(tmp_path / "blob", images=stack(4, channels=1)[..., 0], labels=[0, 1, 0, 1])
    assert torch.equal(
        opened(file, tmp_path, recipe)[2][0][0], torch.from_numpy(pixels(2, channels=1)).permute(2, 0, 1) / 255
    )


def test_npz_images_of_another_size_are_resized_like_files(tmp_path: Path):
    large = opened(save(tmp_path / "blob", images=stack(2, height=20, width=30)), tmp_path)
    folder = tmp_path / "d"
    folder.mkdir()
    for seed in range(2):
        (folder / f"{seed}.png").write_bytes(png(pixels(seed, 20, 30)))
    assert torch.equal(large.batch([0, 1])[0][0], opened(folder, tmp_path).batch([0, 1])[0][0])


def test_npz_of_floating_point_is_normalised_but_not_scaled(tmp_path: Path):
    recipe = ResolvedPreprocessing((3, 8, 8), (0.5,) * 3, (0.25,) * 3)
    values = np.random.default_rng(0).random((4, 3, 8, 8))
    split = opened(save(tmp_path / "blob", images=values), tmp_path, recipe)
    np.testing.assert_allclose(split.batch([2])[0][0][0].numpy(), (values[2] - 0.5) / 0.25, atol=1e-6)


def test_npz_raw_passes_through(tmp_path: Path):
    values = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32) * 50
    split = opened(save(tmp_path / "blob", x=values, y=[0, 1, 2, 0]), tmp_path, RAW)
    assert torch.equal(split.batch([3, 0])[0][0], torch.from_numpy(values[[3, 0]]))


@pytest.mark.parametrize(
    ("arrays", "recipe", "said"),
    [
        ({"x": np.zeros((4, 3, 9, 9), np.float32)}, RAW, "[3, 9, 9] (float32) and the model takes [3, 8, 8]"),
        ({"x": np.zeros((4, 3, 9, 9), np.float32)}, PLAIN, "[3, 9, 9] (float32) and the model takes [3, 8, 8]"),
        ({"x": np.zeros((4, 5, 9, 9), np.uint8)}, PLAIN, "[5, 9, 9] (uint8) and the model takes [3, 8, 8]"),
        ({"x": np.full((4, 3, 8, 8), 2.0)}, PLAIN, "from 2 to 2"),
        ({"x": np.full((4, 3, 8, 8), np.nan)}, RAW, "not finite"),
        ({"x": np.zeros((4, 3, 8, 8), np.int64)}, PLAIN, "of type int64"),
        ({"x": np.zeros((4, 3, 8, 8), np.complex64)}, RAW, "of type complex64"),
        ({"x": np.zeros((0, 3, 8, 8), np.uint8)}, PLAIN, "no samples"),
        ({"x": stack(4), "y": np.zeros(5, np.int64)}, PLAIN, "wanted 4 integers"),
        ({"x": stack(4), "y": np.zeros(4)}, PLAIN, "type float64"),
        ({"x": stack(4), "y": np.array([0, 1, -2, 0])}, PLAIN, "go down to -2"),
        ({"x": stack(4), "y": np.full((4, 3), 2)}, PLAIN, "other values than 0 and 1"),
        ({"x": stack(4), "y": np.full((4, 3), 0.5)}, PLAIN, "other values than 0 and 1"),
        ({"x": stack(4), "y": np.zeros((4, 3), np.int64)}, PLAIN, "no class applies to any of 4 samples"),
        ({"x": stack(4), "y": np.zeros((5, 3), np.int64)}, PLAIN, "wanted 4 integers"),
        ({"x": stack(4), "y": np.zeros(4, np.int64)}, PLAIN, "one class (0)"),
        ({"pictures": stack(4)}, PLAIN, "found pictures"),
        ({"x": np.array([{}, {}], dtype=object)}, RAW, "Python objects"),
        ({"x": stack(2), "y": np.array([{}, {}], dtype=object)}, PLAIN, "Python objects"),
    ],
)
def test_npz_that_does_not_fit_is_refused(
    tmp_path: Path, arrays: dict[str, Any], recipe: ResolvedPreprocessing, said: str
):
    assert said in refusal(save(tmp_path / "blob", **arrays), tmp_path, recipe)


def test_a_damaged_npz_is_refused(tmp_path: Path):
    file = save(tmp_path / "blob", images=stack(50))
    content = bytearray(file.read_bytes())
    content[3000] ^= 0xFF
    file.write_bytes(content)
    assert "cannot read blob as .npz" in refusal(file, tmp_path)


def test_an_npz_whose_array_is_shorter_than_it_says_is_refused(tmp_path: Path):

    out = io.BytesIO()
    np.save(out, stack(50))
    with zipfile.ZipFile(tmp_path / "blob", "w") as archive:
        archive.writestr("images.npy", out.getvalue()[:5000])
    assert "shape [50, 8, 8, 3] (uint8) and holds 4872 bytes" in refusal(tmp_path / "blob", tmp_path)
