"""Parquet files with Hugging Face image and label columns.

`datasets` serves here: it turns the files into memory-mapped Arrow once, in the job's own work folder, so that any
image is reached at once and memory does not grow with the data. Its own decoding is not used: that opens the paths,
local or remote, that rows may name.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from typing_extensions import override

from service.data.errors import BrokenImageError, DataError, machine_is_to_blame
from service.data.images import Images, Labelling, decode_all

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from service.data.preprocessing import ResolvedPreprocessing

IMAGE_COLUMNS: Final = ("image", "img", "images")
LABEL_COLUMNS: Final = ("label", "labels", "fine_label", "target")


@final
class ParquetImages(Images):
    """Rows of memory-mapped Arrow."""

    def __init__(self, rows: Any, column: str, recipe: ResolvedPreprocessing) -> None:
        self._rows = rows
        self._column = column
        self._recipe = recipe

    @override
    def __len__(self) -> int:
        return len(self._rows)

    @override
    def load(self, indices: Sequence[int]) -> list[npt.NDArray[np.uint8] | BrokenImageError]:
        import pyarrow as pa

        cells = self._rows[[int(index) for index in indices]].column(self._column)
        if pa.types.is_struct(cells.type):
            cells = pa.chunked_array(
                [chunk.field("bytes") for chunk in cells.chunks], type=cells.type.field("bytes").type
            )
        missing = BrokenImageError("the row holds no bytes; embed the images instead of naming their paths")
        return decode_all([cell.as_py() or missing for cell in cells], self._recipe)

    @override
    def name(self, index: int) -> str:
        return f"row {index}"


def open_parquet(
    files: Sequence[Path], work: Path, recipe: ResolvedPreprocessing, field: str
) -> tuple[ParquetImages, Labelling]:
    """Opens Parquet files as one split.

    Args:
        files: Shards, in order.
        work: Folder for the Arrow copy, which is as large as the images; it must live as long as the split.
        recipe: How images are decoded.
        field: What to blame.

    Raises:
        DataError: A file is damaged, has no image column, or its labels are of a strange type.
    """
    import pyarrow.parquet as pq

    with _reading(files, field):
        image, label = _columns(files, field)
        if sum(pq.read_metadata(file).num_rows for file in files) == 0:
            raise DataError(field, f"{files[0].name} holds no rows; give at least a few hundred samples")
        rows = _memory_mapped(files, [image, label] if label else [image], work)
        labelling = _labelling(rows, label, field)
    return ParquetImages(rows.with_format("arrow"), image, recipe), labelling


@contextmanager
def _reading(files: Sequence[Path], field: str) -> Iterator[None]:
    import datasets
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException, datasets.exceptions.DatasetsError, ValueError, KeyError, TypeError) as exc:
        if machine_is_to_blame(exc):
            raise
        what = files[0].name if len(files) == 1 else f"{len(files)} files, first {files[0].name}"
        raise DataError(field, f"cannot read Parquet ({what}): {_first_line(exc)}; write it again") from exc


def _first_line(exc: BaseException) -> str:
    """Says what went wrong; `datasets` wraps it in an error that does not."""
    cause = exc.__cause__ or exc
    return next(iter(str(cause).splitlines()), type(cause).__name__)


def _columns(files: Sequence[Path], field: str) -> tuple[str, str | None]:
    import pyarrow.parquet as pq

    schema: pa.Schema = pq.read_schema(files[0])
    image = next(
        (name for name in IMAGE_COLUMNS if name in schema.names and _holds_bytes(schema.field(name).type)), None
    )
    if image is None:
        found = ", ".join(f"{column.name} ({column.type})" for column in schema)
        raise DataError(
            field,
            f"no image column in {files[0].name}: found {found}; wanted {' or '.join(map(repr, IMAGE_COLUMNS))} with "
            "encoded images as bytes, or as a struct with bytes",
        )
    return image, next((name for name in LABEL_COLUMNS if name in schema.names), None)


def _holds_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _memory_mapped(files: Sequence[Path], columns: list[str], work: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    # Its paths are patterns; a bracket in a folder's name must not be one.
    paths = [glob.escape(str(file.resolve())) for file in files]
    return datasets.Dataset.from_parquet(paths, cache_dir=str(work), columns=columns, keep_in_memory=False)


def _labelling(rows: Any, column: str | None, field: str) -> Labelling:
    import pyarrow as pa

    if column is None:
        return Labelling(np.full(len(rows), -1, dtype=np.int64))
    cells = rows.with_format("arrow")[:].column(column)
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        return _by_name(cells.to_pylist())
    if not (pa.types.is_integer(cells.type) or pa.types.is_boolean(cells.type)):
        raise DataError(field, f"column {column!r} is {cells.type}; labels must be integers or names")
    labels = cells.cast(pa.int64()).fill_null(-1).to_numpy().astype(np.int64)
    names = getattr(rows.features[column], "names", None)
    return Labelling(labels, tuple(names) if names else None)


def _by_name(names: Sequence[str | None]) -> Labelling:
    known = sorted(Counter(name for name in names if name is not None))
    index = {name: position for position, name in enumerate(known)}
    labels = np.array([-1 if name is None else index[name] for name in names], dtype=np.int64)
    return Labelling(labels, tuple(known), True)
