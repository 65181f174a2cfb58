"""CSV and TSV with a header: one record after the other, quoted fields with line ends and doubled quotes in them.

The separator is what divides the header into the most fields. Where quotes mean nothing, as in tab-separated files that
were never meant to have them, reading them as quotes tears records apart; then they are read as ordinary characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from service.data.columns import LABEL_COLUMNS, TEXT_COLUMNS, Columns, label_column, listed, text_columns
from service.data.errors import DataError
from service.data.labels import LabelReader
from service.data.lines import BYTE_ORDER_MARK, MAX_RECORD_BYTES, Records, RecordTexts, decoded, lines

if TYPE_CHECKING:
    from service.data.labels import Labelling

SEPARATORS: Final = ("\t", ",", ";")

_PEEKED = 65_536


@dataclass(frozen=True)
class _Dialect:
    """How records are written: the separator, whether quotes mean anything, and the header's fields."""

    separator: str
    quotes: bool
    header: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """What reading all files once found."""

    records: Records
    labels: LabelReader
    torn: dict[int, str]


def is_delimited(file: Path) -> bool:
    """Tells whether a file looks like text with a header of several columns, or of one that people use for texts."""
    with file.open("rb") as opened:
        start = opened.read(_PEEKED).removeprefix(BYTE_ORDER_MARK)
    first = start.split(b"\n", 1)[0]
    if not first.strip() or b"\0" in start or len(first) == _PEEKED:
        return False
    try:
        header = first.decode().strip()
    except UnicodeDecodeError:
        return False
    single = header.strip('"').lower() in (*TEXT_COLUMNS, *LABEL_COLUMNS)
    return single or any(separator in header for separator in SEPARATORS)


def open_delimited(files: Sequence[Path], columns: Columns, field: str) -> tuple[RecordTexts, Labelling]:
    """Opens CSV or TSV files with the same header as one split.

    Args:
        files: Shards, in order.
        columns: What the caller says about columns.
        field: What to blame.

    Raises:
        DataError: The columns are missing, the headers differ, or a label is none.
    """
    dialect = _dialect(files[0], field)
    texts = text_columns(columns, dialect.header, files[0].name, field)
    label = label_column(columns, dialect.header, files[0].name, field)
    dialect, found = _best(files, dialect, label, field)
    if not len(found.records):
        raise DataError(field, f"{files[0].name} holds a header and no records; give at least a few hundred samples")
    places = [dialect.header.index(name) for name in texts]

    def pick(record: bytes) -> list[object]:
        values = _values(record, dialect)
        return [values[place] for place in places]

    return RecordTexts(found.records, pick, found.torn), found.labels.finish()


def _best(files: Sequence[Path], dialect: _Dialect, label: str | None, field: str) -> tuple[_Dialect, _Found]:
    """Reads all files, and tells whether quotes mean anything where that is not certain."""
    if dialect.separator != "\t":
        return dialect, _read(files, dialect, label, field)
    try:
        found = _read(files, dialect, label, field)
    except DataError:
        dialect = replace(dialect, quotes=False)
        return dialect, _read(files, dialect, label, field)
    if found.torn:
        plain = _read(files, replace(dialect, quotes=False), label, field)
        if len(plain.torn) < len(found.torn):
            return replace(dialect, quotes=False), plain
    return dialect, found


def _dialect(file: Path, field: str) -> _Dialect:
    _, first = next(lines(file, field), (0, b""))
    try:
        text = decoded(first).strip("\r\n")
    except ValueError as exc:
        raise DataError(field, f"the header of {file.name} is {exc}; save the file as UTF-8") from exc
    header = max((tuple(split(text, mark)) for mark in SEPARATORS), key=len)
    separator = next(mark for mark in SEPARATORS if tuple(split(text, mark)) == header)
    names = tuple(name.strip() for name in header)
    if len(set(names)) < len(names):
        raise DataError(
            field, f"{file.name} has two columns of the same name in its header: {listed(names)}; rename one"
        )
    return _Dialect(separator, True, names)


def _read(files: Sequence[Path], dialect: _Dialect, label: str | None, field: str) -> _Found:
    found = _Found(Records(files, field), LabelReader(field), {})
    place = None if label is None else dialect.header.index(label)
    for number, file in enumerate(files):
        records = _records(file, dialect, field)
        _require_same_header(next(records, (0, b""))[1], file, dialect, field)
        for start, record in records:
            index = found.records.add(number, start, len(record))
            try:
                values = _values(record, dialect)
            except ValueError as exc:
                found.torn[index] = str(exc)
                found.labels.skip()
                continue
            given = None if place is None else values[place].strip()
            found.labels.add(given, found.records.name(index))
    return found


def _require_same_header(record: bytes, file: Path, dialect: _Dialect, field: str) -> None:
    names = [name.strip() for name in split(record.decode(errors="replace"), dialect.separator, quotes=dialect.quotes)]
    if tuple(names) != dialect.header:
        raise DataError(
            field,
            f"{file.name} has the header {listed(names)[:200]} and the first file "
            f"{listed(dialect.header)[:200]}; all files of a split must have the same",
        )


def _values(record: bytes, dialect: _Dialect) -> list[str]:
    values = split(decoded(record), dialect.separator, quotes=dialect.quotes)
    if len(values) != len(dialect.header):
        raise ValueError(f"{len(values)} fields, and the header has {len(dialect.header)}")
    return values


def _records(file: Path, dialect: _Dialect, field: str) -> Iterator[tuple[int, bytes]]:
    """Yields where each record starts, and the record without its end; empty lines between records are none."""
    separator = dialect.separator.encode()
    pieces: list[bytes] = []
    first, size, inside = 0, 0, False
    for start, line in lines(file, field):
        if not pieces:
            if not line.strip(b"\r\n"):
                continue
            first, size = start, 0
        pieces.append(line)
        size += len(line)
        inside = dialect.quotes and _inside_quotes(line, separator, inside=inside)
        if not inside:
            yield first, b"".join(pieces).removesuffix(b"\n").removesuffix(b"\r")
            pieces = []
        elif size > MAX_RECORD_BYTES:
            break
    if pieces:
        raise DataError(
            field,
            f"{file.name}: the quotes of the record at byte {first} are never closed; write quotes in texts twice",
        )


def _inside_quotes(line: bytes, separator: bytes, *, inside: bool) -> bool:
    """Tells whether a quoted field is open at the end of a line, given whether one is at its start."""
    if not inside and b'"' not in line:
        return False
    at = 0
    while True:
        if not inside:
            if line[at : at + 1] == b'"':
                inside, at = True, at + 1
            elif (end := line.find(separator, at)) >= 0:
                at = end + 1
                continue
            else:
                return False
        quote = line.find(b'"', at)
        if quote < 0:
            return True
        if line[quote + 1 : quote + 2] == b'"':
            at = quote + 2
            continue
        inside, end = False, line.find(separator, quote + 1)
        if end < 0:
            return False
        at = end + 1


def split(text: str, separator: str, *, quotes: bool = True) -> list[str]:
    """Returns the fields of a record: what is quoted without its quotes, two quotes in it as one (RFC 4180)."""
    if not quotes or '"' not in text:
        return text.split(separator)
    fields: list[str] = []
    at: int = 0
    while True:
        quoted, at = _quoted(text, at) if text.startswith('"', at) else ("", at)
        end = text.find(separator, at)
        fields.append(quoted + (text[at:] if end < 0 else text[at:end]))
        if end < 0:
            return fields
        at = end + 1


def _quoted(text: str, at: int) -> tuple[str, int]:
    """Returns what the quotes from `at` hold, and where they end."""
    pieces: list[Any] = []
    at += 1
    while True:
        quote = text.find('"', at)
        if quote < 0:
            return "".join([*pieces, text[at:]]), len(text)
        pieces.append(text[at:quote])
        if not text.startswith('"', quote + 1):
            return "".join(pieces), quote + 1
        pieces.append('"')
        at = quote + 2
