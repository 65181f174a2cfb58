"""Messages of any type, made at random from their descriptors: what callers might send by mistake, or on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from benchmarks.fuzz.values import FLOATS, INTEGERS, PATHS, STRINGS, Random, chance, mangle, pick

_DEEPEST = 8
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def fill(message: Message, random: Random, known: Sequence[str], depth: int = 0) -> Message:
    """Sets fields of a message at random.

    Args:
        message: An empty one.
        random: Where chance comes from.
        known: Strings that mean something to the server: names of its resources, hashes, file names.
        depth: Of this message in the whole.

    Returns:
        The same message.
    """
    likely = float(pick(random, (0.2, 0.6, 0.95)))
    for field in message.DESCRIPTOR.fields:
        if not chance(random, likely) or (field.message_type is not None and depth >= _DEEPEST):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(message, field, random, known, depth)
        elif field.is_repeated:
            _fill_list(message, field, random, known, depth)
        elif field.message_type is not None:
            child = getattr(message, field.name)
            child.SetInParent()
            fill(child, random, known, depth + 1)
        else:
            setattr(message, field.name, _scalar(field, random, known))
    return message


def encode(message: Message, random: Random) -> bytes:
    """Returns a message's bytes, in one of four cases broken."""
    data = message.SerializeToString()
    return mangle(random, data, random.bytes(200)) if chance(random, 0.25) else data


def _fill_list(message: Message, field: Any, random: Random, known: Sequence[str], depth: int) -> None:
    target = getattr(message, field.name)
    for _ in range(int(pick(random, (1, 2, 3, 40)))):
        if field.message_type is not None:
            fill(target.add(), random, known, depth + 1)
        else:
            target.append(_scalar(field, random, known))


def _fill_map(message: Message, field: Any, random: Random, known: Sequence[str], depth: int) -> None:
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    target = getattr(message, field.name)
    for _ in range(int(pick(random, (1, 3)))):
        name = _scalar(key, random, known)
        if value.message_type is not None:
            fill(target[name], random, known, depth + 1)
        else:
            target[name] = _scalar(value, random, known)


def _scalar(field: Any, random: Random, known: Sequence[str]) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        text = _text(random, known)
        return text if field.type == FieldDescriptor.TYPE_STRING else text.encode()
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        values = [value.number for value in field.enum_type.values]
        return int(pick(random, values)) if chance(random, 0.8) else int(random.integers(-5, 500))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return chance(random, 0.5)
    if kind in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
        return float(np.float32(pick(random, FLOATS)))
    low, high = _RANGES[kind]
    return min(max(int(pick(random, INTEGERS)), low), high)


def _text(random: Random, known: Sequence[str]) -> str:
    text = str(pick(random, known)) if chance(random, 0.5) else str(pick(random, PATHS + STRINGS))
    return text.encode("utf-8", "ignore").decode()
