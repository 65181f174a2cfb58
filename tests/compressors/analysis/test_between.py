from __future__ import annotations

import pytest

from compressors.analysis import analyse
from compressors.analysis.between import Between, between
from tests.compressors.networks import graph_of


@pytest.mark.parametrize("name", ["resnet-a", "resnet-b", "mobilenet"])
def test_it_finds_in_a_segment_what_the_segment_says(name):
    graph = graph_of(name)
    analysis = analyse(graph)
    assert analysis.segments
    for segment in analysis.segments:
        found = between(graph, analysis, segment.entry, segment.exit)
        assert (set(found.sites), set(found.operators)) == (set(segment.sites), set(segment.operators))


def test_one_activation_passed_by_holds_itself_alone():
    graph = graph_of("resnet-b")
    analysis = analyse(graph)
    nodes = {node.name: node for node in graph.module.graph.nodes}
    for site in analysis.sites:
        entry = nodes[site.node].all_input_nodes[0].name
        assert between(graph, analysis, entry, site.node) == Between((site.node,), ())


def test_where_no_way_leads_nothing_lies():
    graph = graph_of("resnet-b")
    analysis = analyse(graph)
    first, last = analysis.sites[0].node, analysis.sites[-1].node
    assert between(graph, analysis, last, first) == Between((), ())
