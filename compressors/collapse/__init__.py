"""Ways to collapse an activation: what line takes its place, and putting it there."""

from compressors.channel_line import ChannelLine, Line, identity_line
from compressors.collapse.axes import channel_axes, line_axis
from compressors.collapse.expectation import Expectation, expect, gaussian_line
from compressors.collapse.fold import fold_lines
from compressors.collapse.linearise import line_name, linearise
from compressors.collapse.moments import Moments, Unknown
from compressors.collapse.propagation import gaussian_moments
from compressors.collapse.statistics import SiteStatistics, site_statistics
from compressors.collapse.ways import Way, lines

__all__ = [
    "ChannelLine",
    "Expectation",
    "Line",
    "Moments",
    "SiteStatistics",
    "Unknown",
    "Way",
    "channel_axes",
    "expect",
    "fold_lines",
    "gaussian_line",
    "gaussian_moments",
    "identity_line",
    "line_axis",
    "line_name",
    "linearise",
    "lines",
    "site_statistics",
]
