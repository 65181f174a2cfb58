"""Short fine-tuning with distillation from the original."""

from compressors.tune.config import TuneConfig
from compressors.tune.norms import reestimate
from compressors.tune.recipe import Recipe
from compressors.tune.regulariser import ParameterGroup, Regulariser
from compressors.tune.run import Checkpoint, Tuned, tune

__all__ = ["Checkpoint", "ParameterGroup", "Recipe", "Regulariser", "TuneConfig", "Tuned", "reestimate", "tune"]
