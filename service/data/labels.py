"""What a sample shows: one class, several classes, or nothing that anybody said.

Labels are the one thing that is kept in memory for every sample: eight bytes for a class, and for several classes the
list of those that apply, never the vector over all classes.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from service.data.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_NAMES: Final = 100_000
"""Of different labels that are names; more is no column of classes."""
MAX_CLASSES: Final = 1_000_000

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}")
_FRACTION: Final = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class ClassSets:
    """The classes of each sample that may have several.

    Attributes:
        starts: int64 (samples + 1,); where each sample's classes begin in `members`.
        members: int32; class indices, each once per sample, in order.
        width: How many classes there are.
        fixed: Whether `width` was stated (by vectors of that length, or by names) and is not only the highest index.
    """

    starts: npt.NDArray[np.int64]
    members: npt.NDArray[np.int32]
    width: int
    fixed: bool = True

    @staticmethod
    def of_matrix(matrix: npt.NDArray[Any], field: str) -> ClassSets:
        """Returns the sets of a matrix (samples, classes) of zeros and ones, read by the block.

        Raises:
            DataError: It holds something else.
        """
        counts, members = [], []
        step = max(1, (1 << 22) // max(1, matrix.shape[1]))
        for start in range(0, len(matrix), step):
            block = np.asarray(matrix[start : start + step])
            if not np.isin(block, (0, 1)).all():
                raise DataError(
                    field,
                    f"labels of shape {list(matrix.shape)} hold other values than 0 and 1; wanted one column per "
                    "class, 1 where it applies, or one integer per sample",
                )
            _, columns = np.nonzero(block)
            counts.append((block != 0).sum(axis=1, dtype=np.int64))
            members.append(columns.astype(np.int32))
        starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
        return ClassSets(starts, np.concatenate(members), matrix.shape[1])

    def dense(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Returns float32 (len(rows), width): 1 where a class applies, else 0."""
        vectors = np.zeros((len(rows), self.width), dtype=np.float32)
        for vector, row in zip(vectors, rows, strict=True):
            vector[self.members[self.starts[row] : self.starts[row + 1]]] = 1
        return vectors

    def first(self) -> npt.NDArray[np.int64]:
        """Returns each sample's first class, -1 where none applies: what samples are spread evenly by."""
        found = np.full(len(self.starts) - 1, -1, dtype=np.int64)
        some = self.starts[:-1] < self.starts[1:]
        found[some] = self.members[self.starts[:-1][some]]
        return found


@dataclass(frozen=True)
class Labelling:
    """The labels of a split.

    Attributes:
        labels: Class indices, int64, one per sample, -1 where there is none. With `sets`: the first of them.
        classes: Names by index, or None where the source has only numbers.
        by_position: Whether an index is only the position in the sorted list of names that occur in this split.
        sets: The classes of each sample, where there may be several; None where there is one at most.
    """

    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...] | None = None
    by_position: bool = False
    sets: ClassSets | None = None

    @staticmethod
    def none(count: int) -> Labelling:
        """Returns the labelling of `count` samples without labels."""
        return Labelling(np.full(count, -1, dtype=np.int64))

    @staticmethod
    def several(sets: ClassSets, classes: tuple[str, ...] | None = None, *, by_position: bool = False) -> Labelling:
        """Returns the labelling of samples that may have several classes each."""
        return Labelling(sets.first(), classes, by_position, sets)

    def targets(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Returns what samples should give: int64 (n,) class indices, or float32 (n, classes) of zeros and ones."""
        return self.labels[rows] if self.sets is None else self.sets.dense(rows)

    def widened(self, classes: int) -> Labelling:
        """Returns the same over `classes` classes, where the source did not say how many there are."""
        if self.sets is None or self.sets.fixed or self.sets.width > classes:
            return self
        return replace(self, sets=replace(self.sets, width=classes, fixed=True))


@final
class LabelReader:
    """Takes one label after the other and says in the end what they are: numbers, names, or lists of either.

    Lists are vectors of zeros and ones if all are as long as each other, longer than one, and hold nothing else;
    otherwise they are lists of classes.
    """

    def __init__(self, field: str, names: Sequence[str] | None = None) -> None:
        """Starts with no labels; `names` are those of the classes, by index, where the source states them."""
        self._field = field
        self._names = tuple(names) if names else None
        self._codes: dict[str, int] = {}
        self._starts = array("q", [0])
        self._members = array("q")
        self._vector: int | None = None
        self._lists = self._strings = self._numbers = self._skipped = 0

    def __len__(self) -> int:
        return len(self._starts) - 1

    def add(self, label: Any, where: str) -> None:
        """Takes the next sample's label.

        Args:
            label: None or "" for none; a number, a name, or a list of either.
            where: The sample, for messages.

        Raises:
            DataError: It is something else, or of another kind than those before.
        """
        if isinstance(label, list | tuple):
            self._add_list(label, where)
        elif label is None or label == "":
            self._members.append(-1)
        else:
            self._members.append(self._code(label, where))
        self._starts.append(len(self._members))
        if self._lists and self._lists + self._skipped < len(self):
            raise DataError(
                self._field,
                f"labels are lists for some samples and not for others, such as {where} ({_shown(label)}); give every "
                "sample a list, an empty one where no class applies",
            )

    def skip(self) -> None:
        """Takes a sample that is broken, whose label nobody will ask for."""
        self._skipped += 1
        if not self._lists:
            self._members.append(-1)
        self._starts.append(len(self._members))

    def finish(self) -> Labelling:
        """Returns the labels.

        Raises:
            DataError: Some are names and some are numbers, or an index is impossible.
        """
        if self._strings and self._numbers:
            return self._mixed()
        members = np.frombuffer(self._members, dtype=np.int64) if self._members else np.zeros(0, dtype=np.int64)
        names, by_position = self._names, False
        if self._strings:
            names, members = self._sorted(members)
            by_position = self._names is None
        if self._lists:
            return self._several(members, names, by_position=by_position)
        return Labelling(members.copy(), names, by_position)

    def _add_list(self, labels: Sequence[Any], where: str) -> None:
        codes = [self._code(label, where) for label in labels]
        vector = len(codes) > 1 and set(codes) <= {0, 1} and not self._strings
        if not self._lists:
            self._vector = len(codes) if vector else None
        elif self._vector is not None and not (vector and len(codes) == self._vector):
            self._reread_as_indices()
        self._lists += 1
        if self._vector is not None:
            self._members.extend(index for index, value in enumerate(codes) if value)
            return
        if codes and min(codes) < 0:
            raise DataError(self._field, f"{where} has the class {min(codes)} in its list; classes count from 0")
        self._members.extend(sorted(set(codes)))

    def _reread_as_indices(self) -> None:
        """Takes back that lists so far were vectors: what was one of zeros and ones is a list of classes 0 and 1."""
        members, starts = array("q"), array("q", [0])
        for start, stop in zip(self._starts[:-1], self._starts[1:], strict=True):
            ones = stop - start
            members.extend([*([0] if ones < (self._vector or 0) else []), *([1] if ones else [])])
            starts.append(len(members))
        self._members, self._starts, self._vector = members, starts, None

    def _code(self, label: Any, where: str) -> int:
        if isinstance(label, bool | int | np.integer | np.bool_):
            return self._number(int(label), where)
        if isinstance(label, float | np.floating) and float(label).is_integer():
            return self._number(int(label), where)
        if not isinstance(label, str) or (_FRACTION.fullmatch(label) and not float(label).is_integer()):
            raise DataError(
                self._field,
                f"{where} has the label {_shown(label)}; labels are whole numbers, names, or lists of either",
            )
        if self._names is None and _WHOLE.fullmatch(label):
            return self._number(int(label), where)
        return self._name(label, where)

    def _number(self, value: int, where: str) -> int:
        if not -1 <= value < MAX_CLASSES:
            raise DataError(
                self._field,
                f"{where} has the label {value}; labels count from 0 to at most {MAX_CLASSES - 1}, and -1 means "
                "no label",
            )
        self._numbers += 1
        return value

    def _name(self, name: str, where: str) -> int:
        self._strings += 1
        if self._names is not None and name not in self._names:
            raise DataError(self._field, f"{where} has the label {_shown(name)}, which is none of the classes' names")
        if name not in self._codes and len(self._codes) >= MAX_NAMES:
            raise DataError(
                self._field,
                f"there are more than {MAX_NAMES} different labels; that is no column of classes, name another",
            )
        return self._codes.setdefault(name, len(self._codes))

    def _mixed(self) -> Labelling:
        some = next(iter(self._codes))
        raise DataError(
            self._field,
            f"{self._strings} labels are names such as {_shown(some)} and {self._numbers} are numbers; give one kind",
        )

    def _sorted(self, codes: npt.NDArray[np.int64]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
        names = self._names or tuple(sorted(self._codes))
        place = {name: index for index, name in enumerate(names)}
        table = np.array([*(place[name] for name in self._codes), -1], dtype=np.int64)
        return names, table[codes]  # -1, no label, picks the -1 at the table's end

    def _several(
        self, members: npt.NDArray[np.int64], names: tuple[str, ...] | None, *, by_position: bool
    ) -> Labelling:
        starts = np.frombuffer(self._starts, dtype=np.int64).copy()
        if len(skipped := np.flatnonzero(members < 0)):  # broken samples before the first list
            starts -= np.searchsorted(skipped, starts)
            members = np.delete(members, skipped)
        fixed = names is not None or self._vector is not None
        width = len(names) if names else self._vector or int(members.max(initial=0)) + 1
        return Labelling.several(
            ClassSets(starts, members.astype(np.int32), width, fixed), names, by_position=by_position
        )


def _shown(label: Any) -> str:
    text = repr(label)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_labels(labels: Iterator[tuple[Any, str]], field: str, names: Sequence[str] | None = None) -> Labelling:
    """Returns the labelling of labels that come one by one, each with the name of its sample; see `LabelReader.add`.

    Raises:
        DataError: They are no labels, or not all of one kind.
    """
    reader = LabelReader(field, names)
    for label, where in labels:
        reader.add(label, where)
    return reader.finish()
