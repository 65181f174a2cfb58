"""Versions of the distributions that a job's figures depend on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_ALSO = {"onnxruntime": "onnxruntime-gpu"}
"""Distributions that hold the same package for other devices; one of the two is installed."""


def version_of(name: str) -> str:
    """Returns the version of a distribution, or of the one that is installed in its place.

    Raises:
        PackageNotFoundError: If neither is.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        if name not in _ALSO:
            raise
        return version(_ALSO[name])
