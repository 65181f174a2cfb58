"""Values that loaders stumble over."""

from __future__ import annotations

from typing import Any

import numpy as np

Random = np.random.Generator

INTEGERS = (
    *(0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 32, 33, 64, 100, 127, 128, 255, 256, 1000, 65535, 65536, 10**6, 10**9),
    *(2**31 - 1, 2**31, -(2**31), 2**32, 2**33, 2**40, 2**62, 2**63 - 1, -(2**63), -2, -3, -4, -100, -(10**9)),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e30, -1e30, 3.4e38, float("inf"), float("-inf"), float("nan"), 1e5, 2.5)
STRINGS = (
    *("", " ", "x", "y", "w", "\0", "\n", "a\nb", "é", "\u202e", "self", "forward", "__class__", "__init__", "inputs"),
    *("training", "0", "1.5", "a.b", ".", "..", "/", "a/b", "weight", "_modules", "None", "lambda", "A" * 5000),
    *("a." * 300, "x" * 300, "nan", "None\n\nTraceback", "%s%n", "{0.__class__}", "class", "input", "kwargs", "int"),
)
PATHS = (
    *(
        "../secret.bin",
        "/etc/passwd",
        "link/net.bin",
        "a/../../secret.bin",
        "net.onnx",
        "/dev/zero",
        "",
        ".",
        "net.bin/x",
    ),
    *("net.bin\0", "C:\\x", "file:///etc/passwd", "A" * 300, "x/" * 3000, "link", "pipe", "/proc/self/mem", "net.bin/"),
    *("\ud7ff", "./net.bin", "NET.BIN", "\n", "~/x"),
)


def pick(random: Random, items: Any) -> Any:
    """Returns one of the items, as it is."""
    return items[int(random.integers(len(items)))]


def chance(random: Random, probability: float) -> bool:
    """Says yes with a probability."""
    return bool(random.random() < probability)


def integer(random: Random, near: int = 0) -> int:
    """Returns a number close to a given one, or one that is on some edge."""
    if chance(random, 0.4):
        return near + int(random.integers(-2, 3))
    return int(pick(random, INTEGERS))


def mangle(random: Random, data: bytes, other: bytes) -> bytes:
    """Returns bytes that are flipped, cut, repeated, or continued with those of another file."""
    if not data:
        return other[:100]
    at, end = sorted(int(place) for place in random.integers(0, len(data) + 1, 2))
    end = min(end, at + int(random.integers(1, 200)))
    kind = int(random.integers(7))
    if kind <= 1:
        broken = bytearray(data)
        for place in random.integers(0, len(data), int(random.integers(1, 9))):
            broken[place] = int(random.integers(256)) if kind else broken[place] ^ (1 << int(random.integers(8)))
        return bytes(broken)
    made = (data[:at], data[:at] + random.bytes(end - at) + data[at:], data[:at] + data[end:])
    made += (data[:end] + data[at:end] + data[end:], data[:at] + other[int(random.integers(len(other) + 1)) :])
    return made[kind - 2]
