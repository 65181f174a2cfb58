"""Opens samples as jobs do, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.data import DataError, ResolvedPreprocessing, Split, open_split
from tests.service.data.made import PLAIN, pixels

RAW = ResolvedPreprocessing((3, 8, 8), raw=True)
ANY = "FORMAT_UNSPECIFIED"


def opened(path: Path, tmp_path: Path, recipe: ResolvedPreprocessing = PLAIN, stored_as: Any = ANY) -> Split:
    return open_split(path, stored_as, recipe, tmp_path, "data.train")


def refusal(path: Path, tmp_path: Path, recipe: ResolvedPreprocessing = PLAIN, stored_as: Any = ANY) -> str:
    with pytest.raises(DataError) as caught:
        opened(path, tmp_path, recipe, stored_as)
    assert caught.value.field == "data.train"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def expected(seeds: list[int]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(pixels(seed)).permute(2, 0, 1) / 255 for seed in seeds])


def save(file: Path, **arrays: Any) -> Path:
    with file.open("wb") as out:
        np.savez(out, **arrays)
    return file


def stack(count: int, **shape: int) -> Any:
    return np.stack([pixels(seed, **shape) for seed in range(count)])
