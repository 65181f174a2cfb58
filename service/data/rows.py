"""Rows of Arrow tables, memory-mapped: any cell is reached at once, and memory does not grow with the data.

Parquet is turned into Arrow first, in the job's own work folder, a batch at a time. Arrow files are mapped where they
lie, unless their buffers are compressed. Nothing of a file is believed before pyarrow has validated it in full: offsets
that point outside of their buffers would make it read what is not the file's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from service.data.archives import allowance
from service.data.columns import listed
from service.data.errors import DataError, machine_is_to_blame
from service.data.saved import ARROW_FILE_MAGIC, Kind, class_names, kind_of
from service.wording import reason

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

MAX_MAPPED: Final = 256
"""Of files that are mapped where they lie; more are copied into one, because each takes a file handle."""
MAX_COPY_BYTES: Final = 512 * 2**30
MAX_BATCHES: Final = 1_000_000

_ROWS = 1024
_FEW_ROWS = 4
_PIECE_BYTES = 4 * 2**20
_BATCH_BYTES = 2 * 2**30


@final
class Rows:
    """The wanted columns of some files, one after the other."""

    def __init__(self, batches: Sequence[pa.RecordBatch], schema: pa.Schema, names: Mapping[str, tuple[str, ...]]):
        """Takes batches of one schema, and for columns of classes their names."""
        self._batches = batches
        self._starts = np.concatenate([[0], np.cumsum([batch.num_rows for batch in batches])]).astype(np.int64)
        self.schema = schema
        self.names = names

    def __len__(self) -> int:
        return int(self._starts[-1])

    def cell(self, column: str, index: int) -> pa.Scalar:
        """Returns one cell, without copying it."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._batches[number].column(column)[int(index - self._starts[number])]

    def column(self, column: str) -> Iterator[pa.Array]:
        """Yields a column piece by piece."""
        for batch in self._batches:
            yield batch.column(column)


def read_schema(files: Sequence[Path], field: str) -> pa.Schema:
    """Returns the columns of the first file.

    Raises:
        DataError: It is damaged.
    """
    import pyarrow.parquet as pq

    kind = _kind(files, field)
    with _reading(kind, files[0].name, field):
        schema = pq.read_schema(files[0]) if kind == "Parquet" else next(_arrow(files[0]))[0]
        if not schema.names:  # where a name is no text, asking for them fails here
            raise ValueError("it has no columns")
        if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
            raise ValueError(f"it has two columns of the same name ({listed(twice)})")
        return schema


def open_rows(files: Sequence[Path], columns: Sequence[str], work: Path, field: str) -> Rows:
    """Opens some columns of Parquet or of Arrow files, all of one kind.

    Args:
        files: Shards, in order.
        columns: Names of columns that the first file has.
        work: Folder for a copy, where one is needed; it must live as long as the rows.
        field: What to blame.

    Raises:
        DataError: A file is damaged, misses a column, or has another type in it than the first.
        OSError: The machine is to blame: the disk is full, say.
    """
    kind = _kind(files, field)
    full = read_schema(files, field)
    names = class_names(full, files[0], columns)
    batches = None
    if kind == "Arrow" and len(files) <= MAX_MAPPED:
        batches = _mapped(files, columns, field)
    if batches is None:
        copy = work / "rows.arrow"
        _copy(files, columns, copy, kind, field)
        batches = _mapped([copy], columns, field, copied=True)
        assert batches is not None
    schema = full.empty_table().select(list(columns)).schema
    rows = Rows(batches, schema, names)
    if len(rows) == 0:
        raise DataError(field, f"{files[0].name} holds no rows; give at least a few hundred samples")
    return rows


def _kind(files: Sequence[Path], field: str) -> Kind:
    kinds = {kind_of(file): file for file in files}
    if len(kinds) > 1:
        raise DataError(field, f"{', '.join(sorted(file.name for file in kinds.values()))} are of different formats")
    (kind,) = kinds
    assert kind is not None
    return kind


@contextmanager
def _reading(kind: Kind, name: str, field: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, OverflowError, StopIteration) as exc:
        if machine_is_to_blame(exc):
            raise
        raise DataError(field, f"cannot read {kind} ({name}): {reason(exc, 300)}; write it again") from exc


def _arrow(file: Path) -> Iterator[tuple[pa.Schema, pa.RecordBatch | None, pa.Buffer]]:
    """Yields schema, batch and the file's memory: first without a batch, then for every one."""
    import pyarrow as pa

    memory = pa.memory_map(str(file)).read_buffer()
    source = pa.BufferReader(memory)
    if bytes(memory[:6]) == ARROW_FILE_MAGIC:
        opened = pa.ipc.open_file(source)
        yield opened.schema, None, memory
        for number in range(opened.num_record_batches):
            yield opened.schema, opened.get_batch(number), memory
        return
    stream = pa.ipc.open_stream(source)
    yield stream.schema, None, memory
    for batch in stream:
        yield stream.schema, batch, memory


def _mapped(
    files: Sequence[Path], columns: Sequence[str], field: str, *, copied: bool = False
) -> list[pa.RecordBatch] | None:
    """Returns the validated batches, or None where they would not lie in the file's memory but in the process's.

    Of a copy of ours there is nothing to ask: it is as it should be.
    """
    found: list[pa.RecordBatch] = []
    wanted: pa.Schema | None = None
    for file in files:
        with _reading("Arrow", file.name, field):
            for schema, batch, memory in _arrow(file):
                chosen = schema.empty_table().select(list(columns)).schema
                wanted = wanted or chosen
                if not chosen.equals(wanted):
                    return None
                if batch is None or batch.num_rows == 0:
                    continue
                chosen_batch = batch.select(list(columns))
                chosen_batch.validate(full=True)
                lies_there = len(found) < MAX_BATCHES and all(_within(each, memory) for each in chosen_batch.columns)
                if not (copied or lies_there):
                    return None
                found.append(chosen_batch)
    return found


def _within(column: pa.Array, memory: pa.Buffer) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type) or pa.types.is_run_end_encoded(column.type):
        return False
    low, high = memory.address, memory.address + memory.size
    return all(buffer is None or buffer.size == 0 or low <= buffer.address < high for buffer in column.buffers())


def _copy(files: Sequence[Path], columns: Sequence[str], target: Path, kind: Kind, field: str) -> None:
    """Writes the columns of all files to one uncompressed Arrow stream, in the first file's types."""
    import pyarrow as pa

    wanted = pa.schema([_plain(read_schema(files, field).field(name)) for name in columns])
    written, most = 0, min(MAX_COPY_BYTES, allowance(files))
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, wanted) as writer:
        for file in files:
            with _reading(kind, file.name, field):
                for batch in _batches(file, columns, kind):
                    for piece in _unfolded(batch, wanted):
                        written += piece.nbytes
                        _refuse_too_large(piece, written, most, field)
                        writer.write_batch(piece)


def _refuse_too_large(batch: pa.RecordBatch, written: int, most: int, field: str) -> None:
    if batch.nbytes > _BATCH_BYTES:
        raise DataError(
            field,
            f"{batch.num_rows} rows unpack to {batch.nbytes} bytes, at most {_BATCH_BYTES} are taken; store smaller "
            "samples",
        )
    if written > most:
        raise DataError(
            field, f"the rows unpack to more than {most} bytes, which is more than images or texts do; give less data"
        )


def _batches(file: Path, columns: Sequence[str], kind: Kind) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    if kind == "Parquet":
        # Mapped, so that reading one column of a large row group does not load the others.
        with pq.ParquetFile(file, memory_map=True, pre_buffer=False) as opened:
            size = _rows_at_once(opened.metadata)
            yield from opened.iter_batches(batch_size=size, columns=list(columns), use_threads=False)
        return
    for _, batch, _ in _arrow(file):
        if batch is not None:
            batch.validate(full=True)
            for start in range(0, batch.num_rows, _ROWS):
                yield batch.select(list(columns)).slice(start, _ROWS)


def _rows_at_once(metadata: Any) -> int:
    """Returns how many rows of a Parquet file have about `_PIECE_BYTES` together, at least a few.

    The sizes of single columns would say it better; asking for those of a damaged file ends the process.
    """
    total = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    return max(_FEW_ROWS, min(_ROWS, int(_PIECE_BYTES * max(1, metadata.num_rows) // max(1, total))))


def _plain(column: pa.Field) -> pa.Field:
    """Returns the column in a type that lies in memory as it is read: dictionaries unfolded."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        kind = kind.value_type
    return pa.field(column.name, kind)


def _unfolded(batch: pa.RecordBatch, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a batch in the wanted types, a few at a time where one value may stand for many large ones."""
    import pyarrow as pa

    longest = max(1, *(_longest(batch.column(column.name)) for column in wanted))
    step = max(1, _PIECE_BYTES // longest) if longest > 1 else max(1, batch.num_rows)
    for start in range(0, batch.num_rows, step):
        columns = []
        for column in wanted:
            values = batch.column(column.name).slice(start, step)
            columns.append(values if values.type == column.type else values.cast(column.type))
        yield pa.RecordBatch.from_arrays(columns, schema=wanted)


def _longest(column: pa.Array) -> int:
    """Returns the bytes that one row of a folded column may have when it is unfolded, 0 for others."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        return int(column.dictionary.nbytes)
    return int(column.values.nbytes) if pa.types.is_run_end_encoded(column.type) else 0


def integers(pieces: Iterator[pa.Array]) -> npt.NDArray[np.int64]:
    """Returns a column of integers or booleans, -1 where there is none."""
    import pyarrow as pa

    parts = [piece.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False) for piece in pieces]
    return np.concatenate(parts).astype(np.int64)
