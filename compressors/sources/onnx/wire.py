"""A look at a protobuf file before it is parsed: how many messages it would become.

A parser makes an object of some hundred bytes of every two bytes `3a 00`, so a file within the size cap could fill the
memory. This walk follows the message types of ONNX, skips over strings and tensors by their lengths, and counts.
"""

from __future__ import annotations

from typing import Any, final

from compressors.errors import ModelError
from compressors.sources.onnx.limits import DEPTH, MESSAGES, PACKED_BYTES

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_wire(data: bytes, where: str) -> None:
    """Makes sure that parsing `data` as a ModelProto takes memory in proportion to its size.

    Raises:
        ModelError: It is no protobuf, is truncated, nests too deeply or holds too many messages.
    """
    from onnx import ModelProto

    _Scan(data, where).run(ModelProto.DESCRIPTOR)


@final
class _Scan:
    """One walk, with its counters."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.messages = 0
        self.packed = 0
        self.fields: dict[str, dict[int, Any]] = {}

    def run(self, descriptor: Any) -> None:
        pending = [(descriptor, 0, len(self.data), 0)]
        while pending:
            kind, start, end, depth = pending.pop()
            if depth > DEPTH:
                raise ModelError(f"{self.where} nests its messages more than {DEPTH} deep; no exporter writes that")
            for field, first, last in self._children(kind, start, end):
                self._count(field, first, last)
                if field.message_type is not None:
                    pending.append((field.message_type, first, last, depth + 1))

    def _children(self, kind: Any, start: int, end: int) -> Any:
        """Yields every known length-delimited field with the ends of its content."""
        known = self.fields.setdefault(kind.full_name, {field.number: field for field in kind.fields})
        position = start
        while position < end:
            tag = self.data[position]
            tag, position = (tag, position + 1) if tag < 128 else self._varint(position, end)
            wire = tag & 7
            if wire == _VARINT:
                _, position = self._varint(position, end)
                self._scalar()
            elif wire in {_FIXED32, _FIXED64}:
                position += 4 if wire == _FIXED32 else 8
            elif wire == _BYTES:
                length, first = self._varint(position, end)
                position = first + length
                if position <= end and (tag >> 3) in known:
                    yield known[tag >> 3], first, position
            else:
                raise self._broken(f"wire type {wire}")
        if position > end:
            raise self._broken("a field reaches beyond its end")

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while position < end and shift < 70:
            byte = self.data[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, position
            shift += 7
        raise self._broken("a number is cut off")

    def _text(self, first: int, last: int) -> None:
        """Refuses names that are no text; the parser would hand them on as bytes."""
        try:
            self.data[first:last].decode()
        except UnicodeDecodeError as exc:
            raise self._broken("a name is no UTF-8 text") from exc

    def _count(self, field: Any, first: int, last: int) -> None:
        self.messages += 1
        if field.type == field.TYPE_STRING:
            self._text(first, last)
        if field.type not in {field.TYPE_BYTES, field.TYPE_STRING, field.TYPE_MESSAGE}:
            self.packed += last - first
        self._within()

    def _scalar(self) -> None:
        self.packed += 1
        self._within()

    def _within(self) -> None:
        if self.messages > MESSAGES or self.packed > PACKED_BYTES:
            raise ModelError(
                f"{self.where} holds more than {MESSAGES} messages, or more than {PACKED_BYTES} bytes of numbers that "
                "are not raw data; no exporter writes that"
            )

    def _broken(self, why: str) -> ModelError:
        return ModelError(f"{self.where} is truncated or damaged, or is no ONNX file ({why}); export it again")
