"""Samples for calibration, choices, fine-tuning and evaluation, from what the caller stored."""

from service.data.checks import check_against, check_same_classes
from service.data.errors import TRAIN, VALIDATION, DataError
from service.data.opening import open_split
from service.data.parts import Parts, parts
from service.data.preprocessing import ResolvedPreprocessing, resolve
from service.data.split import Split

__all__ = [
    "TRAIN",
    "VALIDATION",
    "DataError",
    "Parts",
    "ResolvedPreprocessing",
    "Split",
    "check_against",
    "check_same_classes",
    "open_split",
    "parts",
    "resolve",
]
