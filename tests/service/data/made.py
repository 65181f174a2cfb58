"""Small image files of every format, made on the spot."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from service.data import ResolvedPreprocessing

PLAIN = ResolvedPreprocessing((3, 8, 8), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""The recipe that gives back the pixels, divided by 255."""


def pixels(seed: int, height: int = 8, width: int = 8, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Returns random pixels (height, width, channels)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def png(array: npt.NDArray[np.uint8]) -> bytes:
    """Returns the pixels as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array).save(out, "PNG")
    return out.getvalue()


def write_folders(root: Path, per_class: dict[str, int], size: int = 8) -> Path:
    """Writes a folder of class folders; image i of all has `pixels(i)`."""
    seed = 0
    for name, count in per_class.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            (root / name / f"{index:03}.png").write_bytes(png(pixels(seed, size, size)))
            seed += 1
    return root


def write_parquet(file: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> Path:
    """Writes Parquet, with Hugging Face metadata where `features` are given."""
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, file, row_group_size=7)
    return file


def encoded(count: int) -> list[dict[str, Any]]:
    """Returns image cells as Hugging Face stores them; image i has `pixels(i)`."""
    return [{"bytes": png(pixels(index)), "path": f"{index}.png"} for index in range(count)]


def write_tar(file: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """Writes a tar archive with exactly these members."""
    with tarfile.open(file, "w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def tar_of(folder: Path, file: Path, mode: str = "w") -> Path:
    """Writes a tar archive of a folder's content."""
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, arcname=".")
    return file
