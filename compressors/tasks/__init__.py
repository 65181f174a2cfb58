"""What a network is for: its loss, how far its outputs are from the original's, and how good it is."""

from compressors.tasks.choose import TASKS, check_task, choose_task, is_class_scores, judged_output, task_named
from compressors.tasks.classification import Classification
from compressors.tasks.denoising import Denoising
from compressors.tasks.multi_label import MultiLabel
from compressors.tasks.noise import DrawnSamples, NoiseSchedule, NoisySamples, is_denoiser, noised
from compressors.tasks.task import Task
from compressors.tasks.unlabelled import Unlabelled

__all__ = [
    "TASKS",
    "Classification",
    "Denoising",
    "DrawnSamples",
    "MultiLabel",
    "NoiseSchedule",
    "NoisySamples",
    "Task",
    "Unlabelled",
    "check_task",
    "choose_task",
    "is_class_scores",
    "is_denoiser",
    "judged_output",
    "noised",
    "task_named",
]
