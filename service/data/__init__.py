"""Samples for calibration, choices, fine-tuning and evaluation, from what the caller stored."""

from service.data.checks import check_against, check_same_classes
from service.data.columns import Columns
from service.data.errors import TRAIN, VALIDATION, DataError
from service.data.opening import open_split
from service.data.parts import Parts, parts
from service.data.preprocessing import ResolvedPreprocessing, resolve
from service.data.split import Split
from service.data.tokenizing import load_tokenizer
from service.data.tokens import TokenRecipe, takes_tokens

__all__ = [
    "TRAIN",
    "VALIDATION",
    "Columns",
    "DataError",
    "Parts",
    "ResolvedPreprocessing",
    "Split",
    "TokenRecipe",
    "check_against",
    "check_same_classes",
    "load_tokenizer",
    "open_split",
    "parts",
    "resolve",
    "takes_tokens",
]
