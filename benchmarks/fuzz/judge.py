"""What opening one file did, and whether a user may see that."""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from benchmarks.fuzz.loaders import Loader

LONGEST_MESSAGE = 2000
MOST_WARNINGS = 3
_MEMORY = re.compile(r"can't allocate memory|bad_alloc|Cannot allocate memory|Unable to allocate")
_STATED = re.compile(r"malloc of size (\d+) failed")
_IMPOSSIBLE = 1 << 45
_INTERNAL = re.compile(
    r"^Traceback \(|File \"| at 0x[0-9a-f]{6,}|site-packages|\.(?:cc|cpp|h|hpp|rs|py)[:\"' ]\d*|set_int_max_str_digits",
    re.MULTILINE,
)


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
    """Writes a case's files and returns the path of the first."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / next(iter(files))


def judge(loader: Loader, path: Path, work: Path) -> Verdict:
    """Opens a file and says whether what happened is fit for a user.

    Args:
        loader: What opens it.
        path: The file.
        work: An empty folder, for what must be unpacked.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        verdict = _opened(loader, path, work)
    # As a program's log has them: once for each place.
    if verdict.good and len({(each.filename, each.lineno) for each in caught}) > MOST_WARNINGS:
        first = caught[0]
        where = _short(first.filename, loader.packages)
        return Verdict(False, f"warnings {first.category.__name__} {where}", str(first.message)[:500])
    return verdict


def _opened(loader: Loader, path: Path, work: Path) -> Verdict:
    try:
        opened = loader.open(path, work)
    except loader.errors as exc:
        return _refusal(loader, exc, path)
    except BaseException as exc:  # noqa: BLE001 - whatever it is, it is a finding
        origin = _origin(exc, loader.packages)
        return Verdict(False, f"foreign {type(exc).__name__} {origin}", "".join(traceback.format_exception(exc)))
    for text in opened.shown:
        if bad := unfit(text, [str(path.parents[1])]):
            return Verdict(False, f"{' '.join(bad)} in what is said of {opened.kind}", repr(text))
    return Verdict(True, f"opened {opened.kind}", "")


def unfit(message: str, roots: Sequence[str]) -> list[str]:
    """Returns what makes a text unfit for a user, in words; nothing where it is fit.

    Args:
        message: The text.
        roots: Folders of this machine that nobody needs to know of, besides those of the program itself.
    """
    paths = (*roots, sys.prefix, str(Path(__file__).parents[2]), str(Path.home()) + "/")
    problems = {
        "empty": not message.strip(),
        "long": len(message) > LONGEST_MESSAGE,
        "path": any(root in message for root in paths),
        "internal": _INTERNAL.search(message) is not None,
        "unprintable": not message.isprintable(),
    }
    return [name for name, bad in problems.items() if bad]


def _refusal(loader: Loader, exc: Exception, path: Path) -> Verdict:
    message, where = str(exc), f"{type(exc).__name__} {_origin(exc, loader.packages)}"
    trace = "".join(traceback.format_exception(exc))
    found = unfit(message, [str(path.parents[1])])
    if isinstance(exc, loader.ours):
        found.append("ours")
    if any(_MEMORY.search(str(cause)) or _starved(cause) for cause in _causes(exc)):
        found.append("memory")
    return Verdict(not found, f"{' '.join(found) or 'refused'} {where}", trace if found else message)


def _starved(exc: BaseException) -> bool:
    """Says whether memory ran out; Python's parser says so too where only its own stack did.

    A library that asks for more than any machine has, and is told so at once, has taken none.
    """
    stated = _STATED.search(str(exc))
    if stated is not None and int(stated.group(1)) > _IMPOSSIBLE:
        return False  # nothing was taken
    last = traceback.extract_tb(exc.__traceback__)[-1:]
    return isinstance(exc, MemoryError) and not any(frame.filename.endswith("ast.py") for frame in last)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = exc
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _origin(exc: BaseException, packages: Sequence[str]) -> str:
    """Returns the innermost places in what is fuzzed; the root cause's for one that was passed on."""
    places = _places(exc.__traceback__, packages)
    cause = exc.__cause__
    more = f" < {type(cause).__name__} {_places(cause.__traceback__, packages)[-1:]}" if cause is not None else ""
    return " ".join(places[-2:]) + more


def _places(trace: TracebackType | None, packages: Sequence[str]) -> list[str]:
    frames = traceback.extract_tb(trace)
    ours = [frame for frame in frames if _within(frame.filename, packages) is not None]
    return [f"{_short(frame.filename, packages)}:{frame.name}:{frame.lineno}" for frame in ours]


def _short(name: str, packages: Sequence[str]) -> str:
    return _within(name, packages) or name.rsplit("/", 1)[-1]


def _within(name: str, packages: Sequence[str]) -> str | None:
    root = f"{Path(__file__).parents[2]}/"
    inside = name.removeprefix(root) if name.startswith(root) else ""
    package, _, rest = inside.partition("/")
    return rest if package in packages else None
