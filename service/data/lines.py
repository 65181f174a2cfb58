"""Records of text files by where they lie: an index of numbers in memory, everything else on disk."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import numpy as np
from typing_extensions import override

from service.data.errors import BrokenSampleError, DataError
from service.data.texts import Text, Texts, checked

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_RECORD_BYTES: Final = 16 * 2**20
MAX_RECORDS: Final = 1_000_000_000
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@final
class Records:
    """Where the records of some files lie."""

    def __init__(self, files: Sequence[Path], field: str) -> None:
        """Starts with no records; `field` is what to blame."""
        self.files = files
        self._field = field
        self._file = array("i")
        self._start = array("q")
        self._size = array("i")
        self._first: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._start)

    def add(self, file: int, start: int, size: int) -> int:
        """Takes the next record, from the byte `start` of a file, and returns its index.

        Raises:
            DataError: It is longer than any sample, or one too many.
        """
        if size > MAX_RECORD_BYTES or len(self) >= MAX_RECORDS:
            what = f"a record of {size} bytes" if size > MAX_RECORD_BYTES else f"more than {MAX_RECORDS} records"
            raise DataError(
                self._field,
                f"{self.files[file].name} holds {what} (at byte {start}), at most {MAX_RECORD_BYTES} bytes are "
                "taken for one; check for a quote that is never closed, or give less data",
            )
        self._first.setdefault(file, len(self))
        self._file.append(file)
        self._start.append(start)
        self._size.append(size)
        return len(self) - 1

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Returns records, in the order asked for; each file is opened once."""
        found = [b""] * len(indices)
        places: npt.NDArray[np.int64] = np.argsort(np.asarray(indices, dtype=np.int64), kind="stable")
        opened, number = None, -1
        try:
            for place in places:
                index = indices[place]
                if self._file[index] != number:
                    if opened:
                        opened.close()
                    number = self._file[index]
                    opened = self.files[number].open("rb")
                assert opened is not None
                opened.seek(self._start[index])
                found[place] = opened.read(self._size[index])
        finally:
            if opened:
                opened.close()
        return found

    def name(self, index: int) -> str:
        """Says which record this is, for messages: file, and number in it from 1."""
        file = self._file[index]
        return f"{self.files[file].name}, sample {index - self._first[file] + 1}"


@final
class RecordTexts(Texts):
    """Texts that are parsed out of records when they are asked for."""

    def __init__(self, records: Records, pick: Callable[[bytes], Sequence[object]], torn: Mapping[int, str]) -> None:
        """Takes records, what returns the texts of one or raises ValueError, and the broken ones so far."""
        self._records = records
        self._pick = pick
        self._torn = torn

    @override
    def __len__(self) -> int:
        return len(self._records)

    @override
    def load(self, indices: Sequence[int]) -> list[Text | BrokenSampleError]:
        return [self._text(record) for record in self._records.read(indices)]

    @override
    def name(self, index: int) -> str:
        return self._records.name(index)

    @override
    def torn(self) -> Mapping[int, str]:
        return self._torn

    def _text(self, record: bytes) -> Text | BrokenSampleError:
        try:
            return checked(self._pick(record))
        except ValueError as exc:
            return BrokenSampleError(str(exc))


def lines(file: Path, field: str) -> Iterator[tuple[int, bytes]]:
    """Yields the byte at which each line starts, and the line with its end; a byte order mark is passed over.

    Raises:
        DataError: A line is longer than any sample.
    """
    start = 0
    with file.open("rb") as opened:
        while line := opened.readline(MAX_RECORD_BYTES + 1):
            if len(line) > MAX_RECORD_BYTES:
                raise DataError(
                    field,
                    f"{file.name} holds a line of more than {MAX_RECORD_BYTES} bytes (at byte {start}); write one "
                    "sample to a line",
                )
            mark = len(BYTE_ORDER_MARK) if start == 0 and line.startswith(BYTE_ORDER_MARK) else 0
            yield start + mark, line[mark:]
            start += len(line)


def decoded(record: bytes) -> str:
    """Returns a record as text.

    Raises:
        ValueError: It is not UTF-8.
    """
    try:
        return record.decode()
    except UnicodeDecodeError as exc:
        raise ValueError(f"not UTF-8 (byte {record[exc.start]:#04x})") from exc
