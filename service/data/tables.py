"""Tables of samples: Parquet and Arrow, as Hugging Face `datasets` and others write them.

Images are bytes, or structs with bytes. The paths, local or remote, that rows may name are never opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from typing_extensions import override

from service.data.columns import Columns, image_column, label_column, text_columns
from service.data.errors import BrokenSampleError, DataError
from service.data.images import Images, decode_all
from service.data.labels import ClassSets, Labelling, read_labels
from service.data.rows import Rows, integers, open_rows, read_schema
from service.data.texts import Text, Texts, checked
from service.wording import reason

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from service.data.preprocessing import ResolvedPreprocessing


@final
class RowImages(Images):
    """Encoded images in a column."""

    def __init__(self, rows: Rows, column: str, recipe: ResolvedPreprocessing) -> None:
        self._rows = rows
        self._column = column
        self._recipe = recipe

    @override
    def __len__(self) -> int:
        return len(self._rows)

    @override
    def load(self, indices: Sequence[int]) -> list[npt.NDArray[np.uint8] | BrokenSampleError]:
        return decode_all([self._encoded(index) for index in indices], self._recipe)

    @override
    def name(self, index: int) -> str:
        return f"row {index}"

    def _encoded(self, index: int) -> bytes | BrokenSampleError:
        import pyarrow as pa

        cell = self._rows.cell(self._column, index)
        if isinstance(cell, pa.StructScalar) and cell.is_valid:
            cell = cell["bytes"]
        found = cell.as_py() if cell.is_valid else None
        return found or BrokenSampleError("the row holds no bytes; embed the images instead of naming their paths")


@final
class RowTexts(Texts):
    """Texts in one column, or pairs of them in two."""

    def __init__(self, rows: Rows, columns: Sequence[str]) -> None:
        self._rows = rows
        self._columns = columns

    @override
    def __len__(self) -> int:
        return len(self._rows)

    @override
    def load(self, indices: Sequence[int]) -> list[Text | BrokenSampleError]:
        return [checked([self._rows.cell(name, index).as_py() for name in self._columns]) for index in indices]

    @override
    def name(self, index: int) -> str:
        return f"row {index}"


def open_images(
    files: Sequence[Path], recipe: ResolvedPreprocessing, columns: Columns, work: Path, field: str
) -> tuple[RowImages, Labelling]:
    """Opens Parquet or Arrow files with a column of images as one split.

    Args:
        files: Shards, in order.
        recipe: How images are decoded.
        columns: What the caller says about columns.
        work: Folder for a copy, which is as large as the images; it must live as long as the split.
        field: What to blame.

    Raises:
        DataError: A file is damaged, has no image column, or its labels are of a strange type.
    """
    schema = read_schema(files, field)
    usable = [name for name in schema.names if _holds_bytes(schema.field(name).type)]
    image = image_column(columns, usable, _described(schema), files[0].name, field)
    label = label_column(columns, schema.names, files[0].name, field)
    rows = open_rows(files, [image, *([label] if label else [])], work, field)
    return RowImages(rows, image, recipe), _labelling(rows, label, field)


def open_texts(files: Sequence[Path], columns: Columns, work: Path, field: str) -> tuple[RowTexts, Labelling]:
    """Opens Parquet or Arrow files with a column of texts, or two, as one split; see `open_images`."""
    import pyarrow as pa

    schema = read_schema(files, field)
    texts = text_columns(columns, schema.names, files[0].name, field)
    for name in texts:
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise DataError(field, f"column {name!r} in {files[0].name} is {kind}; texts must be strings")
    label = label_column(columns, schema.names, files[0].name, field)
    rows = open_rows(files, list(dict.fromkeys([*texts, *([label] if label else [])])), work, field)
    return RowTexts(rows, texts), _labelling(rows, label, field)


def _described(schema: pa.Schema) -> list[str]:
    return [f"{column.name} ({column.type})" for column in schema]


def _holds_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _labelling(rows: Rows, column: str | None, field: str) -> Labelling:
    import pyarrow as pa

    if column is None:
        return Labelling.none(len(rows))
    kind, names = rows.schema.field(column).type, rows.names.get(column)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        try:
            return Labelling(integers(rows.column(column)), names)
        except pa.ArrowInvalid as exc:
            raise DataError(
                field, f"column {column!r} holds a number that is no class ({reason(exc)}); labels count from 0"
            ) from exc
    if pa.types.is_fixed_size_list(kind) and _is_number(kind.value_type) and kind.list_size > 1:
        return _vectors(rows, column, kind.list_size, field)
    if not (_is_string(kind) or (_is_list(kind) and (_is_number(kind.value_type) or _is_string(kind.value_type)))):
        raise DataError(field, f"column {column!r} is {kind}; labels must be integers, names, or lists of either")
    return read_labels(_cells(rows, column), field, names)


def _vectors(rows: Rows, column: str, width: int, field: str) -> Labelling:
    """Returns the labels of a column whose lists all have one length: vectors of zeros and ones."""
    parts = []
    for piece in rows.column(column):
        if piece.null_count:
            raise DataError(field, f"column {column!r} has {piece.null_count} rows without labels; give each a vector")
        values = piece.flatten().to_numpy(zero_copy_only=False)
        parts.append(ClassSets.of_matrix(values.reshape(-1, width), field))
    members = np.concatenate([part.members for part in parts])
    counts = np.concatenate([np.diff(part.starts) for part in parts])
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Labelling.several(ClassSets(starts, members, width), rows.names.get(column))


def _cells(rows: Rows, column: str) -> Iterator[tuple[Any, str]]:
    index = 0
    for piece in rows.column(column):
        for cell in piece:
            yield cell.as_py(), f"row {index}"
            index += 1


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_string(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind))
