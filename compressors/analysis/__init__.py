"""What may be cut: found from the graph alone."""

from compressors.analysis.find import Limits, analyse
from compressors.analysis.segments import Analysis, Chain, Position, Refusal, Segment, Site

__all__ = ["Analysis", "Chain", "Limits", "Position", "Refusal", "Segment", "Site", "analyse"]
