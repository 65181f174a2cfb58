"""Running a graph in stretches gives what running it whole gives."""

import pytest
import torch

from compressors.batches import channels_last
from compressors.execute import Stream, descendants, evaluate, live_bytes
from tests.compressors.networks import NETWORKS, graph_of


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("cached", [True, False])
def test_stepwise_equals_whole(name: str, cached: bool) -> None:
    graph = graph_of(name)
    batches = [graph.samples(2, seed) for seed in (1, 2)]
    stream = Stream(graph.module, batches, cached=cached)
    for node in graph.module.graph.nodes:
        stream.advance(node.name)
        if node.op == "call_module":
            stream.at(0)
    for at, inputs in enumerate(batches):
        with torch.no_grad():
            expected = graph.module(*map(channels_last, inputs))
        output = stream.at(at)[next(node.name for node in graph.module.graph.nodes if node.op == "output")]
        actual = output[0] if isinstance(output, tuple) else output
        torch.testing.assert_close(actual, expected[0] if isinstance(expected, tuple) else expected, rtol=0, atol=0)


def test_keeps_only_what_is_still_read_or_wanted() -> None:
    graph = graph_of("resnet-a")
    names = [node.name for node in graph.module.graph.nodes]
    stream = Stream(graph.module, [graph.samples(2)], wanted=["bn"])
    stream.advance("head")
    assert set(stream.at(0)) == {"bn", "head"}
    stream.release("bn")
    stream.advance(names[-1])
    assert set(stream.at(0)) == {names[-1]}


def test_weights_ahead_may_change() -> None:
    graph = graph_of("resnet-a").copied()
    stream = Stream(graph.module, [graph.samples(2)])
    stream.advance("conv")
    before = stream.at(0)["conv"]
    with torch.no_grad():
        graph.module.get_submodule("head").bias.add_(1)
    stream.advance("head")
    with torch.no_grad():
        torch.testing.assert_close(stream.at(0)["head"], graph.module(*graph.samples(2)))
    assert before.shape[1] == 8


def test_descendants_are_all_that_changes_and_nothing_else() -> None:
    graph = graph_of("branches")
    nodes = {node.name for node in descendants(graph.module, "two_0")}
    assert "one" not in nodes
    assert {"two_1", "two_2", "last"} <= nodes


def test_placeholder_cannot_be_computed() -> None:
    graph = graph_of("branches")
    with pytest.raises(ValueError, match="has to be given"):
        evaluate(graph.module, [next(iter(graph.module.graph.nodes))], {})


def test_live_bytes_counts_what_is_kept_at_the_widest_point() -> None:
    graph = graph_of("shared")
    assert live_bytes(graph.module, graph.samples(2)) == 2 * 4 * 16 * 16 * 4
