"""The three ways to find a line for an activation, behind one door.

identity: slope 1, intercept 0, as the papers do; training has to repair the rest.
gaussian: the best line for the inputs that the weights let expect; needs no data.
fitted: the best line for the inputs that calibration data gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from compressors.analysis.segments import Refusal, Site
from compressors.channel_line import Line, identity_line
from compressors.collapse.axes import channel_axes, line_axis
from compressors.collapse.expectation import gaussian_line
from compressors.collapse.moments import Moments, Unknown
from compressors.collapse.propagation import gaussian_moments
from compressors.collapse.statistics import SiteStatistics
from compressors.errors import OptionError
from compressors.graph import Graph
from compressors.shapes import propagate


class Way(StrEnum):
    """How to find the line that takes an activation's place."""

    IDENTITY = "identity"
    GAUSSIAN = "gaussian"
    FITTED = "fitted"


def lines(
    graph: Graph, sites: Sequence[Site], way: Way | str, statistics: Mapping[str, SiteStatistics] | None = None
) -> dict[str, Line | Refusal]:
    """Returns the line for every site by node name, or why there is none.

    Args:
        graph: The model.
        sites: Activation calls of it.
        way: Which of the three.
        statistics: From `site_statistics`; "fitted" needs them. With the other ways, they turn the lines' errors into
            measured ones.

    Raises:
        OptionError: The way is unknown, or "fitted" has no statistics of a site.
    """
    chosen = _checked(way)
    measured = statistics or {}
    if chosen is Way.FITTED:
        return {site.node: _fitted(graph, site, measured) for site in sites}
    if chosen is Way.IDENTITY:
        return {site.node: _remeasured(identity_line(), measured.get(site.node)) for site in sites}
    moments, axes = gaussian_moments(graph), channel_axes(graph)
    return {site.node: _gaussian(graph, site, moments, axes, measured.get(site.node)) for site in sites}


def _checked(way: Way | str) -> Way:
    try:
        return Way(way)
    except ValueError as exc:
        raise OptionError("collapse", f"unknown way to collapse {way!r}; known: {', '.join(Way)}") from exc


def _fitted(graph: Graph, site: Site, measured: Mapping[str, SiteStatistics]) -> Line:
    if site.node not in measured:
        raise OptionError("collapse", f"no statistics of activation {site.target!r} ({site.node}) in {graph.name!r}")
    return measured[site.node].line()


def _remeasured(line: Line, seen: SiteStatistics | None) -> Line:
    return line if seen is None else replace(line, error=seen.relative_error(line.slope, line.intercept))


def _gaussian(
    graph: Graph,
    site: Site,
    moments: Mapping[str, Moments | Unknown],
    axes: Mapping[str, int],
    seen: SiteStatistics | None,
) -> Line | Refusal:
    node = next(node for node in graph.module.graph.nodes if node.name == site.node)
    found = moments[node.all_input_nodes[0].name]
    if isinstance(found, Unknown):
        return Refusal(
            site.target, f"No line for {site.target} without data: {found.reason}. Give calibration data.", "no-moments"
        )
    rank = len(propagate(graph.module, graph.inputs).full[site.node])
    axis = line_axis(axes, site.node, rank)
    if axis is None:
        return Refusal(
            site.target, f"No line for {site.target}: nothing tells which dimension has its channels.", "axis"
        )
    mean, variance = found.along(axis, rank)
    line = gaussian_line(graph.module.get_submodule(site.target), mean, variance.sqrt(), axis)
    return _remeasured(replace(line, source=f"gaussian: {found.source}"), seen)
