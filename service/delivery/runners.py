"""The `run.py` of delivered folders: always the same program, so that it can be known by its hash."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FILENAME: Final = "run.py"

KEPT: Final = "engines"
"""The folder in which `run.py` keeps engines that it built; it loads only what its user sealed."""

PUBLISHED: Final[dict[str, frozenset[str]]] = {
    "1.0": frozenset(
        {
            "0e20454cfd1fd5967e98715e45ac9ac33daac25aa59a8002160c8344482487a9",
            "0557d30531382c0def1a09db19c0414dff2550773edbf54241d3738a6c4835a9",
        }
    ),
    "1.1": frozenset({"ea90e14b7b38a7d8e67355a444fca6af92990ef91b7694c0f2060f1e8db2623f"}),
}
"""SHA-256 of every program that was ever delivered, by the version of the manifests that it came with."""


def runner_bytes() -> bytes:
    """Returns the program as it is delivered now."""
    return Path(__file__).with_name("runner.py").read_bytes()
