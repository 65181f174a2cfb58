"""Which files beside an `.onnx` file hold its weights, read without the onnx package.

The command line is installed without it. Three levels of the file are walked: model, graph, stored tensors; everything
else is skipped by its length, so that gigabytes of weights cost nothing.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_GRAPH: Final = 7
_INITIALIZER: Final = 5
_EXTERNAL_DATA: Final = 13
_KEY: Final = 1
_VALUE: Final = 2


def external_files(path: Path) -> list[str]:
    """Returns the files that an `.onnx` file keeps weights in, each once; none for a file that is no ONNX at all."""
    if path.stat().st_size == 0:
        return []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return list(dict.fromkeys(_locations(data)))
        except (IndexError, UnicodeDecodeError):
            return []  # The server says what is wrong with the file.


def _locations(data: mmap.mmap) -> Iterator[str]:
    for graph in _fields(data, 0, len(data), _GRAPH):
        for tensor in _fields(data, *graph, _INITIALIZER):
            for entry in _fields(data, *tensor, _EXTERNAL_DATA):
                keys = [data[start:end] for start, end in _fields(data, *entry, _KEY)]
                if keys == [b"location"]:
                    yield from (data[start:end].decode() for start, end in _fields(data, *entry, _VALUE))


def _fields(data: mmap.mmap, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Yields where the contents of a length-delimited field start and end.

    Raises:
        IndexError: The bytes are no protobuf.
    """
    position = start
    while position < end:
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == 0:
            _, position = _varint(data, position)
        elif wire in {1, 5}:
            position += 8 if wire == 1 else 4
        elif wire == 2:
            length, position = _varint(data, position)
            if tag >> 3 == wanted:
                yield position, min(position + length, end)
            position += length
        else:
            raise IndexError(position)


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise IndexError(position)
