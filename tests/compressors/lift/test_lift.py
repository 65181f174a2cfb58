import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressors.analysis import analyse
from compressors.errors import ModelError, UnsupportedModelError
from compressors.lift import lift
from compressors.modules import OPERATORS, activation_kind
from tests.compressors.networks import NETWORKS, exported, lifted, named_pair


def relative(left, right):
    return float(((left - right).abs().max() / left.abs().max()).detach())


def kinds(graph):
    modules = dict(graph.module.named_modules())
    return [type(modules[node.target]).__name__ for node in graph.module.graph.nodes if node.op == "call_module"]


def functions(graph):
    return [str(node.target) for node in graph.module.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 5])
def test_output_equals_the_original_at_any_batch_size(name, batch):
    model, graph = named_pair(name)
    x = torch.randn(batch, *NETWORKS[name][1])
    with torch.no_grad():
        assert relative(model(x), graph.module(x)) <= 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_keep_their_names_and_values(name):
    model, graph = named_pair(name)
    own, original = graph.module.state_dict(), model.state_dict()
    assert set(original) == set(own)
    assert all(torch.equal(own[key], value) for key, value in original.items())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operator_norm_and_activation_is_a_module(name):
    model, graph = named_pair(name)
    wanted = [m for m in model.modules() if isinstance(m, OPERATORS) or activation_kind(m)]
    called = {node.target for node in graph.module.graph.nodes if node.op == "call_module"}
    assert {n for n, m in model.named_modules() if isinstance(m, OPERATORS)} <= called
    assert wanted
    left = [
        name for name in functions(graph) if any(part in name for part in ("conv", "linear", "norm", "relu", "dropout"))
    ]
    assert left == []


def test_node_names_are_the_same_every_time():
    first, second = (lifted(NETWORKS["resnet-a"][0](), (3, 16, 16)) for _ in range(2))
    assert [n.name for n in first.module.graph.nodes] == [n.name for n in second.module.graph.nodes]


def test_specs_state_the_edges():
    graph = named_pair("vit")[1]
    assert [(s.name, s.shape, s.dtype) for s in graph.inputs] == [("x", (3, 16, 16), torch.float32)]
    assert [(s.name, s.shape) for s in graph.outputs] == [("output", (5,))]


def test_an_activation_module_called_twice_becomes_two_sites():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.fc = nn.ReLU(), nn.Linear(4, 4)

        def forward(self, x):
            return self.act(self.fc(self.act(x)))

    graph = lifted(Twice(), (4,))
    assert [n.target for n in graph.module.graph.nodes if n.op == "call_module"] == ["act", "fc", "act_1"]


def test_a_shared_operator_stays_one_module_with_two_calls():
    graph = named_pair("shared")[1]
    calls = [node.target for node in graph.module.graph.nodes if node.op == "call_module"]
    assert calls.count("body") == 2


def test_weights_tied_under_two_names_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(self.one(x))

    graph = lifted(Tied(), (4,))
    operators = [m for m in graph.module.modules() if isinstance(m, nn.Linear)]
    assert len(operators) == 2
    assert operators[0].weight is operators[1].weight


ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.2), nn.PReLU(4), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Hardswish(),
    nn.Hardsigmoid(), nn.Hardtanh(-2, 2), nn.Tanh(), nn.Sigmoid(), nn.ELU(0.7), nn.SELU(), nn.CELU(0.5),
    nn.Softplus(2.0), nn.Mish(),
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_every_activation_becomes_its_module(activation):
    model = nn.Sequential(nn.Linear(4, 4), activation)
    graph = lifted(model, (4,))
    assert kinds(graph)[-1] == type(activation).__name__
    x = torch.randn(9, 4) * 5
    assert torch.equal(model(x), graph.module(x))


class Functional(nn.Module):
    """Applies a function to the output of a linear."""

    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(4, 4), function

    def forward(self, x):
        return self.function(self.fc(x))


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (F.relu6, "ReLU6"),
        (lambda x: x.relu_(), "ReLU"),
        (lambda x: torch.clamp(x, 0, 6), "ReLU6"),
        (lambda x: x.clamp(min=0), "ReLU"),
        (torch.tanh, "Tanh"),
        (lambda x: F.leaky_relu_(x, 0.1), "LeakyReLU"),
    ],
)
def test_functional_forms_become_modules_too(function, wanted):
    model = Functional(function)
    graph = lifted(model, (4,))
    assert kinds(graph) == ["Linear", wanted]
    x = torch.randn(9, 4) * 5
    assert torch.equal(model(x), graph.module(x))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Conv1d(3, 4, 3, 2, 1), (3, 9)),
        (nn.Conv3d(3, 4, (1, 3, 2), groups=1, dilation=(1, 2, 1)), (3, 6, 6, 6)),
        (nn.Conv2d(4, 6, 3, padding="same", dilation=2, groups=2, bias=False), (4, 9, 9)),
        (nn.Conv2d(4, 6, 3, padding="valid"), (4, 9, 9)),
        (nn.ConvTranspose1d(3, 4, 3, 2, 1, 1), (3, 9)),
        (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), (4, 5, 5)),
        (nn.ConvTranspose3d(2, 3, 2), (2, 4, 4, 4)),
        (nn.BatchNorm1d(4), (4,)),
        (nn.BatchNorm1d(4), (4, 7)),
        (nn.BatchNorm2d(4, affine=False), (4, 3, 3)),
        (nn.BatchNorm3d(4), (4, 2, 2, 2)),
        (nn.LayerNorm((4, 5), elementwise_affine=False), (4, 5)),
        (nn.LayerNorm(5, bias=False), (4, 5)),
        (nn.GroupNorm(2, 4), (4, 5, 5)),
        (nn.Linear(5, 3, bias=False), (2, 4, 5)),
    ],
    ids=repr,
)
def test_every_operator_and_norm_becomes_its_module(model, shape):
    graph = lifted(nn.Sequential(model.eval()), shape)
    assert kinds(graph) == [type(model).__name__]
    x = torch.randn(3, *shape)
    assert torch.equal(model(x), graph.module(x))


def test_in_place_operator_changes_what_later_readers_see():
    class Overwrite(nn.Module):
        def forward(self, x):
            y = x + 1
            z = y * 2
            y.relu_()
            return y + z

    graph = lifted(Overwrite(), (4,))
    x = torch.randn(6, 4)
    assert torch.equal(Overwrite()(x), graph.module(x))
    assert all(not str(node.target).endswith("_.default") for node in graph.module.graph.nodes)


def test_in_place_operator_on_a_view_changes_its_base():
    class Overwrite(nn.Module):
        def forward(self, x):
            y = x + 1
            y[:, :2].mul_(3)
            return y

    graph = lifted(Overwrite(), (4,))
    x = torch.randn(6, 4)
    assert torch.equal(Overwrite()(x), graph.module(x))


def test_long_chain_of_writes_is_followed_to_its_end():
    class Accumulate(nn.Module):
        def forward(self, x):
            total = x + 1
            for step in range(20):
                total += step * x
                total.relu_()
            total *= 2
            return total, x * 3

    graph = lifted(Accumulate(), (4,))
    x = torch.randn(6, 4)
    for wanted, got in zip(Accumulate()(x), graph.module(x), strict=True):
        assert torch.equal(wanted, got)


def test_writes_inside_no_grad_are_followed():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            with torch.no_grad():
                y = self.one(x)
                z = y * 2
                y += 1
                y.relu_()
                x = y + z
            return self.two(x)

    model = Frozen()
    graph = lifted(model, (4,))
    x = torch.randn(3, 4)
    assert torch.equal(model(x), graph.module(x))


def test_activation_called_often_gets_numbered_names():
    class Often(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()
            self.body = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

        def forward(self, x):
            for layer in self.body:
                x = self.act(layer(x))
            return x

    graph = lifted(Often(), (4,))
    names = [str(n.target) for n in graph.module.graph.nodes if n.op == "call_module" and "act" in str(n.target)]
    assert names == ["act", "act_1", "act_2", "act_3"]


def test_layout_that_attention_sees_is_kept():
    class Queries(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value = (nn.Conv2d(8, width, 1) for width in (128, 64, 64))

        def forward(self, x):
            q = self.query(x).reshape(x.shape[0], 2, 64, -1).transpose(-1, -2).contiguous()
            k, v = (one(x).flatten(2).transpose(1, 2).unsqueeze(1).contiguous() for one in (self.key, self.value))
            return F.scaled_dot_product_attention(q, k, v)

    torch.manual_seed(0)
    model = Queries()
    graph = lifted(model, (8, 6, 6))
    x = torch.randn(1, 8, 6, 6)
    assert torch.equal(model(x), graph.module(x))


def test_layout_that_a_convolution_sees_is_kept():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Conv2d(16, 8, 1)

        def forward(self, x):
            return self.project(x.reshape(x.shape[0], 4, 4, 16).permute(0, 3, 1, 2).contiguous())

    graph = lifted(Tokens(), (16, 16))
    assert graph.module(torch.randn(3, 16, 16)).is_contiguous()


@pytest.mark.parametrize("linear_first", [True, False])
def test_parameter_that_a_linear_and_an_operator_read_keeps_apart(linear_first):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 4))

        def forward(self, x):
            if linear_first:
                return F.linear(x, self.w)[:, None] * self.w
            return F.linear(x[:, None] * self.w, self.w)

    model = Both()
    graph = lifted(model, (4,))
    x = torch.randn(3, 4)
    assert relative(model(x), graph.module(x)) <= 1e-6


def test_product_of_a_flattened_tensor_is_a_linear_on_the_tensor():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = (nn.Parameter(torch.randn(6, 6)) for _ in range(2))
            self.bias = nn.Parameter(torch.randn(6))

        def forward(self, x):
            y = F.gelu(torch.addmm(self.bias, x.view(-1, 6), self.one).view(x.shape))
            return x + torch.mm(y.view(-1, 6), self.two).view(x.shape)

    torch.manual_seed(0)
    model = Flat()
    graph = lifted(model, (5, 6))
    x = torch.randn(3, 5, 6)
    assert relative(model(x), graph.module(x)) <= 1e-6
    assert kinds(graph) == ["Linear", "GELU", "Linear"]
    assert not any("view" in name or "reshape" in name for name in functions(graph))
    assert any(segment.kernels == ((),) and segment.sites for segment in analyse(graph).segments)


@pytest.mark.parametrize("missing", ["weight", "bias"])
def test_group_norm_without_weight_or_bias_is_still_a_norm(missing):
    class Norm(nn.GroupNorm):
        def forward(self, x):
            weight, bias = (None if name == missing else getattr(self, name) for name in ("weight", "bias"))
            return F.group_norm(x, self.num_groups, weight, bias)

    model = Norm(1, 4)
    torch.nn.init.uniform_(model.weight)
    torch.nn.init.uniform_(model.bias)
    graph = lifted(model, (4, 5, 5))
    x = torch.randn(3, 4, 5, 5)
    assert kinds(graph) == ["GroupNorm"]
    assert relative(model(x), graph.module(x)) <= 1e-6


def test_the_input_is_never_written():
    graph = lifted(nn.ReLU(inplace=True), (4,))
    x = -torch.ones(2, 4)
    graph.module(x)
    assert torch.equal(x, -torch.ones(2, 4))


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias)


def test_what_depends_on_weights_only_is_computed_once():
    graph = lifted(nn.Sequential(Standardised(3, 4, 3)), (3, 8, 8))
    assert [node.target for node in graph.module.graph.nodes if node.op == "call_module"] == ["0"]
    assert kinds(graph) == ["Conv2d"]
    assert functions(graph) == []


def test_decomposed_program_gets_its_modules_back():
    model, _ = named_pair("resnet-b")
    graph = lift(exported(model, (3, 16, 16)).run_decompositions(), "decomposed")
    assert kinds(graph) == kinds(named_pair("resnet-b")[1])
    x = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        assert relative(model(x), graph.module(x)) <= 1e-6


def test_tables_that_are_written_while_they_are_built_are_computed_once():
    class Masked(nn.Module):
        def forward(self, x):
            mask = x.new_zeros((4, 4))
            mask[:2, :2] = 1
            return x * mask

    graph = lifted(Masked(), (4, 4))
    assert functions(graph) == ["aten.mul.Tensor"]


def test_several_inputs_and_outputs():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 3), nn.Linear(5, 3)

        def forward(self, x, y):
            return {"sum": self.one(x) + self.two(y), "left": self.one(x)}

    model = Pair()
    graph = lifted(model, (4,), (5,))
    x, y = torch.randn(3, 4), torch.randn(3, 5)
    wanted = model(x, y)
    got = graph.module(x, y)
    assert [s.name for s in graph.inputs] == ["x", "y"]
    assert [s.shape for s in graph.outputs] == [(3,), (3,)]
    assert torch.equal(wanted["sum"], got[0])
    assert torch.equal(wanted["left"], got[1])


def test_no_grad_inside_is_flattened():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            with torch.no_grad():
                x = F.relu(self.one(x))
            return self.two(x)

    model = Frozen()
    graph = lifted(model, (4,))
    assert kinds(graph) == ["Linear", "ReLU", "Linear"]
    x = torch.randn(3, 4)
    assert torch.equal(model(x), graph.module(x))


@pytest.mark.parametrize("name", ["resnet-a", "vit", "mixer", "mobilenet-se"])
@pytest.mark.parametrize("batch", [1, 3])
def test_program_exported_for_one_batch_size_is_freed_from_it(name, batch):
    model, _ = named_pair(name)
    graph = lift(exported(model, NETWORKS[name][1], batch=batch), name)
    x = torch.randn(5, *NETWORKS[name][1])
    with torch.no_grad():
        assert relative(model(x), graph.module(x)) <= 1e-6


def test_program_that_mixes_its_samples_cannot_be_freed():
    class Centred(nn.Module):
        def forward(self, x):
            return x - x.mean(0, keepdim=True)

    with pytest.raises(UnsupportedModelError, match="batch size 3"):
        lift(exported(Centred(), (4,), batch=3), "centred")


def test_output_without_a_batch_is_refused():
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(0)

    with pytest.raises(UnsupportedModelError, match="not the batch"):
        lift(exported(Mean(), (4,)), "mean")


def test_output_that_is_no_tensor_is_refused():
    class Number(nn.Module):
        def forward(self, x):
            return x, 3

    with pytest.raises(UnsupportedModelError, match="must be a tensor"):
        lift(exported(Number(), (4,)), "number")


def training_program(model, *shapes):
    """Exports in training mode, as a user may do by mistake."""
    return torch.export.export(
        model.train(), tuple(torch.randn(2, *s) for s in shapes), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )


@pytest.mark.parametrize(
    ("model", "shape"), [(nn.BatchNorm2d(3), (3, 4, 4)), (nn.Sequential(nn.Linear(3, 3), nn.Dropout()), (3,))], ids=repr
)
def test_training_mode_is_refused(model, shape):
    with pytest.raises(ModelError, match="eval"):
        lift(training_program(nn.Sequential(model), shape), "trained")


def test_norm_without_running_statistics_is_refused():
    with pytest.raises(ModelError, match="running statistics"):
        lift(exported(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)).eval(), (3, 4, 4)), "bn")


def test_control_flow_is_refused_by_name():
    class Branching(nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda v: v + 1, lambda v: v - 1, (x,))

    with pytest.raises(UnsupportedModelError, match="cond"):
        lift(exported(Branching(), (4,)), "cond")


def test_sample_shape_settles_what_the_program_leaves_open():
    model = nn.Conv2d(3, 4, 3, padding=1)
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(nn.Sequential(model), (torch.randn(2, 3, 8, 8),), dynamic_shapes=(free,))
    assert lift(program, "free", [(3, 10, 12)]).outputs[0].shape == (4, 10, 12)
    with pytest.raises(ModelError, match="state the sample shape"):
        lift(program, "free")
    with pytest.raises(ModelError, match="got"):
        lift(program, "free", [(4, 10, 12)])
    with pytest.raises(ModelError, match="1 inputs"):
        lift(program, "free", [(3, 10, 12), (3, 10, 12)])
