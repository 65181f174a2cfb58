"""Stored tensors: what they claim against the bytes that there are."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch

from compressors.errors import ModelError, UnsupportedModelError
from compressors.sources.onnx.limits import TENSOR_ELEMENTS

_RAW = {
    "FLOAT": np.float32,
    "DOUBLE": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
}
_FIELDS = {"FLOAT": "float_data", "DOUBLE": "double_data", "INT64": "int64_data", "UINT32": "uint64_data"}
_FIELDS["UINT64"] = "uint64_data"
_WIDENED = {"UINT16": np.int32, "UINT32": np.int64, "UINT64": np.int64}
"""torch computes with few unsigned types; the wider signed ones hold the same values."""

_HALF = {"FLOAT16", "BFLOAT16"}

_TORCH = {
    "FLOAT": torch.float32,
    "DOUBLE": torch.float64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "UINT8": torch.uint8,
    "BOOL": torch.bool,
}


class ExternalData(Protocol):
    """The files beside the model."""

    def read(self, location: str, offset: int, length: int, what: str) -> bytearray:
        """Returns `length` bytes of a file beside the model.

        Raises:
            UnsafeModelError: The location leads elsewhere.
            ModelError: The file is missing or too short.
        """
        ...


def element_type(number: int) -> str:
    """Returns the name of an element type, e.g. `FLOAT`; numbers that ONNX does not have give `type 99`."""
    from onnx import TensorProto

    try:
        return str(TensorProto.DataType.Name(number))
    except ValueError:
        return f"type {number}"


def torch_type(number: int, what: str) -> torch.dtype:
    """Returns torch's element type for ONNX's.

    Raises:
        UnsupportedModelError: Shoal does not compute with it.
    """
    name = element_type(number)
    if name in _HALF:
        raise UnsupportedModelError(
            f"{what} has the element type {name}; Shoal reads models in FLOAT and writes other precisions itself: "
            "export the model in float32"
        )
    if name not in _TORCH:
        raise UnsupportedModelError(f"{what} has the element type {name}; known: {', '.join(_TORCH)}")
    return _TORCH[name]


def read_tensor(proto: Any, external: ExternalData, what: str) -> torch.Tensor:
    """Returns a stored tensor in memory of its own; the proto's raw bytes are let go.

    Args:
        proto: A TensorProto.
        external: Where its bytes are if they are not in the file.
        what: Names the tensor in messages.

    Raises:
        ModelError: It claims more or fewer elements than it has bytes for.
        UnsupportedModelError: Its element type is none that Shoal computes with.
        UnsafeModelError: Its bytes lie where they must not.
    """
    name = element_type(proto.data_type)
    if name not in _RAW:
        torch_type(proto.data_type, what)
        raise UnsupportedModelError(f"{what} has the element type {name}")
    dims = tuple(proto.dims)
    count = _count(dims, what)
    if proto.HasField("segment"):
        raise UnsupportedModelError(f"{what} is stored in segments, which no exporter writes")
    array = _array(proto, name, count, external, what)
    if name in _WIDENED:
        if name == "UINT64" and bool((array > np.iinfo(np.int64).max).any()):
            raise UnsupportedModelError(f"{what} holds UINT64 values that no signed type can hold")
        array = array.astype(_WIDENED[name])
    if not count:
        return torch.empty(dims, dtype=torch.from_numpy(np.empty(0, array.dtype)).dtype)
    return torch.from_numpy(array).reshape(dims)


def _count(dims: tuple[int, ...], what: str) -> int:
    if any(size < 0 for size in dims) or len(dims) > 32:
        raise ModelError(f"{what} claims the shape {list(dims)[:32]}; sizes must not be negative")
    count = math.prod(dims)
    if count > TENSOR_ELEMENTS:
        raise ModelError(f"{what} claims {count} elements, more than the {TENSOR_ELEMENTS} allowed")
    return count


def _array(proto: Any, name: str, count: int, external: ExternalData, what: str) -> Any:
    """Returns the elements, flat, as the file has them."""
    dtype = np.dtype(_RAW[name])
    wanted = count * dtype.itemsize
    if proto.data_location == proto.EXTERNAL:
        return np.frombuffer(_external(proto, wanted, external, what), dtype.newbyteorder("<"))
    if proto.HasField("raw_data"):
        if len(proto.raw_data) != wanted:
            raise ModelError(f"{what} claims {count} elements ({wanted} bytes), the file has {len(proto.raw_data)}")
        array = np.frombuffer(proto.raw_data, dtype.newbyteorder("<")).copy()
        proto.ClearField("raw_data")
        return array
    values = getattr(proto, _FIELDS.get(name, "int32_data"))
    if len(values) != count:
        raise ModelError(f"{what} claims {count} elements, the file has {len(values)}")
    try:
        return np.fromiter(values, np.int64, count).astype(dtype) if dtype.kind != "f" else np.array(values, dtype)
    except (OverflowError, ValueError) as exc:
        raise ModelError(f"{what} holds values that do not fit {name}: {exc}") from exc


def _external(proto: Any, wanted: int, external: ExternalData, what: str) -> bytearray:
    entries = {entry.key: entry.value for entry in proto.external_data}
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(wanted)))
    except ValueError as exc:
        raise ModelError(f"{what}: offset and length of its external data must be numbers ({exc})") from exc
    if offset < 0 or length != wanted:
        raise ModelError(f"{what} claims {wanted} bytes, its external data says {length} at offset {offset}")
    return external.read(entries.get("location", ""), offset, length, what)
