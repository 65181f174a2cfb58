import hashlib

import pytest
import torch
from torch import nn

from compressors.analysis import analyse
from compressors.errors import ModelError, OptionError
from compressors.plan import Step
from compressors.shapes import propagate
from compressors.surgery import apply, cut_name
from tests.compressors.networks import NETWORKS, graph_of


def steps_of(analysis, kind="regress", index=-1):
    """One step for every neighbouring pair of the main chain that can be cut this way."""
    found = [s for s in analysis.segments if s.chain == "main" and s.end == s.start + 1]
    if kind == "remove":
        return [Step("remove", s.entry, s.exit) for s in found if s.removable]
    return [Step("regress", s.entry, s.exit, s.kernels[index], s.stride) for s in found if s.kernels]


def fingerprint(graph):
    digest = hashlib.sha256(graph.module.code.encode())
    for name, value in graph.module.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["regress", "remove"])
def test_every_segment_can_be_cut_and_the_input_stays(name, kind):
    graph = graph_of(name)
    before = fingerprint(graph)
    x = torch.randn(2, *graph.inputs[0].shape)
    for s in analyse(graph).segments:
        steps = [Step("regress", s.entry, s.exit, kernel, s.stride) for kernel in {*s.kernels[:1], *s.kernels[-1:]}]
        for step in steps if kind == "regress" else [Step("remove", s.entry, s.exit)] * s.removable:
            cut = apply(graph, [step])
            assert cut.module(x).shape == (2, *graph.outputs[0].shape)
            assert not set(s.nodes) & {node.name for node in cut.module.graph.nodes}
    assert fingerprint(graph) == before


@pytest.mark.parametrize("name", ["resnet-a", "mobilenet", "mobilenet-se", "vit", "convnext"])
@pytest.mark.parametrize("kind", ["regress", "remove"])
def test_all_neighbours_at_once(name, kind):
    graph = graph_of(name)
    steps = steps_of(analyse(graph), kind)
    assert steps
    cut = apply(graph, steps)
    assert cut.module(torch.randn(3, *graph.inputs[0].shape)).shape == (3, *graph.outputs[0].shape)
    if kind == "regress":
        assert {n.split(".")[0] for n in cut.module.state_dict() if n.startswith("cut_")} == {
            cut_name(s) for s in steps
        }


def test_result_shares_no_tensor_with_the_input():
    graph = graph_of("resnet-a")
    cut = apply(graph, steps_of(analyse(graph))[:1])
    pointers = {value.data_ptr() for value in graph.module.state_dict().values()}
    assert not pointers & {value.data_ptr() for value in cut.module.state_dict().values() if value.numel()}


def test_removal_passes_the_entry_on():
    graph = graph_of("resnet-a")
    (first, *_) = steps_of(analyse(graph), "remove")
    cut = apply(graph, [first])
    from compressors.surgery import prefix_outputs

    x = torch.randn(2, *graph.inputs[0].shape)
    after = next(node for node in cut.module.graph.nodes if node.name == first.entry)
    (wanted,) = prefix_outputs(graph, [first.entry])(x)
    (got,) = prefix_outputs(cut, [next(iter(after.users)).name])(x)
    assert torch.equal(torch.relu(wanted), got)


def test_regressed_convolution_is_what_the_step_says_and_its_norm_is_the_identity():
    graph = graph_of("resnet-b")
    step = next(s for s in steps_of(analyse(graph)) if s.stride == (2, 2))
    cut = apply(graph, [step])
    conv = cut.module.get_submodule(f"{cut_name(step)}.conv")
    norm = cut.module.get_submodule(f"{cut_name(step)}.norm")
    assert (conv.kernel_size, conv.stride, conv.padding) == ((5, 5), (2, 2), (2, 2))
    assert conv.bias is not None
    assert not conv.weight.any()
    x = torch.randn(4, 16, 3, 3)
    assert torch.allclose(norm(x), x, atol=1e-6)
    assert not norm.training


def test_regressed_tokens_get_one_linear():
    graph = graph_of("vit")
    step = steps_of(analyse(graph))[0]
    cut = apply(graph, [step])
    linear = cut.module.get_submodule(f"{cut_name(step)}.linear")
    assert isinstance(linear, nn.Linear)
    assert (linear.in_features, linear.out_features) == (12, 12)


def test_what_nobody_reads_any_more_is_deleted():
    graph = graph_of("mobilenet-se")
    step = steps_of(analyse(graph))[0]
    cut = apply(graph, [step])
    assert not [name for name in cut.module.state_dict() if name.startswith("blocks.0.")]
    assert not any(node.name.startswith("blocks_0") for node in cut.module.graph.nodes)


def test_remaining_nodes_keep_their_names():
    graph = graph_of("resnet-a")
    step = steps_of(analyse(graph))[1]
    cut = apply(graph, [step])
    old = {node.name for node in graph.module.graph.nodes}
    new = {node.name for node in cut.module.graph.nodes} - old
    assert {name.rsplit("_", 1)[-1] for name in new} == {"conv", "norm"}


def test_a_cut_graph_can_be_analysed_again():
    graph = graph_of("resnet-a")
    cut = apply(graph, steps_of(analyse(graph))[:1])
    assert len([s for s in analyse(cut).segments if s.chain == "main"]) < len(analyse(graph).segments)


def test_order_of_steps_does_not_matter():
    graph = graph_of("mobilenet")
    steps = steps_of(analyse(graph))
    one, two = apply(graph, steps), apply(graph, steps[::-1])
    assert one.module.state_dict().keys() == two.module.state_dict().keys()
    assert len(one.module.graph.nodes) == len(two.module.graph.nodes)


def test_no_steps_give_an_equal_copy():
    graph = graph_of("vgg")
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(apply(graph, []).module(x), graph.module(x))


def a_step(name="resnet-a"):
    return steps_of(analyse(graph_of(name)))[0]


@pytest.mark.parametrize("field", ["entry", "exit"])
def test_unknown_node_is_named(field):
    step = Step(**{**a_step().__dict__, field: "nowhere"})
    with pytest.raises(OptionError, match="nowhere") as caught:
        apply(graph_of("resnet-a"), [step])
    assert caught.value.field == "plan"


def test_backward_step_is_refused():
    step = a_step()
    with pytest.raises(OptionError, match="forward"):
        apply(graph_of("resnet-a"), [Step("regress", step.exit, step.entry, (3, 3), (1, 1))])


def test_overlapping_steps_are_named():
    steps = [Step("regress", "relu", exit_, (3, 3), (1, 1)) for exit_ in ("add", "layers_0_bn1")]
    with pytest.raises(OptionError, match="both replace"):
        apply(graph_of("resnet-a"), steps)


def test_the_same_step_twice_overlaps():
    with pytest.raises(OptionError, match="both replace"):
        apply(graph_of("resnet-a"), [a_step(), a_step()])


def test_removal_that_changes_the_shape_is_refused():
    strided = next(s for s in steps_of(analyse(graph_of("resnet-a"))) if s.stride == (2, 2))
    with pytest.raises(ModelError, match="must be equal"):
        apply(graph_of("resnet-a"), [Step("remove", strided.entry, strided.exit)])


@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), (2, 2)), ((3, 3), (1,)), ((3,), (1,)), ((2, 2), (1, 1))])
def test_operator_that_does_not_fit_is_refused(kernel, stride):
    step = a_step()
    with pytest.raises(OptionError, match="step 'regress"):
        apply(graph_of("resnet-a"), [Step("regress", step.entry, step.exit, kernel, stride)])


def test_applying_a_plan_to_its_own_result_is_refused():
    graph = graph_of("vgg")
    step = Step("regress", "flatten", "classifier_3", (), ())
    once = apply(graph, [step])
    with pytest.raises(OptionError, match="classifier_3"):
        apply(once, [step])


def test_shapes_of_a_cut_graph_are_those_of_the_original():
    graph = graph_of("convnext")
    cut = apply(graph, steps_of(analyse(graph)))
    before, after = propagate(graph.module, graph.inputs), propagate(cut.module, cut.inputs)
    shared = before.full.keys() & after.full.keys()
    assert {name: before.full[name] for name in shared} == {name: after.full[name] for name in shared}
