"""Merges with a group norm behind them, against the convolutions written out."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressors.analysis.regions import merge_space
from compressors.errors import OptionError
from compressors.graph import Graph
from compressors.plan import Plan, Step
from compressors.surgery import apply, merge, merge_step, prefix_outputs, step_errors
from compressors.surgery.normed import replacement
from compressors.surgery.verify import relative_error
from tests.compressors.denoisers import denoiser


def step_of(graph: Graph, exit_: str, *, pruned: bool = False, norm: int = 2) -> Step:
    """The merge of one block's two convolutions, identities in the place of norm and activation."""
    (region,) = (r for r in merge_space(graph).regions if r.exit == exit_ and r.norms)
    (option, *_) = (option for option in region.options if bool(option.pruned) == pruned)
    return replace(merge_step(region, option), norm=norm)


def by_hand(graph: Graph, name: str, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """GN(conv2(conv1(x) + e)), all padding in front of conv1, as the paper has it; float64."""
    module = graph.module.get_submodule(name)
    one, two, time = (getattr(module, part) for part in ("conv1", "conv2", "time"))
    inner = F.conv2d(F.pad(x, (2, 2, 2, 2)), one.weight.double(), one.bias.double())
    inner = inner + F.linear(embedding, time.weight.double(), time.bias.double())[:, :, None, None]
    return F.group_norm(F.conv2d(inner, two.weight.double(), two.bias.double()), 2, eps=1e-5)


@pytest.mark.parametrize("name", ["first", "second"])
def test_what_ships_is_the_norm_of_the_composed_convolution_and_the_embedding(name: str) -> None:
    graph = denoiser()
    step = step_of(graph, f"{name}_conv2")
    trained = apply(graph, [step])
    merged = merge(trained)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64, generator=generator)
    embedding = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    for form, tolerance in ((trained, 1e-12), (merged.graph, 1e-5)):  # what ships is rounded to float32
        cut = form.module.get_submodule("cut_" + step.exit).double()
        with torch.no_grad():
            assert relative_error(by_hand(graph, name, x, embedding), cut.norm(cut.stretch(x, embedding))) < tolerance
    assert max(proof.error for proof in merged.verifications) < 1e-10


def test_one_convolution_and_one_norm_are_left_of_a_block() -> None:
    graph = denoiser()
    step = step_of(graph, "first_conv2")
    shipped = merge(apply(graph, [step])).graph
    cut = shipped.module.get_submodule("cut_first_conv2")
    kinds = [type(module) for module in cut.modules() if not list(module.children())]
    assert kinds.count(nn.Conv2d) == kinds.count(nn.GroupNorm) == 1
    inputs = graph.samples(3, seed=1)
    with torch.no_grad():
        assert relative_error(apply(graph, [step]).module(*inputs), shipped.module(*inputs)) < 1e-5


def test_the_shortcut_is_added_behind_the_norm() -> None:
    graph = denoiser()
    cut = apply(graph, [step_of(graph, "first_conv2")])
    (norm,) = (node for node in cut.module.graph.nodes if node.target == "cut_first_conv2.norm")
    (reader,) = norm.users
    assert "stem" in {node.name for node in reader.all_input_nodes}


def test_a_pruned_convolution_leaves_the_norm() -> None:
    graph = denoiser()
    step = step_of(graph, "first_conv2", pruned=True)
    shipped = merge(apply(graph, [step])).graph
    assert isinstance(shipped.module.get_submodule("cut_first_conv2.norm"), nn.GroupNorm)
    assert max(step.kernel) == 3


def test_a_step_with_a_norm_survives_json_and_older_plans_have_none() -> None:
    plan = Plan("layer_merge", (step_of(denoiser(), "first_conv2"),))
    assert Plan.from_json(plan.to_json()) == plan
    older = plan.to_json().replace('"norm": 2, ', "")
    assert Plan.from_json(older).steps[0].norm == 0
    assert plan.steps[0].label.endswith("+ norm")


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    graph = denoiser()
    with pytest.raises(OptionError, match=r"no group norm of 3 groups fits tensors of shape \(4, 6, 6\)"):
        apply(graph, [step_of(graph, "first_conv2", norm=3)])


def test_the_loss_of_a_cut_is_measured_behind_its_norm() -> None:
    graph = denoiser()
    step = step_of(graph, "first_conv2")
    batch = graph.samples(4, seed=2)
    whole = replacement(graph, step, 4, {})
    cut = apply(graph, [step])
    names = [*(spec.name for spec in whole.specs), step.exit]
    with torch.no_grad():
        values = dict(zip(names, prefix_outputs(graph, names)(*batch), strict=True))
        got = whole(*(values[spec.name] for spec in whole.specs))
    wanted = values[step.exit]
    error = float((got - wanted).double().square().sum() / wanted.double().square().sum())
    assert step_errors(graph, cut, [step], [batch]) == pytest.approx((error,), rel=1e-5)


def test_the_original_is_not_changed() -> None:
    graph = denoiser()
    before = {key: value.clone() for key, value in graph.module.state_dict().items()}
    apply(graph, [step_of(graph, "first_conv2")])
    assert all(torch.equal(value, before[key]) for key, value in graph.module.state_dict().items())
