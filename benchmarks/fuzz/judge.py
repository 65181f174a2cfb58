"""What loading one file did, and whether a user may see that."""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from compressors.errors import EngineError, SurgeryError
from compressors.graph import Graph
from compressors.sources import ModelSource, load

LONGEST_MESSAGE = 2000
MOST_WARNINGS = 3
_MEMORY = re.compile(r"can't allocate memory|bad_alloc|Cannot allocate memory|Unable to allocate")
_INTERNAL = re.compile(r"^Traceback \(|File \"|0x[0-9a-f]{8,}|site-packages", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """One case's outcome.

    Attributes:
        good: Whether a user may see it.
        key: What it is, the same for the same cause: the kind, the exception's type, where it came from.
        text: The message, or the traceback of a finding.
    """

    good: bool
    key: str
    text: str


def write_case(files: Mapping[str, bytes], folder: Path) -> Path:
    """Writes a case's files and returns the path of the model."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / next(iter(files))


def judge(kind: Literal["onnx", "pt2"], path: Path) -> Verdict:
    """Loads a file and says whether what happened is fit for a user."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        verdict = _loaded(kind, path)
    if verdict.good and len(caught) > MOST_WARNINGS:
        first = caught[0]
        return Verdict(False, f"warnings {first.category.__name__} {_short(first.filename)}", str(first.message)[:500])
    return verdict


def _loaded(kind: Literal["onnx", "pt2"], path: Path) -> Verdict:
    try:
        graph = load(ModelSource(kind=kind, path=path))
    except EngineError as exc:
        return _refusal(exc, path)
    except BaseException as exc:  # noqa: BLE001 - whatever it is, it is a finding
        return Verdict(False, f"foreign {type(exc).__name__} {_origin(exc)}", "".join(traceback.format_exception(exc)))
    good = isinstance(graph, Graph)
    return Verdict(good, "graph" if good else "no graph", type(graph).__name__)


def _refusal(exc: EngineError, path: Path) -> Verdict:
    message, where = str(exc), f"{type(exc).__name__} {_origin(exc)}"
    trace = "".join(traceback.format_exception(exc))
    causes = list(_causes(exc))
    roots = (str(path.parent), sys.prefix, str(Path(__file__).parents[2]), str(Path.home()) + "/")
    problems = {
        "ours": isinstance(exc, SurgeryError),
        "empty": not message.strip(),
        "long": len(message) > LONGEST_MESSAGE,
        "path": any(root in message for root in roots),
        "internal": _INTERNAL.search(message) is not None,
        "unprintable": not message.isprintable(),
        "memory": any(_MEMORY.search(str(cause)) or _starved(cause) for cause in causes),
    }
    found = [name for name, bad in problems.items() if bad]
    return Verdict(not found, f"{' '.join(found) or 'refused'} {where}", trace if found else message)


def _starved(exc: BaseException) -> bool:
    """Says whether memory ran out; Python's parser says so too where only its own stack did."""
    last = traceback.extract_tb(exc.__traceback__)[-1:]
    return isinstance(exc, MemoryError) and not any(frame.filename.endswith("ast.py") for frame in last)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = exc
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _origin(exc: BaseException) -> str:
    """Returns the innermost places in the engine; the root cause's for one that was passed on."""
    places = _places(exc.__traceback__)
    cause = exc.__cause__
    more = f" < {type(cause).__name__} {_places(cause.__traceback__)[-1:]}" if cause is not None else ""
    return " ".join(places[-2:]) + more


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)
    ours = [frame for frame in frames if "/compressors/" in frame.filename]
    return [f"{_short(frame.filename)}:{frame.name}:{frame.lineno}" for frame in ours]


def _short(name: str) -> str:
    return name.rsplit("/compressors/", 1)[-1] if "/compressors/" in name else name.rsplit("/", 1)[-1]
