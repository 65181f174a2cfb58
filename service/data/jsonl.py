"""JSON lines: one object to a line, texts and label by key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.data.columns import Columns, label_column, text_columns
from service.data.errors import DataError
from service.data.labels import LabelReader
from service.data.lines import BYTE_ORDER_MARK, Records, RecordTexts, decoded, lines
from service.wording import reason

if TYPE_CHECKING:
    from service.data.labels import Labelling

_PEEKED = 65_536


def is_jsonl(file: Path) -> bool:
    """Tells whether a file begins like an object of JSON, or like a list, which is refused when it is read."""
    with file.open("rb") as opened:
        start = opened.read(_PEEKED).removeprefix(BYTE_ORDER_MARK).lstrip()
    return start.startswith((b'{"', b"[{", b"[\n", b"[\r\n", b"{\n", b"{\r\n", b"{}", b"{ "))


def open_jsonl(files: Sequence[Path], columns: Columns, field: str) -> tuple[RecordTexts, Labelling]:
    """Opens files of JSON lines as one split.

    Args:
        files: Shards, in order.
        columns: What the caller says about keys.
        field: What to blame.

    Raises:
        DataError: The first line is no object, keys are missing, or a label is none.
    """
    found = _first(files[0], field)
    texts = text_columns(columns, list(found), files[0].name, field)
    label = label_column(columns, list(found), files[0].name, field)
    records, labels, torn = Records(files, field), LabelReader(field), {}
    for number, file in enumerate(files):
        for start, line in lines(file, field):
            if not line.strip():
                continue
            index = records.add(number, start, len(line))
            try:
                given = None if label is None else _object(line).get(label)
            except ValueError as exc:
                torn[index] = str(exc)
                labels.skip()
                continue
            labels.add(given, records.name(index))

    def pick(record: bytes) -> list[object]:
        values = _object(record)
        return [values.get(name) for name in texts]

    return RecordTexts(records, pick, torn), labels.finish()


def _first(file: Path, field: str) -> dict[str, Any]:
    first = next((line for _, line in lines(file, field) if line.strip()), b"")
    try:
        return _object(first)
    except ValueError as exc:
        raise DataError(
            field,
            f'the first line of {file.name} is {exc}; write one object to a line, such as {{"text": ..., "label": 0}}',
        ) from exc


def _object(line: bytes) -> dict[str, Any]:
    text = decoded(line)
    try:
        found = json.loads(text)
    except json.JSONDecodeError as exc:
        raise ValueError(f"no JSON ({exc.msg})") from exc
    except RecursionError as exc:
        raise ValueError("no JSON that anybody reads: it is nested too deeply") from exc
    except ValueError as exc:
        raise ValueError(f"no JSON that anybody reads: {reason(exc)}") from exc
    if not isinstance(found, dict):
        raise ValueError(f"no JSON object but a {type(found).__name__}")  # noqa: TRY004  # the file's fault, as above
    return found
