"""Which aten operators become modules again, and how: the one operator table of the lift.

An exported program calls functions with weights as arguments. The engine edits modules, so every convolution, linear,
norm and activation is built again as the `torch.nn` module that computes the same. An operator that is not listed, or
whose weights are not constants, stays a plain function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compressors.errors import ModelError


@dataclass(frozen=True)
class Constant:
    """A value that does not depend on the model's inputs.

    Attributes:
        value: A tensor, or a tuple or list of tensors and numbers.
        fqn: Parameter or buffer name in the original model; empty when it was computed.
    """

    value: Any
    fqn: str = ""


Arguments = Mapping[str, Any]
"""Operator arguments by schema name: fx nodes, `Constant`s and plain values."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NORMS = (*BATCH_NORMS, nn.LayerNorm, nn.GroupNorm)
OPERATORS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
"""What counts as a linear operator with weights."""

_KINDS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "prelu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardtanh: "hardtanh",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.ELU: "elu",
    nn.SELU: "selu",
    nn.CELU: "celu",
    nn.Softplus: "softplus",
    nn.Mish: "mish",
}


def activation_kind(module: nn.Module) -> str | None:
    """Returns `relu`, `gelu`, ... for an activation module, None for anything else."""
    return _KINDS.get(type(module))


def data_input(name: str, arguments: Arguments) -> Any:
    """Returns the argument that would be a module's input; with matrix products, the others may be its weights."""
    return arguments[{"addmm": "mat1"}.get(name, next(iter(arguments)))] if arguments else None


def build(name: str, arguments: Arguments, rank: int) -> nn.Module | None:
    """Returns the module that computes an operator on its `data_input`, or None if it stays a function.

    Args:
        name: Base name of an aten operator, functional form, e.g. `conv2d`.
        arguments: Its arguments by schema name.
        rank: Number of dimensions of the data input.

    Raises:
        ModelError: The operator runs in training mode.
    """
    builder = _BUILDERS.get(name)
    if builder is None:
        return None
    weights = [arguments[name] for name in ("weight", "bias", "running_mean", "running_var") if name in arguments]
    if any(not (w is None or isinstance(w, Constant)) for w in weights):
        return None
    module = builder(arguments, rank)
    return None if module is None else module.eval()


def parameter(constant: Constant) -> nn.Parameter:
    """Returns the constant as a parameter; the same object for a tensor that is one already, so that ties stay tied."""
    value = constant.value
    return value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach(), value.is_floating_point())


def _fill(module: nn.Module, arguments: Arguments) -> nn.Module:
    """Puts weights into a module that was made on the meta device."""
    for name in ("weight", "bias"):
        if isinstance(arguments.get(name), Constant):
            setattr(module, name, parameter(arguments[name]))
    return module


def _expand(values: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """Returns one value per spatial axis; aten accepts a single one for all."""
    values = [values] if isinstance(values, int) else list(values)
    return tuple(values * rank if len(values) == 1 else values)


def _padding(arguments: Arguments, kernel: Sequence[int], rank: int) -> str | tuple[int, ...]:
    """Returns paddings as numbers wherever they are symmetric."""
    padding = arguments["padding"]
    if not isinstance(padding, str):
        return _expand(padding, rank)
    if padding == "valid":
        return (0,) * rank
    total = [d * (k - 1) for d, k in zip(_expand(arguments["dilation"], rank), kernel, strict=True)]
    return padding if any(t % 2 for t in total) else tuple(t // 2 for t in total)


def _convolution(arguments: Arguments, _rank: int) -> nn.Module | None:
    if arguments.get("transposed"):
        return _transposed(arguments, _rank)
    weight = arguments["weight"].value
    rank = weight.dim() - 2
    kernel = tuple(weight.shape[2:])
    convolution: Any = CONVOLUTIONS[rank - 1]
    module = convolution(
        weight.shape[1] * arguments["groups"],
        weight.shape[0],
        kernel,
        stride=_expand(arguments["stride"], rank),
        padding=_padding(arguments, kernel, rank),
        dilation=_expand(arguments["dilation"], rank),
        groups=arguments["groups"],
        bias=arguments["bias"] is not None,
        device="meta",
    )
    return _fill(module, arguments)


def _transposed(arguments: Arguments, _rank: int) -> nn.Module | None:
    weight = arguments["weight"].value
    rank = weight.dim() - 2
    convolution: Any = TRANSPOSED[rank - 1]
    module = convolution(
        weight.shape[0],
        weight.shape[1] * arguments["groups"],
        tuple(weight.shape[2:]),
        stride=_expand(arguments["stride"], rank),
        padding=_expand(arguments["padding"], rank),
        output_padding=_expand(arguments["output_padding"], rank),
        groups=arguments["groups"],
        bias=arguments["bias"] is not None,
        dilation=_expand(arguments["dilation"], rank),
        device="meta",
    )
    return _fill(module, arguments)


def _linear(arguments: Arguments, _rank: int) -> nn.Module | None:
    weight = arguments["weight"].value
    if weight.dim() != 2:
        return None
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=arguments["bias"] is not None, device="meta")
    return _fill(module, arguments)


def _product(arguments: Arguments, _rank: int) -> nn.Module | None:
    """A matrix product with constants, which is what a linear layer decomposes to: `mm(x, W^T)`, `addmm(b, x, W^T)`."""
    matrix, bias = arguments["mat2"], arguments["self"] if "mat1" in arguments else None
    plain = (arguments.get("beta", 1), arguments.get("alpha", 1)) == (1, 1)
    vector = bias is None or (isinstance(bias, Constant) and bias.value.dim() == 1)
    if not (isinstance(matrix, Constant) and plain and vector):
        return None
    return _linear({"weight": Constant(matrix.value.t().contiguous()), "bias": bias}, 2)


def _batch_norm(arguments: Arguments, rank: int) -> nn.Module | None:
    mean = arguments["running_mean"]
    if arguments.get("training") or mean is None:
        raise ModelError(
            "a batch norm uses the statistics of the current batch, not stored ones; "
            "call model.eval() before exporting, and give every batch norm running statistics"
        )
    affine = arguments["weight"] is not None or arguments["bias"] is not None
    module = BATCH_NORMS[max(rank - 3, 0)](
        mean.value.shape[0], arguments["eps"], arguments["momentum"], affine=affine, device="meta"
    )
    if affine:
        module.weight = nn.Parameter(torch.ones_like(mean.value))
        module.bias = nn.Parameter(torch.zeros_like(mean.value))
    module.running_mean = mean.value.detach()
    module.running_var = arguments["running_var"].value.detach()
    module.num_batches_tracked = torch.tensor(0)
    return _fill(module, arguments)


def _layer_norm(arguments: Arguments, _rank: int) -> nn.Module | None:
    shape = tuple(arguments["normalized_shape"])
    if any(not isinstance(size, int) for size in shape):
        return None
    weight, bias = arguments["weight"], arguments["bias"]
    module = nn.LayerNorm(shape, arguments["eps"], weight is not None, bias is not None, device="meta")
    return _fill(module, arguments)


def _group_norm(arguments: Arguments, _rank: int) -> nn.Module | None:
    known = arguments["weight"] or arguments["bias"]
    if known is None:
        return None
    groups = arguments.get("num_groups") or arguments["group"]
    module = nn.GroupNorm(groups, known.value.shape[0], arguments["eps"], device="meta")
    module.weight = nn.Parameter(torch.ones_like(known.value))
    module.bias = nn.Parameter(torch.zeros_like(known.value))
    return _fill(module, arguments)


def _prelu(arguments: Arguments, _rank: int) -> nn.Module | None:
    return _fill(nn.PReLU(arguments["weight"].value.numel(), device="meta"), arguments)


def _hardtanh(arguments: Arguments, _rank: int) -> nn.Module | None:
    low, high = arguments["min_val"], arguments["max_val"]
    return nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)


def _clamp(arguments: Arguments, _rank: int) -> nn.Module | None:
    low, high = arguments.get("min"), arguments.get("max")
    if not all(bound is None or isinstance(bound, int | float) for bound in (low, high)) or low != 0:
        return None
    if high is None:
        return nn.ReLU()
    return nn.ReLU6() if high == 6 else None


def _elu(arguments: Arguments, _rank: int) -> nn.Module | None:
    alpha, scale, input_scale = (float(arguments[name]) for name in ("alpha", "scale", "input_scale"))
    return nn.ELU(alpha) if (scale, input_scale) == (1.0, 1.0) else None


def _plain(module: type[nn.Module], **names: str) -> Callable[[Arguments, int], nn.Module | None]:
    """Returns a builder that passes arguments on: `names` maps module argument to schema argument."""

    def builder(arguments: Arguments, _rank: int) -> nn.Module | None:
        return module(**{ours: arguments[theirs] for ours, theirs in names.items()})

    return builder


_BUILDERS: dict[str, Callable[[Arguments, int], nn.Module | None]] = {
    "conv1d": _convolution,
    "conv2d": _convolution,
    "conv3d": _convolution,
    "convolution": _convolution,
    "conv_transpose1d": _transposed,
    "conv_transpose2d": _transposed,
    "conv_transpose3d": _transposed,
    "linear": _linear,
    "addmm": _product,
    "mm": _product,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "layer_norm": _layer_norm,
    "native_layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "native_group_norm": _group_norm,
    "relu": _plain(nn.ReLU),
    "relu6": _plain(nn.ReLU6),
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "leaky_relu": _plain(nn.LeakyReLU, negative_slope="negative_slope"),
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
    "gelu": _plain(nn.GELU, approximate="approximate"),
    "silu": _plain(nn.SiLU),
    "hardswish": _plain(nn.Hardswish),
    "hardsigmoid": _plain(nn.Hardsigmoid),
    "tanh": _plain(nn.Tanh),
    "sigmoid": _plain(nn.Sigmoid),
    "elu": _elu,
    "selu": _plain(nn.SELU),
    "celu": _plain(nn.CELU, alpha="alpha"),
    "softplus": _plain(nn.Softplus, beta="beta", threshold="threshold"),
    "mish": _plain(nn.Mish),
}
