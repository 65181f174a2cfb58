"""Norms behind merges in `layer_merge`: the paper's in parity, offered by default."""

from dataclasses import replace

import torch
from torch import nn

from compressors.analysis import analyse
from compressors.analysis.regions import merge_space
from compressors.problem import Problem
from compressors.strategies import find
from compressors.strategies.norm_back import as_published, with_norms
from compressors.table import region_cuts
from tests.compressors.denoisers import Pairs, denoiser
from tests.compressors.problems import ShortTrainer, problem_of, started


def problem(share: float, **changes) -> Problem:
    graph = denoiser()
    basis = problem_of("resnet-a", share)
    samples = Pairs(graph, 32, 1)
    (baseline,) = basis.timer.networks([(graph.module, graph.inputs)])
    fields = {"graph": graph, "analysis": analyse(graph), "calibration": samples, "selection": Pairs(graph, 16, 5)}
    seconds = {"baseline_seconds": baseline, "budget_seconds": share * baseline}
    return replace(basis, **fields, **seconds, **changes)


def region_of(channels: int, **changes):
    (region,) = (r for r in merge_space(denoiser()).regions if r.exit == "second_conv2" and r.norms)
    return replace(region, output_shape=(channels, 6, 6), **changes)


def groups(cuts) -> set[int]:
    return {cut.step.norm for cut in cuts}


def test_the_paper_has_32_groups_or_one_a_channel() -> None:
    assert groups(as_published(region_of(64), region_cuts(region_of(64)))) == {32}
    assert groups(as_published(region_of(24), region_cuts(region_of(24)))) == {24}


def test_the_paper_merges_no_shortcut_with_norms_inside() -> None:
    region = region_of(64, norm_groups=0)
    assert as_published(region, region_cuts(region)) == ()
    plain = replace(region, norms=())
    assert groups(as_published(plain, region_cuts(plain))) == {0}


def test_by_default_every_merge_is_offered_with_and_without() -> None:
    region = region_of(8)
    cuts = region_cuts(region)
    assert [cut.step.norm for cut in with_norms(region, cuts)] == [0] * len(cuts) + [2] * len(cuts)
    plain = replace(region, norm_groups=0)
    assert with_norms(plain, cuts) == cuts


def test_what_the_search_chose_is_what_it_built() -> None:
    asked = problem(0.9)
    best, *_ = started(asked, "layer_merge", refit="none", max_kernel=5).candidates(asked.budget_seconds)
    assert best.plan.steps
    modules = best.graph.module.named_modules()
    norms = [name for name, part in modules if isinstance(part, nn.GroupNorm) and name.startswith("cut")]
    assert len(norms) == sum(step.norm > 0 for step in best.plan.steps)


def test_parity_trains_with_a_fresh_norm_behind_every_merge() -> None:
    trainer = ShortTrainer(denoiser())
    asked = problem(0.9, train=trainer)
    strategy = find("layer_merge")
    search = strategy.start(asked, strategy.parse({"parity": True, "selection_samples": 16}))
    best, *_ = search.candidates(asked.budget_seconds)
    assert trainer.shares
    assert best.plan.steps
    for step in best.plan.steps:
        norm = best.graph.module.get_submodule(f"cut_{step.exit}.norm")
        assert norm.num_groups == norm.num_channels
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert torch.equal(norm.bias, torch.zeros_like(norm.bias))
