"""Caps that hold before anything is allocated; generous for real models, far below what a machine chokes on."""

from __future__ import annotations

from typing import Final

OLDEST_OPSET: Final = 7
"""Below it, broadcasting was an attribute and batch norms carried a training flag."""

FILE_BYTES: Final = 2**31
"""Protobuf's own limit; larger models keep their weights beside the file."""

MESSAGES: Final = 1_000_000
"""Messages and strings in one file. A model of 10,000 operators has some 200,000."""

PACKED_BYTES: Final = 2**28
"""Bytes of numbers written one by one, which grow up to eight times when they are read."""

DEPTH: Final = 50
"""Nesting of messages. A graph in a graph takes three."""

NODES: Final = 200_000
"""Operators after functions are written out."""

FUNCTION_DEPTH: Final = 16
"""Functions that call functions."""

TENSOR_ELEMENTS: Final = 2**33
"""Elements of one stored tensor."""

CONSTANT_ELEMENTS: Final = 2**27
"""Elements of anything that is computed from sizes or weights alone: half a gigabyte in float32."""

RESULT_ELEMENTS: Final = 2**29
"""Elements of any result for a batch of two."""

HOST_INTEGERS: Final = 2**16
"""Integer tensors up to this size take part in shape arithmetic."""

HOST_FLOATS: Final = 8
"""The same for floats: scales of a resize, constants of a formula; anything larger is a weight."""
