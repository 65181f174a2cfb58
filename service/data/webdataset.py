"""WebDataset shards: tar archives in which the members of one sample lie together under one name.

`0001.jpg` and `0001.cls` are one sample: the name up to the first dot of its last part is the key, what follows says
what the member is. Shards are indexed once, by where each image lies; nothing is unpacked, so that any image is reached
at once, samples can be shuffled and memory holds a few numbers for each. Labels are read as text and JSON. Members that
only unpickling could read are refused by name, all others are left alone.
"""

from __future__ import annotations

import io
import json
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from typing_extensions import override

from service.data.archives import open_tar
from service.data.errors import BrokenSampleError, DataError
from service.data.images import Images, decode_all
from service.data.labels import Labelling, LabelReader
from service.wording import reason

if TYPE_CHECKING:
    import numpy.typing as npt

    from service.data.columns import Columns
    from service.data.preprocessing import ResolvedPreprocessing

IMAGES: Final = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")
LABELS: Final = ("cls", "json")
JSON_LABELS: Final = ("label", "labels", "cls", "class", "target")
PICKLES: Final = ("pyd", "pickle", "pkl", "pth", "pt", "dill", "joblib")
MAX_LABEL_BYTES: Final = 1 << 20
MAX_IMAGE_BYTES: Final = 1 << 30
MAX_SAMPLES: Final = 100_000_000

_PEEKED = 64


@dataclass(frozen=True)
class _Member:
    """One file in a shard: its key and what it is, where its header and its content start, and how long it is."""

    key: str
    kind: str
    header: int
    start: int
    size: int


@final
class ShardImages(Images):
    """Images in tar archives, by where they lie."""

    def __init__(self, shards: Sequence[Path], index: _Index, recipe: ResolvedPreprocessing) -> None:
        self._shards = shards
        self._shard, self._header, self._start, self._size = index.arrays()
        self._recipe = recipe

    @override
    def __len__(self) -> int:
        return len(self._start)

    @override
    def load(self, indices: Sequence[int]) -> list[npt.NDArray[np.uint8] | BrokenSampleError]:
        found: list[bytes | BrokenSampleError] = [b""] * len(indices)
        # In the order in which they lie, so that each shard is opened once.
        order = sorted(range(len(indices)), key=lambda place: int(indices[place]))
        opened, number = None, -1
        try:
            for place in order:
                index = indices[place]
                if self._shard[index] != number:
                    if opened:
                        opened.close()
                    number = int(self._shard[index])
                    opened = self._shards[number].open("rb")
                assert opened is not None
                found[place] = _content(opened, int(self._start[index]), int(self._size[index]))
        finally:
            if opened:
                opened.close()
        return decode_all(found, self._recipe)

    @override
    def name(self, index: int) -> str:
        shard = self._shards[int(self._shard[index])]
        try:
            with shard.open("rb") as opened:
                opened.seek(int(self._header[index]))
                with tarfile.open(fileobj=opened, mode="r:") as archive:
                    member = archive.next()
            return f"{shard.name}/{member.name[:200] if member else index}"
        except (tarfile.TarError, OSError):
            return f"{shard.name}, sample {index}"


def _content(shard: io.BufferedReader, start: int, size: int) -> bytes | BrokenSampleError:
    if size < 0:
        return BrokenSampleError(f"the sample holds no image; wanted one of .{', .'.join(IMAGES)}")
    if size > MAX_IMAGE_BYTES:
        return BrokenSampleError(f"the image has {size} bytes, at most {MAX_IMAGE_BYTES} are taken")
    shard.seek(start)
    data = shard.read(size)
    return data if len(data) == size else BrokenSampleError("the shard ends inside of it")


@dataclass(frozen=True)
class _Index:
    """Where each sample's image lies; a size of -1 where there is none."""

    shard: array[int] = field(default_factory=lambda: array("i"))
    header: array[int] = field(default_factory=lambda: array("q"))
    start: array[int] = field(default_factory=lambda: array("q"))
    size: array[int] = field(default_factory=lambda: array("q"))

    def add(self, shard: int, header: int, start: int, size: int) -> None:
        """Takes the next sample."""
        for column, value in zip(
            (self.shard, self.header, self.start, self.size), (shard, header, start, size), strict=True
        ):
            column.append(value)

    def arrays(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Returns the four columns."""
        return tuple(np.asarray(column) for column in (self.shard, self.header, self.start, self.size))


def is_webdataset(file: Path) -> bool:
    """Tells whether a tar archive is a shard: whether an image and a label at its start have the same key."""
    kinds: dict[str, set[str]] = {}
    try:
        for number, member in enumerate(_members(file, "")):
            kinds.setdefault(member.key, set()).add(member.kind)
            if number >= _PEEKED:
                break
    except (DataError, OSError):
        return any(found & {*LABELS, *PICKLES} for found in kinds.values())
    return any(found & set(IMAGES) and found & {*LABELS, *PICKLES} for found in kinds.values())


def open_shards(
    shards: Sequence[Path], recipe: ResolvedPreprocessing, columns: Columns, blame: str
) -> tuple[ShardImages, Labelling]:
    """Opens shards as one split.

    Args:
        shards: Tar archives that are not compressed, in order.
        recipe: How images are decoded.
        columns: Names the JSON key of the label, if the caller does.
        blame: The job spec's field.

    Raises:
        DataError: A shard is damaged or compressed, holds links, pickles or climbing names, or a label is none.
    """
    index, labels = _Index(), LabelReader(blame)
    keys = (columns.label,) if columns.label else JSON_LABELS
    for number, shard in enumerate(shards):
        with shard.open("rb") as opened:
            for members in _samples(shard, blame):
                image = next((members[kind] for kind in IMAGES if kind in members), None)
                where = f"{shard.name}/{next(iter(members.values())).key}"
                labels.add(_label(opened, members, keys, where, blame), where)
                if image is None:
                    index.add(number, next(iter(members.values())).header, 0, -1)
                else:
                    index.add(number, image.header, image.start, image.size)
        if len(index.start) > MAX_SAMPLES:
            raise DataError(blame, f"the shards hold more than {MAX_SAMPLES} samples; give less data")
    if not any(size >= 0 for size in index.size):
        raise DataError(
            blame, f"{shards[0].name} holds no images; wanted members such as 0001.jpg and 0001.cls, found none"
        )
    return ShardImages(shards, index, recipe), labels.finish()


def _samples(shard: Path, blame: str) -> Iterator[dict[str, _Member]]:
    """Yields the members of one sample by what they are: those that follow each other with the same key."""
    sample: dict[str, _Member] = {}
    key = None
    for member in _members(shard, blame):
        if member.key != key or member.kind in sample:
            if _is_sample(sample):
                yield sample
            sample, key = {}, member.key
        if member.kind in PICKLES:
            raise DataError(
                blame,
                f"{shard.name} holds {member.key}.{member.kind}, which would have to be unpickled, and that runs code; "
                "store labels as .cls or .json and images as .jpg or .png",
            )
        sample[member.kind] = member
    if _is_sample(sample):
        yield sample


def _is_sample(members: dict[str, _Member]) -> bool:
    return any(kind in members for kind in (*IMAGES, *LABELS))


def _members(shard: Path, blame: str) -> Iterator[_Member]:
    with open_tar(shard, blame) as archive:
        while (info := archive.next()) is not None:
            # tarfile keeps every header it has read; millions of them are gigabytes.
            archive.members = []  # type: ignore[attr-defined]  # not in typeshed
            if info.isdir():
                continue
            _require_plain(info, shard, blame)
            path = PurePosixPath(info.name)
            stem, _, kind = path.name.partition(".")
            if stem:  # hidden files, such as those that macOS adds, have none
                yield _Member(str(path.with_name(stem)), kind.lower(), info.offset, info.offset_data, info.size)


def _require_plain(info: tarfile.TarInfo, shard: Path, blame: str) -> None:
    parts = PurePosixPath(info.name).parts
    if info.name.startswith("/") or ".." in parts:
        raise DataError(
            blame, f"{shard.name} holds the name {info.name[:200]!r}, which lies outside; pack relative names"
        )
    if not info.isreg() or info.issparse():
        raise DataError(
            blame, f"{shard.name} holds {info.name[:200]!r}, a link, a device or a sparse file; pack plain files"
        )


def _label(shard: io.BufferedReader, members: dict[str, _Member], keys: Sequence[str], where: str, blame: str) -> Any:
    """Returns a sample's label from its `.cls`, else from its `.json`; None without."""
    member = members.get("cls") or members.get("json")
    if member is None:
        return None
    if member.size > MAX_LABEL_BYTES:
        raise DataError(blame, f"{where}.{member.kind} has {member.size} bytes, at most {MAX_LABEL_BYTES} are read")
    shard.seek(member.start)
    try:
        text = shard.read(member.size).decode()
        if member.kind == "cls":
            return text.strip()
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise DataError(
            blame, f"{where}.{member.kind} is no {'text' if member.kind == 'cls' else 'JSON'}: {reason(exc)}"
        ) from exc
    if not isinstance(found, dict):
        return found
    return next((found[key] for key in keys if key in found), None)
