"""Where a training runs and in what numbers; `accelerate` does the moving, the scaling and the gathering."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, final

import torch
from torch import fx
from torch.fx.node import map_aggregate

from compressors.batches import channels_last
from compressors.precision import Precision, choose_precision

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from torch import nn

    from compressors.graph import Graph

_ACCELERATE: Final[dict[Precision, str]] = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def choose_device(asked: str) -> str:
    """Returns what was asked for; "auto" is a GPU where there is one."""
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


@final
class Devices:
    """The devices of one training; weights stay float32 on each of them.

    In a group of processes (`accelerate launch`, `torchrun`), one per GPU, each trains on its share of every batch and
    gradients are averaged; the first process decides for all.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: What products are computed in.
    """

    def __init__(self, device: str, precision: Literal["auto"] | Precision) -> None:
        where = choose_device(device)
        self.precision = choose_precision(where, precision)
        if ":" in where:
            torch.cuda.set_device(where)
        self._cpu = where == "cpu"
        self._accelerator = _accelerator(self._cpu, self.precision)

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return torch.device(self._accelerator.device)

    @property
    def main(self) -> bool:
        """Whether this process decides and reports."""
        return bool(self._accelerator.is_main_process)

    @property
    def rank(self) -> int:
        """Which process of the group this is."""
        return int(self._accelerator.process_index)

    def share(self, indices: Sequence[int]) -> Sequence[int]:
        """Returns this process's part of a batch."""
        return indices[self.rank :: self._accelerator.num_processes]

    def agree(self, value: Any) -> Any:
        """Returns the first process's value, in every process."""
        if self._accelerator.num_processes == 1:
            return value
        from accelerate.utils import broadcast_object_list

        values = [value]
        broadcast_object_list(values)
        return values[0]

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns the tensor on the device, images in channels-last order: convolutions train faster on it."""
        return channels_last(tensor.to(self.device))

    def place_module(self, module: nn.Module) -> None:
        """Moves a module to the device, in place, weights of convolutions in channels-last order."""
        module.to(self.device)
        _address(module, self.device)
        for parameter in module.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def placed(self, graph: Graph) -> Graph:
        """Returns the graph where this process computes: a copy on a GPU, itself on the processor."""
        if self.device.type == "cpu":
            return graph
        copy = graph.copied()
        self.place_module(copy.module)
        return copy

    def autocast(self) -> AbstractContextManager[None]:
        """Returns the context in which products are computed in this precision."""
        return self._accelerator.autocast()  # type: ignore[no-any-return]

    def prepared(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """Returns both as the steps need them: autocast, gradients averaged and, in float16, scaled.

        The outputs are float32. `module` is for nothing else afterwards: its own calls are changed. What was prepared
        before is let go.
        """
        self._accelerator = _accelerator(self._cpu, self.precision)
        model, wrapped = self._accelerator.prepare(module, optimizer)
        return model, wrapped

    def backward(self, loss: torch.Tensor) -> None:
        """Adds up the gradients of a loss."""
        self._accelerator.backward(loss)

    def clip(self, parameters: Sequence[nn.Parameter], largest: float) -> None:
        """Scales the gradients down so that their common norm is at most `largest`."""
        self._accelerator.clip_grad_norm_(parameters, largest)

    @property
    def scaler(self) -> Any:
        """What keeps float16 gradients from vanishing; None in other precisions."""
        return self._accelerator.scaler


def bring_back(module: nn.Module) -> None:
    """Moves a module to the processor, in the usual memory order, in eval mode, in place."""
    module.to("cpu")
    _address(module, torch.device("cpu"))
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()
        parameter.grad = None
    module.eval()


def _address(module: nn.Module, device: torch.device) -> None:
    """Has what its graphs make from nothing made on a device: an exported program names the one it was exported on."""
    for part in module.modules():
        if isinstance(part, fx.GraphModule) and sum(_redirect(node, device) for node in part.graph.nodes):
            part.recompile()


def _redirect(node: fx.Node, device: torch.device) -> bool:
    """Names a device in a node wherever it names one; returns whether that is another one."""

    def there(value: Any) -> Any:
        return device if isinstance(value, torch.device) else value

    before = node.args, node.kwargs
    node.args, node.kwargs = map_aggregate(node.args, there), map_aggregate(node.kwargs, there)
    return (node.args, node.kwargs) != before


def _accelerator(cpu: bool, precision: Precision) -> Any:
    """Returns an accelerator of this precision.

    accelerate keeps the first precision of a process for its lifetime; a process that runs several trainings has to
    put that aside. A group of processes keeps its connections, so it keeps its device too.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, PartialState

    grouped = PartialState._shared_state != {} and PartialState().num_processes > 1  # noqa: SLF001
    AcceleratorState._reset_state(reset_partial_state=not grouped)  # noqa: SLF001  # there is no public way
    # A parameter that a cut left without a use gets no gradient; the group must not wait for it.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(cpu=cpu, mixed_precision=_ACCELERATE[precision], kwargs_handlers=[unused])
