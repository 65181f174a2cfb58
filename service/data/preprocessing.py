"""How an image becomes a model input: one recipe for training, calibration and evaluation.

The recipe is that of torchvision's and timm's evaluation transforms: resize the shorter side (antialiased), crop the
centre, scale to [0, 1], subtract the mean, divide by the standard deviation. Each field comes from the first of these
that has it: the job, the model's own configuration, the defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import numpy as np
import torch

from service.data.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

    from service.spec import Preprocessing

Interpolation = Literal["nearest", "bilinear", "bicubic"]

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
# One channel: the mean of the three, which is also what timm takes for grayscale models.
GRAY_MEAN: Final = (0.449,)
GRAY_STD: Final = (0.226,)


@dataclass(frozen=True)
class ResolvedPreprocessing:
    """The recipe with nothing left open.

    Attributes:
        sample_shape: Shape of one model input without the batch dimension; (channels, height, width) for images.
        mean: One value per channel, after scaling to [0, 1].
        std: One value per channel, each > 0, after scaling to [0, 1].
        resize: Shorter side in pixels before the centre crop; None: the smallest size from which a crop of
            `crop_fraction` covers the sample.
        crop_fraction: Fraction of the resized side that the centre crop keeps, in (0, 1].
        interpolation: How pixels are resampled; always antialiased but for `nearest`.
        raw: Arrays are model inputs already: no scaling, no normalisation.
        squash: Both sides are resized to the sample's (divided by `crop_fraction`), whatever the image's proportions.
        keep_exact: Images that have the sample's size already are not resampled, whatever `crop_fraction` is.
        origin: For each field that a job or a model may set, where its value comes from: `job`, `model` or `default`.
    """

    sample_shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: int | None = None
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bilinear"
    raw: bool = False
    squash: bool = False
    keep_exact: bool = True
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Channels of the model's input."""
        return self.sample_shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        return self.sample_shape[1], self.sample_shape[2]

    @property
    def resized(self) -> tuple[int, int]:
        """Height and width of the resized image; where it keeps its proportions, the least of both."""
        if self.resize is not None:
            return self.resize, self.resize
        height, width = (math.floor(side / self.crop_fraction) for side in self.size)
        return height, width

    @property
    def shorter_side(self) -> int:
        """What an image's shorter side is resized to, in pixels, where the sample is square."""
        return self.resize if self.resize is not None else math.floor(min(self.size) / self.crop_fraction)

    def finish(self, pixels: npt.NDArray[Any]) -> torch.Tensor:
        """Returns model inputs, float32, from decoded pixels.

        Args:
            pixels: (batch, *sample_shape); uint8 in [0, 255], or float32 in [0, 1] (anything where `raw`).
        """
        values = torch.from_numpy(np.ascontiguousarray(pixels))
        scaled = values.to(torch.float32, copy=True)
        if self.raw:
            return scaled
        if values.dtype == torch.uint8:
            scaled.div_(255)
        shape = (1, -1, *[1] * (len(self.sample_shape) - 1))
        return scaled.sub_(torch.tensor(self.mean).view(shape)).div_(torch.tensor(self.std).view(shape))

    def described(self) -> dict[str, Any]:
        """Returns the recipe for a report: JSON types only."""
        if self.raw:
            return {"sample_shape": list(self.sample_shape), "raw": True, "origin": dict(self.origin)}
        return {
            "sample_shape": list(self.sample_shape),
            "resize": self.shorter_side,
            "squash": self.squash,
            "keep_exact": self.keep_exact,
            "crop_fraction": self.crop_fraction,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
            "raw": False,
            "origin": dict(self.origin),
        }


def resolve(
    asked: Preprocessing, model_config: Mapping[str, Any], sample_shape: Sequence[int]
) -> ResolvedPreprocessing:
    """Returns the recipe for a job.

    Args:
        asked: What the job says; unset fields are empty.
        model_config: What the model's own configuration says: any of `mean`, `std`, `interpolation`, `crop_pct`,
            `squash`; see `compressors.sources.preprocessing`. A value that does not fit the sample's channels is passed
            over.
        sample_shape: The model's input without the batch dimension.

    Raises:
        DataError: The job's fields contradict the sample shape or each other.
    """
    shape = tuple(int(side) for side in sample_shape)
    if asked.raw:
        return ResolvedPreprocessing(shape, raw=True, origin={"raw": "job"})
    _require_image(shape)
    mean, std, normalisation = _normalisation(asked, model_config, shape[0])
    crop, crop_origin = _crop_fraction(asked, model_config)
    interpolation, interpolation_origin = _interpolation(asked, model_config)
    _check_sizes(asked, shape)
    # A job that says how images are resized means what its fields say: the shorter side.
    squash = bool(model_config.get("squash")) and asked.resize is None and asked.crop_fraction is None
    return ResolvedPreprocessing(
        shape,
        mean,
        std,
        asked.resize,
        crop,
        interpolation,
        squash=squash,
        keep_exact=asked.resize is None and asked.crop_fraction is None,
        origin={
            "mean": normalisation,
            "std": normalisation,
            "resize": "job" if asked.resize is not None else "default",
            "crop_fraction": crop_origin,
            "interpolation": interpolation_origin,
            "squash": "model" if squash else "default",
        },
    )


def _require_image(shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(
            "preprocessing.raw",
            f"the model takes samples of shape {list(shape)}, which is no image (channels, height, width); "
            "give a .npz with ready model inputs and set preprocessing.raw",
        )


def _normalisation(
    asked: Preprocessing, config: Mapping[str, Any], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    if asked.mean:
        if len(asked.mean) not in (1, channels):
            raise DataError(
                "preprocessing.mean",
                f"preprocessing.mean has {len(asked.mean)} values and the model's input has {channels} channels; "
                "give one value per channel, or one for all",
            )
        repeat = channels // len(asked.mean)
        return asked.mean * repeat, asked.std * repeat, "job"
    mean, std = (tuple(float(value) for value in config.get(key) or ()) for key in ("mean", "std"))
    if len(mean) == len(std) == channels:
        return mean, std, "model"
    if channels in (1, 3):
        return (*((IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else (GRAY_MEAN, GRAY_STD)), "default")
    raise DataError(
        "preprocessing.mean",
        f"the model's input has {channels} channels, for which there is no default mean and standard deviation; "
        "set preprocessing.mean and preprocessing.std, or give ready model inputs in a .npz with preprocessing.raw",
    )


def _crop_fraction(asked: Preprocessing, config: Mapping[str, Any]) -> tuple[float, str]:
    if asked.crop_fraction is not None:
        return asked.crop_fraction, "job"
    stated = config.get("crop_pct")
    if stated is not None and 0 < float(stated) <= 1:
        return float(stated), "model"
    return 1.0, "default"


def _interpolation(asked: Preprocessing, config: Mapping[str, Any]) -> tuple[Interpolation, str]:
    if asked.interpolation:
        return asked.interpolation, "job"
    if config.get("interpolation") in ("nearest", "bilinear", "bicubic"):
        return cast("Interpolation", config["interpolation"]), "model"
    return "bilinear", "default"


def _check_sizes(asked: Preprocessing, shape: tuple[int, ...]) -> None:
    longer = max(shape[1:])
    if asked.resize is None:
        return
    if asked.resize < longer:
        raise DataError(
            "preprocessing.resize",
            f"preprocessing.resize is {asked.resize} and the model's input is {shape[1]} x {shape[2]}; "
            f"the crop needs at least {longer}",
        )
    if asked.crop_fraction is not None and abs(math.floor(longer / asked.crop_fraction) - asked.resize) > 1:
        raise DataError(
            "preprocessing.crop_fraction",
            f"preprocessing.resize {asked.resize} and crop_fraction {asked.crop_fraction} disagree: a crop of {longer} "
            f"is {longer / asked.resize:.3f} of {asked.resize}; give one of the two",
        )
