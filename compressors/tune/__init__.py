"""Short fine-tuning with distillation from the original."""

from compressors.tune.config import TuneConfig
from compressors.tune.run import Tuned, tune

__all__ = ["TuneConfig", "Tuned", "tune"]
