"""Versions of TensorRT, and what differs between the ones that Shoal drives (10.3 to 11)."""

from __future__ import annotations

import re
from typing import Any

from deploy.errors import RuntimeMissingError

OLDEST = (10, 3)
NEWEST_MAJOR = 11


def parse_version(text: str) -> tuple[int, ...]:
    """Returns a version's leading numbers: `10.3.0.post1` is (10, 3, 0)."""
    numbers: list[int] = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def check_supported(version: str) -> None:
    """Makes sure that this is a TensorRT that Shoal drives.

    Raises:
        RuntimeMissingError: It is not.
    """
    numbers = parse_version(version)
    if numbers < OLDEST or numbers[0] > NEWEST_MAJOR:
        wanted = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST_MAJOR}.x"
        msg = f"TensorRT {version} is installed here, and Shoal drives {wanted}: install one of those"
        raise RuntimeMissingError(msg)


def decode_version(number: int) -> str:
    """Returns the version that `getInferLibVersion` of TensorRT 10 and later writes as a number, 101303 for 10.13.3."""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def find_library(content: bytes) -> str | None:
    """Returns the TensorRT that a library was linked against, like `libnvinfer.so.10`; None where there is none.

    Args:
        content: The library's bytes.
    """
    found = re.search(rb"libnvinfer\.so\.[0-9]+", content)
    return None if found is None else found.group().decode()


def creation_flags(flags: Any) -> int:
    """Returns the bits for `Builder.create_network`, so that the network is strongly typed.

    Precisions are in the file, and TensorRT must keep to them. TensorRT 10 has to be told; 11 knows nothing else, and
    may have no such flag.

    Args:
        flags: `tensorrt.NetworkDefinitionCreationFlag`.
    """
    strong = getattr(flags, "STRONGLY_TYPED", None)
    return 0 if strong is None else 1 << int(strong)
