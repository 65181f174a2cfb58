"""One encoded image in, pixels of the sample's shape out."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from service.data.errors import BrokenSampleError
from service.wording import reason

if TYPE_CHECKING:
    import numpy.typing as npt

    from service.data.preprocessing import ResolvedPreprocessing

# Raster formats whose decoders are plain data readers. Pillow knows more; EPS, for one, starts Ghostscript.
IMAGE_FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

MAX_PIXELS: Final = 1 << 30 if Image.MAX_IMAGE_PIXELS is None else Image.MAX_IMAGE_PIXELS
"""Of an image, before and after it is resized."""

_RESAMPLING: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# What Pillow's decoders are known to raise on damaged input.
_DECODER_ERRORS: Final = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    ArithmeticError,
    LookupError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def decode(encoded: bytes, recipe: ResolvedPreprocessing) -> npt.NDArray[np.uint8]:
    """Returns the image as the model's input shape, before scaling: uint8 (channels, height, width).

    EXIF orientation is not applied, as in torchvision's and timm's evaluation.

    Raises:
        BrokenSampleError: It is no image of a known format, is damaged, or would unpack to too many pixels.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=IMAGE_FORMATS) as image:
            return fit(image, recipe)
    except UnidentifiedImageError as exc:
        raise BrokenSampleError(f"no image that can be read; wanted one of {', '.join(IMAGE_FORMATS)}") from exc
    except _DECODER_ERRORS as exc:
        raise BrokenSampleError(reason(exc)) from exc


def fit(image: Image.Image, recipe: ResolvedPreprocessing) -> npt.NDArray[np.uint8]:
    """Returns the image resized and cropped as `recipe` says: uint8 (channels, height, width).

    Raises:
        BrokenSampleError: It would have too many pixels, as it is or resized; nothing of it was decoded.
    """
    _refuse_bomb(image.size, _resized_size(image.size, recipe))
    image = _with_channels(image, recipe.channels)
    height, width = recipe.size
    if not (recipe.keep_exact and image.size == (width, height)):
        image = _cropped(_resized(image, recipe), recipe)
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _refuse_bomb(size: tuple[int, int], resized: tuple[int, int]) -> None:
    # Pillow only warns up to twice its limit, and knows nothing of what a thin image becomes.
    for (width, height), how in ((size, ""), (resized, " once resized")):
        if width * height > MAX_PIXELS:
            raise BrokenSampleError(f"the image has {width} x {height} pixels{how}, at most {MAX_PIXELS} are taken")


def _with_channels(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    wanted = "L" if channels == 1 else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _resized(image: Image.Image, recipe: ResolvedPreprocessing) -> Image.Image:
    size = _resized_size(image.size, recipe)
    return image if image.size == size else image.resize(size, _RESAMPLING[recipe.interpolation])


def _resized_size(size: tuple[int, int], recipe: ResolvedPreprocessing) -> tuple[int, int]:
    """Returns (width, height): one side as wanted, the other in proportion and rounded down, as torchvision does.

    Where the recipe squashes images, both are as wanted.
    """
    width, height = size
    goal = recipe.resized[::-1]
    if recipe.squash:
        return goal
    if width * goal[1] <= height * goal[0]:  # the width is what needs the larger scale
        return goal[0], max(goal[1], int(goal[0] * height / width))
    return max(goal[0], int(goal[1] * width / height)), goal[1]


def _cropped(image: Image.Image, recipe: ResolvedPreprocessing) -> Image.Image:
    height, width = recipe.size
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def from_array(array: npt.NDArray[Any], recipe: ResolvedPreprocessing) -> npt.NDArray[np.uint8]:
    """Returns a uint8 array of shape (height, width) or (height, width, 1 or 3) resized and cropped like an image.

    Raises:
        BrokenSampleError: It would have too many pixels.
    """
    return fit(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array), recipe)
