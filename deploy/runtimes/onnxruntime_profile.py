"""Reads the trace that ONNX Runtime's profiler writes: what each operator took, run by run.

Operators are named after the node that they come from. Where ONNX Runtime put several nodes into one, the name is that
of the last one's output; decorations (`_nchwc` for a blocked layout, `_token_7` where a name was taken, the name of the
fusion after a slash) are its own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from deploy.runtimes.base import LayerTime, layer_times

_ENDING = "_kernel_time"
_DECORATION = re.compile(r"(_nchwc|_token_[0-9]+|/[A-Za-z]+Fusion/?)+$")


def read_trace(path: Path, skipped: int) -> tuple[LayerTime, ...]:
    """Returns what each operator took, in the order they run.

    Args:
        path: The trace, JSON in Chrome's format: times in whole microseconds.
        skipped: So many first runs of each operator do not count.
    """
    seconds: dict[tuple[str, str, str], list[float]] = {}
    for event in json.loads(path.read_bytes()):
        if event.get("cat") == "Node" and event["name"].endswith(_ENDING):
            seconds.setdefault(_key(event), []).append(event["dur"] * 1e-6)
    merged: dict[tuple[str, str], list[float]] = {}
    for (name, op, _), times in seconds.items():
        counted = times[skipped:] or times
        known = merged.get((name, op))
        # Two operators that differ by decoration alone, such as two changes of layout, are told as one.
        merged[name, op] = counted if known is None else [a + b for a, b in zip(known, counted, strict=False)]
    return layer_times(merged)


def _key(event: dict[str, Any]) -> tuple[str, str, str]:
    name = event["name"].removesuffix(_ENDING)
    return _DECORATION.sub("", name), str(event["args"].get("op_name", "")), name
