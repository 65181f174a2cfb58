"""What is fuzzed: one row for each way in which a stranger's file gets into a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from benchmarks.fuzz import data_cases, onnx_cases, pt2_cases, tokenizer_cases
from benchmarks.fuzz.data_opening import open_data
from benchmarks.fuzz.opened import Opened
from benchmarks.fuzz.tokenizer_opening import open_tokenizer
from benchmarks.fuzz.values import Random
from compressors.errors import EngineError, SurgeryError
from compressors.sources import ModelSource, load
from service.data import DataError

Files = dict[str, bytes]
"""A case: files by name, the first of which is the one to open."""


@dataclass(frozen=True)
class Loader:
    """A way in.

    Attributes:
        build: Makes one case.
        whole: Makes the good cases that the broken ones start from.
        open: Opens a case's first file as a worker does, in a folder for what must be unpacked.
        errors: What it may raise.
        ours: Those of them that say that the mistake is ours.
        packages: Whose frames name the place where an error came from.
    """

    build: Callable[[Random], Files]
    whole: Callable[[], list[Files]]
    open: Callable[[Path, Path], Opened]
    errors: tuple[type[Exception], ...]
    ours: tuple[type[Exception], ...]
    packages: tuple[str, ...]


def _onnx(path: Path, work: Path) -> Opened:
    del work
    load(ModelSource(kind="onnx", path=path))
    return Opened("graph")


def _pt2(path: Path, work: Path) -> Opened:
    del work
    load(ModelSource(kind="pt2", path=path))
    return Opened("graph")


_ENGINE: Final = ((EngineError,), (SurgeryError,), ("compressors",))

LOADERS: Final[Mapping[str, Loader]] = MappingProxyType(
    {
        "onnx": Loader(onnx_cases.build, onnx_cases.whole, _onnx, *_ENGINE),
        "pt2": Loader(pt2_cases.build, pt2_cases.whole, _pt2, *_ENGINE),
        "data": Loader(data_cases.build, data_cases.whole, open_data, (DataError,), (), ("service",)),
        "tokenizer": Loader(
            tokenizer_cases.build,
            tokenizer_cases.whole,
            open_tokenizer,
            (DataError, EngineError),
            (SurgeryError,),
            ("service", "compressors"),
        ),
    }
)
