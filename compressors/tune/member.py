"""One process of a group that trains together: `python -m compressors.tune.member FOLDER PIPE`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from compressors.errors import EngineError
from compressors.tune import parcel
from compressors.tune.group import RESULT, WORK
from compressors.tune.run import tune

if TYPE_CHECKING:
    from collections.abc import Mapping


def main(folder: Path, pipe: int) -> None:
    """Does this process's part; the first writes the result, and says on `pipe` how far it is."""
    first = os.environ["RANK"] == "0"

    def progress(fraction: float, message: str, metrics: Mapping[str, float] | None = None) -> None:
        os.write(pipe, json.dumps([fraction, message, dict(metrics or {})]).encode() + b"\n")

    torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ["WORLD_SIZE"])))
    (original, candidate), train, holdout, config = parcel.read(folder / WORK)
    result: Any
    try:
        tuned = tune(parcel.unpacked(original), parcel.unpacked(candidate), train, holdout, config, progress)
        result = (replace(tuned, graph=candidate[0]), parcel.packed(tuned.graph))
    except EngineError as exc:
        result = exc
    if first:
        parcel.write(folder / f"{RESULT}.part", result)
        (folder / f"{RESULT}.part").replace(folder / RESULT)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
