"""Which columns hold the samples: those that the caller names, else those with the names that people give them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from service.data.errors import DataError

IMAGE_COLUMNS: Final = ("image", "img", "images")
LABEL_COLUMNS: Final = ("label", "labels", "fine_label", "target", "class", "category")
TEXT_PAIRS: Final = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("query", "passage"),
)
TEXT_COLUMNS: Final = ("text", "sentence", "content", "review", "document", "question")

_SHOWN = 12


@dataclass(frozen=True)
class Columns:
    """Columns that the caller names; empty to find them.

    Attributes:
        text: One column of texts, or two whose texts are given to the model together.
        image: The column of encoded images.
        label: The column of labels.
    """

    text: tuple[str, ...] = ()
    image: str = ""
    label: str = ""


def text_columns(asked: Columns, found: Sequence[str], where: str, field: str) -> tuple[str, ...]:
    """Returns the names of the one or two columns of text.

    Args:
        asked: What the caller names.
        found: The columns that there are.
        where: The file, for messages.
        field: What to blame.

    Raises:
        DataError: There are none.
    """
    if asked.text:
        return tuple(_named(name, found, where, field) for name in asked.text)
    known = {name.strip().lower(): name for name in reversed(found)}
    for pair in TEXT_PAIRS:
        if all(name in known for name in pair):
            return tuple(known[name] for name in pair)
    for name in TEXT_COLUMNS:
        if name in known:
            return (known[name],)
    raise DataError(
        field,
        f"no column of texts in {where}: found {listed(found)}; wanted one of {', '.join(TEXT_COLUMNS)}, a pair "
        f"such as {' and '.join(TEXT_PAIRS[0])}, or the names in data.text_columns (--text-column)",
    )


def label_column(asked: Columns, found: Sequence[str], where: str, field: str) -> str | None:
    """Returns the name of the column of labels, None where there is none.

    Raises:
        DataError: The caller names one that there is not.
    """
    if asked.label:
        return _named(asked.label, found, where, field)
    return next((name for name in LABEL_COLUMNS if name in found), None)


def image_column(asked: Columns, usable: Sequence[str], found: Collection[str], where: str, field: str) -> str:
    """Returns the name of the column of images.

    Args:
        asked: What the caller names.
        usable: The columns that hold bytes.
        found: Every column, as it is shown to the caller.
        where: The file, for messages.
        field: What to blame.

    Raises:
        DataError: There is none.
    """
    wanted = (asked.image,) if asked.image else IMAGE_COLUMNS
    for name in wanted:
        if name in usable:
            return name
    raise DataError(
        field,
        f"no image column in {where}: found {listed(found)}; wanted {' or '.join(map(repr, wanted))} with encoded "
        "images as bytes, or as a struct with bytes",
    )


def _named(name: str, found: Sequence[str], where: str, field: str) -> str:
    if name not in found:
        raise DataError(field, f"{where} has no column {name[:60]!r}: found {listed(found)}; name one of these")
    return name


def listed(names: Collection[str]) -> str:
    """Returns the first names, for a message."""
    shown = [name[:60] for name in list(names)[:_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
