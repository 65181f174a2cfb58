"""What a model's own configuration says about its images, against the library that wrote it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compressors.sources import ModelSource, preprocessing
from compressors.sources.image_processor import read_processor
from service.data import resolve
from service.data.pixels import fit
from service.spec import Preprocessing

transformers = pytest.importorskip("transformers")


def photo(height: int, width: int) -> Image.Image:
    """Returns smooth colours, so that rounding in one pixel is all that two ways of resampling differ by."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 9 + k) * np.cos(y / 7 - k) for k in range(3)]
    return Image.fromarray(((np.stack(waves, -1) + 1) * 127).astype(np.uint8))


CASES: list[tuple[str, dict[str, Any]]] = [
    ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "do_normalize": False}),
    ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "rescale_factor": 1 / 127.5}),
    ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "do_rescale": False}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    ("MobileNetV2ImageProcessor", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}),
    ("DeiTImageProcessor", {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.8}),
    ("EfficientNetImageProcessor", {"size": {"height": 32, "width": 32}}),
    ("EfficientNetImageProcessor", {"size": {"height": 32, "width": 32}, "rescale_offset": True, "include_top": False}),
]


@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.parametrize("size", [(50, 71), (64, 44)])
def test_images_become_what_transformers_makes_of_them(name: str, settings: dict[str, Any], size: tuple[int, int]):
    processor = getattr(transformers, name)(**settings)
    found = read_processor(json.loads(processor.to_json_string()))
    assert found is not None
    recipe = resolve(Preprocessing(), found, (3, 32, 32))
    image = photo(*size)
    ours = recipe.finish(fit(image, recipe)[None])[0].numpy()
    theirs = np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0], dtype=np.float64)
    assert theirs.shape == ours.shape
    # In units of a pixel value: resampling may round differently by one, and where both directions do, by two.
    assert (abs(ours - theirs) * np.array(recipe.std)[:, None, None] * 255).max() <= 2.001
    assert (abs(ours - theirs) * np.array(recipe.std)[:, None, None] * 255).mean() <= 0.5


def test_what_makes_no_sense_is_passed_over():
    good = json.loads(transformers.ViTImageProcessor().to_json_string())
    assert read_processor(good) is not None
    for broken in (
        {"image_mean": "x"},
        {"image_mean": [0.5, float("nan"), 0.5]},
        {"image_mean": [0.5]},
        {"image_std": [0, 1, 1]},
        {"rescale_factor": -1},
        {"size": {"height": -1, "width": 3}},
        {"size": "large"},
        {"size": None},
    ):
        assert read_processor(good | broken) is None
    assert read_processor(good | {"resample": [3]})["interpolation"] == "bilinear"  # type: ignore[index]


@pytest.mark.parametrize("name", ["vit_base_patch14_dinov2", "eva02_tiny_patch14_336", "resnet50"])
def test_images_become_what_timm_makes_of_them(name: str):
    timm = pytest.importorskip("timm")
    config = timm.get_pretrained_cfg(name)
    from timm.data import create_transform, resolve_data_config

    found = preprocessing(ModelSource("named", name=f"timm:{name}"))
    assert found is not None
    recipe = resolve(Preprocessing(), found, found["input_size"])
    image = photo(433, 612)
    theirs = create_transform(**resolve_data_config(pretrained_cfg=config.to_dict(), verbose=False))(image).numpy()
    ours = recipe.finish(fit(image, recipe)[None])[0].numpy()
    assert (abs(ours - theirs) * np.array(recipe.std)[:, None, None] * 255).max() <= 1.001


def test_a_job_that_sets_the_size_is_not_squashed():
    found = {"squash": True, "crop_pct": 1.0}
    assert resolve(Preprocessing(), found, (3, 8, 8)).squash
    assert not resolve(Preprocessing(resize=10), found, (3, 8, 8)).squash
    assert not resolve(Preprocessing(crop_fraction=0.9), found, (3, 8, 8)).squash
