"""What may be cut: found from the graph alone."""

from compressors.analysis.find import Limits, analyse
from compressors.analysis.geometry import Padding
from compressors.analysis.merges import MergeOption, MergeRegion
from compressors.analysis.regions import MergeSpace, Reach, merge_space
from compressors.analysis.segments import Analysis, Chain, Position, Refusal, Segment, Site

__all__ = [
    "Analysis",
    "Chain",
    "Limits",
    "MergeOption",
    "MergeRegion",
    "MergeSpace",
    "Padding",
    "Position",
    "Reach",
    "Refusal",
    "Segment",
    "Site",
    "analyse",
    "merge_space",
]
