"""Changes to graphs. Every one returns a new object and checks its own result."""

from compressors.surgery.apply import apply, cut_name
from compressors.surgery.extract import extract, prefix_outputs
from compressors.surgery.loss import step_errors
from compressors.surgery.maximal import free_steps, maximal_steps, merge_step, reparameterise
from compressors.surgery.merge import Merged, fold_norms, merge
from compressors.surgery.verify import Agreement, Verification, agreement

__all__ = [
    "Agreement",
    "Merged",
    "Verification",
    "agreement",
    "apply",
    "cut_name",
    "extract",
    "fold_norms",
    "free_steps",
    "maximal_steps",
    "merge",
    "merge_step",
    "prefix_outputs",
    "reparameterise",
    "step_errors",
]
