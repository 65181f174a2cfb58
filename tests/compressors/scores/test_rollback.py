"""Stopping and going back, on the published curves of EASIER."""

import csv
import math
from collections import defaultdict
from pathlib import Path

import pytest

from compressors.scores.rollback import Descent, Tolerance

ARCHITECTURES = ("ResNet-18", "Swin-T", "MobileNetv2", "VGG-16")
# Sites that can go with at most one point less, and with at most three, stopping at the first violation.
REMOVABLE = {
    "CIFAR-10": ((8, 10), (8, 9), (15, 21), (10, 13)),
    "Tiny-ImageNet-200": ((5, 5), (0, 0), (29, 31), (1, 3)),
    "PACS": ((14, 14), (0, 2), (4, 12), (4, 7)),
    "VLCS": ((14, 14), (0, 2), (0, 2), (0, 2)),
    "Flowers-102": ((1, 4), (2, 2), (10, 16), (3, 6)),
    "DTD": ((4, 6), (3, 3), (0, 7), (4, 4)),
    "Aircraft": ((1, 3), (2, 7), (2, 6), (4, 4)),
}


def curves():
    found = defaultdict(dict)
    with (Path(__file__).parents[1] / "data" / "easier_results.csv").open() as file:
        for row in csv.DictReader(file):
            found[row["dataset"], row["arch"]][int(row["removed"])] = float(row["top1"])
    return {key: [values[k] for k in sorted(values)] for key, values in found.items()}


def descend(curve, tolerance, patience=0):
    descent = Descent(0, curve[0], tolerance, patience)
    for step, figure in enumerate(curve[1:], start=1):
        if not descent.offer(step, figure):
            break
    return descent


@pytest.mark.parametrize("dataset", REMOVABLE)
def test_published_curves(dataset):
    every = curves()
    for architecture, wanted in zip(ARCHITECTURES, REMOVABLE[dataset], strict=True):
        curve = every[dataset, architecture]
        assert tuple(descend(curve, Tolerance(points)).kept for points in (1.0, 3.0)) == wanted


def test_patience_looks_past_a_dip_and_never_keeps_less():
    curve = curves()["VLCS", "MobileNetv2"]
    kept = [descend(curve, Tolerance(3.0), patience).kept for patience in (0, 1, 2, 20)]
    assert kept == sorted(kept)
    assert kept[-1] == max(k for k, value in enumerate(curve) if value >= curve[0] - 3)
    assert kept[0] < kept[-1]


def test_goes_back_to_the_last_admissible_state():
    descent = Descent("original", 0.90, Tolerance(0.01), patience=1)
    assert descent.offer("one", 0.895)
    assert descent.offer("two", 0.80)
    assert descent.offer("three", 0.891)
    assert descent.offer("four", 0.88)
    assert not descent.offer("five", 0.88)
    assert (descent.kept, descent.figure, descent.kept_step, descent.steps) == ("three", 0.891, 3, 5)


def test_the_original_stays_where_nothing_is_admissible():
    descent = Descent("original", 0.9, Tolerance(0.0))
    assert not descent.offer("one", math.nan)
    assert descent.kept == "original"


@pytest.mark.parametrize(
    ("tolerance", "original", "figure", "allowed"),
    [
        (Tolerance(0.1), 0.7, 0.6, True),
        (Tolerance(0.1), 0.7, 0.5999, False),
        (Tolerance(0.1, relative=True), 0.7, 0.63, True),
        (Tolerance(0.1, relative=True), 0.7, 0.62, False),
        (Tolerance(0.1, higher_is_better=False), 0.2, 0.3, True),
        (Tolerance(0.1, higher_is_better=False), 0.2, 0.31, False),
        (Tolerance(0.5, relative=True, higher_is_better=False), 2.0, 3.0, True),
    ],
)
def test_what_is_allowed(tolerance, original, figure, allowed):
    assert tolerance.allows(figure, original) == allowed
