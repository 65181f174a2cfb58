"""A second device of torch without hardware: the processor under another name, where tensors of both never meet.

What runs on a GPU runs here too, and with the same numbers as on the processor: every operator is computed there, after
a check that all tensors are on this device, as CUDA wants them. Autocast and the scaling of float16 work as on a GPU.
So a test finds a tensor that was left behind, and a graph that names the processor, where there is no GPU. What it does
not find: CUDA's own arithmetic, streams, memory.

A process that has it keeps it: `install` is for processes of a test's own. As a pytest plugin (`python -m pytest -p
tests.compressors.second_device ...`) it is where all fine-tuning of the tests takes place; those that then compare
tensors of the two devices fail.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "sdaa"  # torch lets one device be named; float16 is scaled on those that accelerate knows by name
SEEN: Counter[str] = Counter()  # how often each operator ran here, and in which type autocast computed products
_INDEXES = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
_MOVES = {"aten::copy_", "aten::_to_copy"}
_PRODUCTS = ("conv1d", "conv2d", "linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "scaled_dot_product_attention")
_kept: list[torch.library.Library] = []


class Elsewhere(torch.Tensor):
    """A tensor of the second device; `inner` holds its values on the processor."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Self:
        assert type(inner) is torch.Tensor
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return _computed(operator, args, kwargs or {})

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, value: Elsewhere) -> None:
        torch.Tensor.data.__set__(self, value)
        self.inner = value.inner

    def __reduce_ex__(self, protocol: int) -> Any:
        """Is written to a file as its values, so that reading it needs no second device (`map_location="cpu"`)."""
        return self.inner.detach().__reduce_ex__(protocol)


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class _Generator(torch.Generator):
    """Random numbers are the processor's."""

    def __new__(cls, device: Any = None) -> torch.Generator:  # noqa: ARG004 (the processor's, whatever is asked for)
        return torch._C.Generator()


def install() -> None:
    """Makes the second device known to torch, and to accelerate's scaling of float16."""
    import accelerate.accelerator

    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    # What makes a tensor from none has no `Elsewhere` that would be asked.
    everything.fallback(lambda operator, *args, **kwargs: _computed(operator, args, kwargs), "PrivateUse1")
    products = torch.library.Library("aten", "IMPL")
    for name in _PRODUCTS:
        products.impl(name, _reduced(getattr(torch.ops.aten, name).default), "AutocastPrivateUse1")
    _kept.extend((everything, products))
    torch.Generator = _Generator  # type: ignore[misc]
    accelerate.accelerator.get_grad_scaler = lambda *_, **settings: torch.amp.GradScaler(NAME, **settings)


@contextmanager
def in_use() -> Iterator[None]:
    """Has accelerate use it, whatever device it is asked for."""
    os.environ["ACCELERATE_TORCH_DEVICE"] = NAME
    try:
        yield
    finally:
        del os.environ["ACCELERATE_TORCH_DEVICE"]


def pytest_configure(config: Any) -> None:
    """Fine-tunes there in this whole run."""
    from compressors.tune import devices, group

    install()
    os.environ["ACCELERATE_TORCH_DEVICE"] = NAME
    devices.choose_device = group.choose_device = lambda _: NAME


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says how much was computed there."""
    terminalreporter.write_line(f"{SEEN.total()} operators on the second device")


def _computed(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Computes on the processor what is asked for on the second device.

    Raises:
        RuntimeError: Some tensor is on the processor, as CUDA says it.
    """
    name = operator._schema.name
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    # An index may lie on the processor if what it picks from is here, not the other way round.
    bound = [args[0]] if name in _INDEXES and isinstance(args[0], Elsewhere) else tensors
    bound = [tensor for tensor in bound if tensor.dim() > 0]
    if name not in _MOVES and any(isinstance(tensor, Elsewhere) != isinstance(bound[0], Elsewhere) for tensor in bound):
        where = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in bound)
        raise RuntimeError(f"Expected all tensors of {operator} to be on the same device, but got {where}")
    SEEN[name] += 1
    asked = kwargs.get("device")
    inside = {**kwargs, **({} if asked is None else {"device": torch.device("cpu")})}
    inside |= {"pin_memory": False} if "pin_memory" in kwargs else {}
    mine = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, Elsewhere)}
    result = operator(*pytree.tree_map(_inner, args), **pytree.tree_map(_inner, inside))
    if name == "aten::copy_":
        return args[0]
    if asked is not None and torch.device(asked).type == "cpu":
        return result
    return pytree.tree_map_only(torch.Tensor, lambda tensor: _outer(tensor, mine), result)


def _outer(tensor: torch.Tensor, known: Mapping[int, Elsewhere]) -> Elsewhere:
    """Returns the tensor as one of the second device; of what was changed in place, the one that it was."""
    there = known.get(id(tensor))
    return Elsewhere(tensor) if there is None else there


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Elsewhere) else value


def _reduced(operator: Any) -> Any:
    """Returns the operator as autocast computes it."""

    def reduced(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(NAME)
        SEEN[str(dtype)] += 1

        def cast(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(dtype) if tensor.dtype == torch.float32 else tensor

        without = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
        with torch._C._ExcludeDispatchKeyGuard(without):
            args, kwargs = pytree.tree_map_only(torch.Tensor, cast, (args, kwargs))
            return operator(*args, **kwargs)

    return reduced
