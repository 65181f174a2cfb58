"""What tasks are called in requests. Light, for the command line; `compressors.tasks` says what they are."""

from __future__ import annotations

from typing import Final, Literal, get_args

TaskName = Literal["classification", "multi_label", "denoising", "none"]
TASK_NAMES: Final[tuple[str, ...]] = get_args(TaskName)
OTHER_TASK_NAMES: Final = {
    "image_classification": "classification",
    "text_classification": "classification",
    "distillation": "none",
}
"""What people also call them."""
