"""Whether samples fit each other and the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from service.data.errors import DataError

if TYPE_CHECKING:
    from service.data.split import Split

_NAMED = 5


def check_against(split: Split, outputs: int) -> None:
    """Checks the labels against the model's number of outputs.

    Raises:
        DataError: A label is out of range; or the classes are known by position only, and they are not as many as the
            outputs, so that nobody can tell which is which; or vectors of labels have another length than the outputs.
    """
    if split.highest >= outputs:
        count = "some" if split.several else int((split.labels() >= outputs).sum())
        raise DataError(
            split.field,
            f"{count} samples have a label above {outputs - 1} (highest {split.highest}) and the model has {outputs} "
            "outputs; labels count from 0; give the data that the model was trained for",
        )
    if split.width is not None and split.classes is None and split.width != outputs:
        raise DataError(
            split.field,
            f"labels are vectors over {split.width} classes and the model has {outputs} outputs; wanted one column per "
            "output",
        )
    known = split.classes
    if known is not None and len(known) != outputs and (split.classes_by_position or len(known) > outputs):
        raise DataError(
            split.field,
            f"found {len(known)} classes ({_few(known)}) and the model has {outputs} outputs; which class is which "
            f"output cannot be told; give all {outputs} classes, or numeric labels in Parquet or .npz",
        )


def check_same_classes(train: Split, validation: Split) -> None:
    """Checks that both splits number their classes the same way.

    Raises:
        DataError: Their class names differ, or samples have several classes in one and one in the other.
    """
    if train.several != validation.several and train.labelled and validation.labelled:
        kinds = ("one class per sample", "several classes per sample")
        raise DataError(
            validation.field,
            f"training has {kinds[train.several]} and validation {kinds[validation.several]}; label both the same way",
        )
    if train.classes is None or validation.classes is None or train.classes == validation.classes:
        return
    missing = [name for name in train.classes if name not in validation.classes]
    extra = [name for name in validation.classes if name not in train.classes]
    differences = [
        *([f"missing {_few(missing)}"] if missing else []),
        *([f"unknown {_few(extra)}"] if extra else []),
        *(["the same names in another order"] if not missing and not extra else []),
    ]
    raise DataError(
        validation.field,
        f"validation has {len(validation.classes)} classes and training {len(train.classes)}: "
        f"{'; '.join(differences)}; the same class must have the same number in both",
    )


def check_labels(split: Split) -> None:
    """Checks that labels, where there are any, tell at least two classes apart.

    Raises:
        DataError: All samples have the same label, or a label is below -1.
    """
    if split.several:
        if split.highest < 0:
            raise DataError(split.field, f"no class applies to any of {len(split)} samples; correct the labels")
        return
    found = np.unique(split.labels())
    if found[0] < -1:
        raise DataError(split.field, f"labels go down to {found[0]}; they count from 0, and -1 means no label")
    if len(found) == 1 and found[0] >= 0:
        name = split.classes[found[0]] if split.classes else str(found[0])
        raise DataError(
            split.field,
            f"all {len(split)} samples have one class ({name}); wanted at least two; "
            "give a folder with one folder per class, or data without labels",
        )


def _few(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:_NAMED])) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
