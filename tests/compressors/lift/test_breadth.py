"""What lifting takes: one small model for every kind of thing that a traced model may hold."""

# ruff: noqa: ARG004, ARG005, E501 - tables of one-line models read best unbroken
import warnings

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from compressors.analysis import analyse
from compressors.lift import lift
from compressors.modules import OPERATORS

IMAGE, ROW, WORDS = (3, 4, 9, 9), (3, 4), (3, 5, 8)


class Calls(nn.Module):
    """Calls a function with a module of its own and the inputs."""

    def __init__(self, function, module=None):
        super().__init__()
        self.function, self.module = function, module

    def forward(self, *inputs):
        return self.function(self.module, *inputs)


def program_of(model, inputs, *, free=True):
    """Exports with a free or a fixed batch size."""
    dynamic = pytree.tree_map(lambda v: {0: Dim.AUTO} if isinstance(v, torch.Tensor) else None, inputs)
    dynamic = (dynamic,) if isinstance(model, Calls) else dynamic
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own advice
        return torch.export.export(model.eval(), copies(inputs), dynamic_shapes=dynamic if free else None)


def copies(inputs):
    return pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, inputs)


def tensors(value):
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def check(model, *inputs, free=True):
    """Lifts and compares with the module; returns the graph."""
    graph = lift(program_of(model, inputs, free=free), "model")
    with torch.no_grad():
        wanted = tensors(model(*copies(inputs)))
        got = tensors(graph.module(*tensors(inputs)))
    assert len(wanted) == len(got) == len(graph.outputs)
    for left, right in zip(wanted, got, strict=True):
        assert left.dtype is right.dtype
        wide = torch.complex128 if left.is_complex() else torch.float64
        scale = left.to(wide).abs().max().clamp_min(1e-30)
        assert float((left.to(wide) - right.to(wide)).abs().max() / scale) <= 1e-6
    analyse(graph)
    return graph


def kinds(graph):
    modules = dict(graph.module.named_modules())
    return [type(modules[node.target]).__name__ for node in graph.module.graph.nodes if node.op == "call_module"]


def functions(graph):
    return [str(node.target) for node in graph.module.graph.nodes if node.op == "call_function"]


def rows(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype)


ids = torch.tensor([1, 2, 3])
masked = torch.tensor([[True, False, False, True, False]]).expand(3, 5).contiguous()

EDGES = {
    "two in, two out": (lambda m, x, y: (m(x) + y, y * 2), nn.Linear(4, 4), (rows(*ROW), rows(*ROW)), ["output_0", "output_1"]),
    "an input that is not used": (lambda m, x, y: m(x), nn.Linear(4, 4), (rows(*ROW), rows(3, 7)), ["output"]),
    "integers": (lambda m, i: m(i), nn.Embedding(10, 4), (ids,), ["output"]),
    "a boolean mask": (lambda m, x, k: x.masked_fill(k, 0.0), None, (rows(3, 5), masked), ["output"]),
    "a float mask": (lambda m, x, k: torch.softmax(x + k, -1), None, (rows(3, 5), masked * -1e9), ["output"]),
    "dictionaries": (lambda m, x: {"logits": m(x), "aux": {"b": x * 2}}, nn.Linear(4, 4), (rows(*ROW),), ["logits", "aux_b"]),
    "lists and tuples": (lambda m, x: [m(x), (x * 2, {"c": x * 3})], nn.Linear(4, 4), (rows(*ROW),), ["output_0", "output_1_0", "output_1_1_c"]),
    "keys that are no names": (lambda m, x: {"a b": m(x), "c": x * 2}, nn.Linear(4, 4), (rows(*ROW),), ["output_0", "output_1"]),
    "None among the outputs": (lambda m, x: {"a": None, "b": m(x)}, nn.Linear(4, 4), (rows(*ROW),), ["b"]),
    "an input returned": (lambda m, x: (m(x), x), nn.Linear(4, 4), (rows(*ROW),), ["output_0", "output_1"]),
    "views of each other": (lambda m, x: (m(x), m(x).view(-1, 2, 2)), nn.Linear(4, 4), (rows(*ROW),), ["output_0", "output_1"]),
    "one tensor twice": (lambda m, x: [m(x)] * 2, nn.Linear(4, 4), (rows(*ROW),), ["output_0", "output_1"]),
    "a plain number": (lambda m, x, s: m(x) * s, nn.Linear(4, 4), (rows(*ROW), 2.5), ["output"]),
    "None": (lambda m, x, s: m(x) if s is None else x, nn.Linear(4, 4), (rows(*ROW), None), ["output"]),
    "a list of inputs": (lambda m, xs: m(xs[0]) + xs[1], nn.Linear(4, 4), ([rows(*ROW), rows(*ROW)],), ["output"]),
    "a dictionary of inputs": (lambda m, d: m(d["a"]) + d["b"], nn.Linear(4, 4), ({"a": rows(*ROW), "b": rows(*ROW)},), ["output"]),
    "integer outputs": (lambda m, x: (m(x).argmax(1), m(x) > 0), nn.Linear(4, 4), (rows(*ROW),), ["output_0", "output_1"]),
    "complex outputs": (lambda m, x: torch.fft.fft(m(x)), nn.Linear(4, 4), (rows(*ROW),), ["output"]),
}  # fmt: skip


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("free", [True, False], ids=["free", "fixed"])
def test_inputs_and_outputs_of_every_kind(name, free):
    function, module, inputs, names = EDGES[name]
    graph = check(Calls(function, module), *inputs, free=free)
    assert [spec.name for spec in graph.outputs] == names


def test_output_with_the_name_of_an_input_is_renamed():
    class Denoiser(nn.Module):
        def forward(self, sample):
            return {"sample": sample * 2}

    assert [spec.name for spec in check(Denoiser(), rows(*ROW)).outputs] == ["out_sample"]


def test_ids_stay_below_the_size_of_the_table_that_they_look_up():
    (spec,) = check(Calls(lambda m, i: m(i.view(-1, 1)), nn.Embedding(10, 4)), ids).inputs
    assert (spec.low, spec.high) == (0, 10)
    assert set(spec.random(200, 0).tolist()) == set(range(10))


def test_what_is_called_a_mask_is_ones():
    class Masked(nn.Module):
        def forward(self, x, attention_mask):
            return x * attention_mask

    spec = check(Masked(), rows(3, 5), masked).inputs[1]
    assert spec.is_mask
    assert bool(spec.random(2, 0).all())


CONVOLUTIONS = [
    *(nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode=mode) for mode in ("reflect", "circular", "replicate")),
    nn.Conv2d(4, 6, 4, padding="same"),
    nn.Conv2d(4, 6, 4, padding="same", padding_mode="reflect"),
    nn.Conv2d(4, 8, 3, (2, 1), 2, 2, groups=4),
    nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), nn.Conv2d(4, 6, 3)),
    nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, dilation=2),
]


@pytest.mark.parametrize("module", CONVOLUTIONS, ids=repr)
def test_convolutions_of_every_kind_become_modules(module):
    assert kinds(check(Calls(lambda m, x: m(x), module), rows(*IMAGE)))[-1].startswith("Conv")


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv1d(4, 6, 2, padding="same", dilation=3), (3, 4, 9)),
        (nn.Conv1d(4, 6, 3, padding=2, padding_mode="circular"), (3, 4, 9)),
        (nn.Conv3d(4, 6, 3, padding=1, padding_mode="replicate"), (3, 4, 5, 5, 5)),
        (nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, groups=2, dilation=2), (3, 4, 9)),
        (nn.ConvTranspose3d(4, 6, 3, 2, 1, 1, groups=2), (3, 4, 3, 3, 3)),
    ],
    ids=repr,
)
def test_convolutions_over_one_and_three_axes_become_modules(module, shape):
    assert kinds(check(Calls(lambda m, x: m(x), module), rows(*shape)))[-1] == type(module).__name__


def legacy(norm, module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them deprecated; users still have them
        return norm(module)


@pytest.mark.parametrize(
    "module",
    [
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3)),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 6, 3)),
        legacy(nn.utils.weight_norm, nn.Conv2d(4, 6, 3)),
        legacy(nn.utils.spectral_norm, nn.Conv2d(4, 6, 3)),
    ],
    ids=["weight_norm", "spectral_norm", "old weight_norm", "old spectral_norm"],
)
def test_parametrised_weights_are_computed_once(module):
    graph = check(Calls(lambda m, x: m(x), module), rows(*IMAGE))
    assert (kinds(graph), functions(graph)) == (["Conv2d"], [])


@pytest.mark.parametrize(
    ("module", "shape", "wanted"),
    [
        (nn.SyncBatchNorm(4), IMAGE, ["BatchNorm2d"]),
        (nn.InstanceNorm2d(4), IMAGE, []),
        (nn.InstanceNorm2d(4, affine=True), IMAGE, []),
        (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), IMAGE, []),
        (nn.LocalResponseNorm(2), IMAGE, []),
        (nn.RMSNorm(4), ROW, []),
        (nn.GroupNorm(2, 4, affine=False), IMAGE, []),
        (nn.MultiheadAttention(8, 2, batch_first=True), WORDS, ["Linear", "Linear"]),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), WORDS, None),
        (nn.RNNCell(4, 6), ROW, None),
        (nn.Bilinear(4, 4, 6), ROW, []),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers_that_are_no_operators_stay_functions(module, shape, wanted):
    same = {"MultiheadAttention": 3, "Bilinear": 2}.get(type(module).__name__, 1)
    graph = check(Calls(lambda m, x: m(*[x] * same), module), rows(*shape))
    assert wanted is None or kinds(graph) == wanted


FUNCTIONS = {
    "attention with a mask": (lambda m, x, k: F.scaled_dot_product_attention(x, x, x, attn_mask=k), (rows(3, 2, 5, 4), rows(3, 1, 5, 5))),
    "attention without heads": (lambda m, x, k: F.scaled_dot_product_attention(x, x, x, attn_mask=k), (rows(3, 5, 4), rows(3, 5, 5))),
    "attention without heads, one mask": (lambda m, x: F.scaled_dot_product_attention(x, x, x, torch.ones(5, 5).tril(), scale=0.3), (rows(3, 5, 4),)),
    "causal attention": (lambda m, x: F.scaled_dot_product_attention(x, x, x, is_causal=True), (rows(3, 2, 5, 4),)),
    "padding mask": (lambda m, x, k: m(x, x, x, key_padding_mask=k)[0], (rows(*WORDS), torch.zeros(3, 5, dtype=torch.bool))),
    "nearest": (lambda m, x: F.interpolate(x, scale_factor=2), (rows(*IMAGE),)),
    "bilinear": (lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"), (rows(*IMAGE),)),
    "bicubic": (lambda m, x: F.interpolate(x, size=(5, 7), mode="bicubic", antialias=True), (rows(*IMAGE),)),
    "grid_sample": (lambda m, x, g: F.grid_sample(x, g, align_corners=False), (rows(*IMAGE), rows(3, 5, 5, 2))),
    "pixel_shuffle": (lambda m, x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2), (rows(3, 4, 8, 8),)),
    "unfold and fold": (lambda m, x: F.fold(F.unfold(x, 3), (8, 8), 3), (rows(3, 4, 8, 8),)),
    "einsum": (lambda m, x, y: torch.einsum("bij,bjk->bik", x, y), (rows(3, 4, 5), rows(3, 5, 4))),
    "Fourier transform": (lambda m, x: torch.fft.irfft2(torch.fft.rfft2(x) * 2), (rows(3, 4, 8, 8),)),
    "max_unpool": (lambda m, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), (rows(3, 4, 8, 8),)),
    "in-place": (lambda m, x: F.relu_(x * 2).add_(1).sigmoid_(), (rows(*ROW),)),
    "topk": (lambda m, x: torch.topk(x, 2), (rows(*ROW),)),
    "one row per sample": (lambda m, x: torch.cat([x.new_zeros(x.shape[0], 4), x], 1), (rows(*ROW),)),
    "written input": (lambda m, x: x.add_(1) * 2, (rows(*ROW),)),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_every_kind(name):
    function, inputs = FUNCTIONS[name]
    check(Calls(function, nn.MultiheadAttention(8, 2, batch_first=True) if name == "padding mask" else None), *inputs)


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_custom_autograd_function_is_what_its_forward_does():
    assert kinds(check(Calls(lambda m, x: Step.apply(m(x)), nn.Linear(4, 4)), rows(*ROW))) == ["Linear", "ReLU"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_model_in_another_precision_stays_in_it(dtype):
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()).to(dtype)
    graph = check(model, rows(*IMAGE, dtype=dtype))
    assert graph.inputs[0].dtype is graph.outputs[0].dtype is dtype


def test_half_precision_inside_a_single_precision_model_stays_there():
    graph = check(Calls(lambda m, x: m(x.half()).float(), nn.Linear(4, 4).half()), rows(*ROW))
    assert graph.outputs[0].dtype is torch.float32


def test_channels_last_weights_and_inputs():
    layout = torch.channels_last
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU()).to(memory_format=layout)
    assert kinds(check(model, rows(*IMAGE).to(memory_format=layout))) == ["Conv2d", "ReLU"]


class TiedHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.body, self.head = nn.Embedding(10, 4), nn.Linear(4, 4), nn.Linear(4, 10, bias=False)
        self.head.weight = self.table.weight

    def forward(self, i):
        return self.head(self.body(self.table(i)))


@pytest.mark.parametrize("free", [True, False])
def test_embedding_tied_to_the_head_keeps_its_name_and_the_tie(free):
    graph = check(TiedHead(), ids, free=free)
    assert graph.module.table.weight is graph.module.head.weight
    other = graph.copied()
    assert other.module.table.weight is other.module.head.weight


class Buffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("kernel", rows(6, 4, 3, 3))
        self.register_buffer("matrix", rows(5, 6), persistent=False)
        self.scale = rows(5)

    def forward(self, x):
        y = F.linear(F.conv2d(x, self.kernel).mean((2, 3)), self.matrix)
        table = self.scale.clone()
        table[0] = 2
        return y * table + torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])


def test_buffers_and_constants_are_weights_and_their_copies_may_be_written():
    assert kinds(check(Buffers(), rows(*IMAGE))) == ["Conv2d", "Linear"]


class Gained(nn.Conv2d):
    def __init__(self):
        super().__init__(4, 6, 3)
        self.gain = nn.Parameter(rows(4, 1, 1))

    def forward(self, x):
        return super().forward(x * self.gain)


def test_a_module_keeps_parameters_beyond_its_own():
    graph = check(nn.Sequential(Gained()), rows(*IMAGE))
    assert set(graph.module.state_dict()) == {"0.weight", "0.bias", "0.gain"}


_LAYERS = 1000


@pytest.mark.slow
def test_a_thousand_layers():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(_LAYERS))

        def forward(self, x):
            for layer in self.layers:
                x = x + 0.01 * layer(x)
            return x

    graph = check(Deep(), rows(*ROW))
    assert len([m for m in graph.module.modules() if isinstance(m, OPERATORS)]) == _LAYERS
