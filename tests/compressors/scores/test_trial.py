"""Trial removals; the published rule against the specification's oracle (T14)."""

import math

import pytest
import torch
from torch.nn import functional as F

from compressors.analysis.sites import find_sites
from compressors.batches import Batch
from compressors.channel_line import identity_line
from compressors.collapse import linearise
from compressors.scores.trial import Trials, fixed_loss, published
from compressors.shapes import propagate
from tests.compressors.networks import graph_of

GAPS = {"a": -0.3, "b": -0.1, "c": 0.05, "d": 0.5, "e": 0.4}


def added(gaps):
    return lambda names: sum(gaps[name] for name in names)


def linear(graph, names):
    return linearise(graph, dict.fromkeys(names, identity_line()))


def batches_of(graph, *sizes):
    generator = torch.Generator().manual_seed(1)
    return [Batch(graph.samples(n, n), torch.randint(0, 5, (n,), generator=generator)) for n in sizes]


def names_of(graph):
    return [site.node for site in find_sites(graph.module, propagate(graph.module, graph.inputs))]


def test_t14_the_published_rule_removes_what_tips_it_too():
    assert published(GAPS, added(GAPS)) == ("a", "b", "c", "e")


def test_t14_the_published_rule_removes_one_where_nothing_tips_it_or_nothing_helps():
    assert published(GAPS, lambda _names: -1.0) == ("a",)
    assert published({"a": 0.2, "c": 0.1}, added({"a": 0.2, "c": 0.1})) == ("c",)
    assert published({}, added({})) == ()


def test_gap_is_the_loss_without_minus_the_loss_with():
    graph = graph_of("mobilenet")
    (batch,) = batches_of(graph, 6)
    trials = Trials(graph, linear, fixed_loss([batch], F.cross_entropy))
    names = names_of(graph)[:2]
    with torch.no_grad():
        losses = [F.cross_entropy(g.module(*batch.inputs), batch.labels) for g in (graph, linear(graph, names))]
    assert trials.gap(names) == pytest.approx(float(losses[1] - losses[0]), abs=1e-6)
    assert trials.gap(()) == 0


def test_gaps_are_sorted_and_each_set_is_tried_once():
    graph, tried = graph_of("vgg"), []

    def remove(graph, names):
        tried.append(names)
        return linear(graph, names)

    trials = Trials(graph, remove, fixed_loss(batches_of(graph, 4), F.cross_entropy))
    found = trials.gaps(names_of(graph))
    assert list(found.values()) == sorted(found.values())
    assert trials.gaps(names_of(graph)) == found
    assert trials.gap(tuple(found)[:2]) == trials.gap(tuple(reversed(tuple(found)[:2])))
    assert len(tried) == len(names_of(graph)) + 1


def test_the_loss_is_the_mean_over_samples_and_the_same_every_time():
    graph = graph_of("resnet-a")
    parts = batches_of(graph, 5, 2)
    loss = fixed_loss(iter(parts), F.cross_entropy)
    whole = Batch((torch.cat([b.inputs[0] for b in parts]),), torch.cat([b.labels for b in parts]))
    assert loss(graph) == loss(graph)
    assert loss(graph) == pytest.approx(fixed_loss([whole], F.cross_entropy)(graph), abs=1e-6)


def test_evaluation_leaves_mode_statistics_and_random_state_alone():
    graph = graph_of("resnet-a").copied()
    before = {name: value.clone() for name, value in graph.module.state_dict().items()}
    loss = fixed_loss(batches_of(graph, 4), F.cross_entropy)
    wanted = loss(graph)
    graph.module.train()
    state = torch.get_rng_state()
    assert loss(graph) == wanted
    assert graph.module.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in graph.module.state_dict().items())


def test_a_network_that_breaks_is_the_worst():
    graph = graph_of("resnet-a")
    losses = iter([1.0, math.nan])
    trials = Trials(graph, linear, lambda _graph: next(losses))
    assert trials.gap(names_of(graph)[:1]) == math.inf


def test_refuses_to_compute_a_loss_on_nothing():
    with pytest.raises(ValueError, match="at least one sample"):
        fixed_loss([], F.cross_entropy)
