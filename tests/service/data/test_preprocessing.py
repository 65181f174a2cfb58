from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from service.data import DataError, ResolvedPreprocessing, resolve
from service.data.pixels import decode, fit
from service.spec import Preprocessing
from tests.service.data.made import pixels, png

TIMM = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "interpolation": "bicubic", "crop_pct": 0.875}


def test_defaults_are_imagenet_bilinear_whole_crop():
    recipe = resolve(Preprocessing(), {}, (3, 224, 224))
    assert recipe.mean == (0.485, 0.456, 0.406)
    assert recipe.std == (0.229, 0.224, 0.225)
    assert (recipe.interpolation, recipe.crop_fraction, recipe.resize, recipe.raw) == ("bilinear", 1.0, None, False)
    assert set(recipe.origin.values()) == {"default"}


def test_the_model_s_configuration_beats_the_defaults():
    recipe = resolve(Preprocessing(), TIMM, (3, 224, 224))
    assert (recipe.mean, recipe.interpolation, recipe.crop_fraction) == ((0.5, 0.5, 0.5), "bicubic", 0.875)
    assert recipe.origin["mean"] == "model"


def test_the_job_beats_the_model_field_by_field():
    recipe = resolve(Preprocessing(mean=(0.1, 0.2, 0.3), std=(1, 1, 1)), TIMM, (3, 224, 224))
    assert recipe.mean == (0.1, 0.2, 0.3)
    assert recipe.interpolation == "bicubic"
    assert (recipe.origin["mean"], recipe.origin["interpolation"]) == ("job", "model")


def test_one_channel_takes_the_gray_default():
    recipe = resolve(Preprocessing(), TIMM, (1, 8, 8))
    assert (recipe.mean, recipe.std) == ((0.449,), (0.226,))


def test_one_value_serves_all_channels():
    assert resolve(Preprocessing(mean=(0.5,), std=(0.2,)), {}, (3, 8, 8)).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("asked", "shape", "field"),
    [
        (Preprocessing(mean=(0.5, 0.5), std=(1, 1)), (3, 8, 8), "preprocessing.mean"),
        (Preprocessing(), (4, 8, 8), "preprocessing.mean"),
        (Preprocessing(resize=7), (3, 8, 8), "preprocessing.resize"),
        (Preprocessing(resize=20, crop_fraction=0.9), (3, 8, 8), "preprocessing.crop_fraction"),
        (Preprocessing(), (16,), "preprocessing.raw"),
    ],
)
def test_contradictions_are_refused(asked: Preprocessing, shape: tuple[int, ...], field: str):
    with pytest.raises(DataError) as caught:
        resolve(asked, {}, shape)
    assert caught.value.field == field


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(("height", "width"), [(40, 61), (61, 40), (19, 23), (33, 33)])
@pytest.mark.parametrize(("asked", "resize"), [(Preprocessing(), 27), (Preprocessing(resize=31), 31)])
def test_equals_torchvision_s_evaluation_transform(
    interpolation: str, height: int, width: int, asked: Preprocessing, resize: int
):
    config = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "interpolation": interpolation, "crop_pct": 24 / 27.5}
    recipe = resolve(asked, config, (3, 24, 24))
    image = Image.fromarray(pixels(1, height, width))
    theirs = v2.Compose(
        [
            v2.Resize(resize, interpolation=v2.InterpolationMode(interpolation)),
            v2.CenterCrop(24),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(config["mean"], config["std"]),
        ]
    )(image)
    ours = recipe.finish(fit(image, recipe)[None])[0]
    # Their normalisation may round once more than ours.
    torch.testing.assert_close(ours, torch.as_tensor(theirs), atol=1e-6, rtol=0)


def test_an_image_of_the_sample_s_size_is_not_resampled():
    recipe = resolve(Preprocessing(), TIMM, (3, 8, 8))
    assert np.array_equal(fit(Image.fromarray(pixels(3)), recipe), pixels(3).transpose(2, 0, 1))


def test_an_image_of_the_sample_s_size_is_resampled_when_the_job_says_so():
    recipe = resolve(Preprocessing(crop_fraction=0.5), {}, (3, 8, 8))
    assert not np.array_equal(fit(Image.fromarray(pixels(3)), recipe), pixels(3).transpose(2, 0, 1))


def test_a_wide_sample_is_covered():
    recipe = resolve(Preprocessing(), {}, (3, 10, 30))
    assert fit(Image.fromarray(pixels(1, 50, 50)), recipe).shape == (3, 10, 30)
    assert fit(Image.fromarray(pixels(1, 20, 90)), recipe).shape == (3, 10, 30)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "CMYK"])
def test_every_mode_becomes_the_model_s_channels(mode: str):
    image = Image.fromarray(pixels(1)).convert(mode)
    for channels in (1, 3):
        recipe = resolve(Preprocessing(), {}, (channels, 8, 8))
        assert fit(image, recipe).shape == (channels, 8, 8)


def test_sixteen_bit_gray_keeps_its_high_byte():
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    recipe = resolve(Preprocessing(), {}, (1, 8, 8))
    assert np.array_equal(fit(Image.fromarray(deep), recipe)[0], (deep >> 8).astype(np.uint8))


def test_decoding_png_is_exact():
    recipe = resolve(Preprocessing(), {}, (3, 8, 8))
    assert np.array_equal(decode(png(pixels(5)), recipe), pixels(5).transpose(2, 0, 1))


def test_raw_passes_through():
    recipe = resolve(Preprocessing(raw=True), {}, (5,))
    values = np.linspace(-3, 900, 10, dtype=np.float64).reshape(2, 5)
    assert torch.equal(recipe.finish(values), torch.from_numpy(values).float())


def test_finish_leaves_its_argument_alone():
    values = np.full((1, 3, 2, 2), 0.5, dtype=np.float32)
    ResolvedPreprocessing((3, 2, 2), (0.5,) * 3, (0.5,) * 3).finish(values)
    assert (values == 0.5).all()


def test_described_is_json():
    text = json.dumps(resolve(Preprocessing(), TIMM, (3, 8, 8)).described())
    assert json.loads(text)["crop_fraction"] == 0.875
