"""Small in-memory samples, and a device whose clock is arithmetic."""

from collections.abc import Mapping, Sequence

import torch
from torch import fx, nn
from torch.utils.data import Dataset

from compressors.graph import Graph, TensorSpec
from compressors.problem import TimedOperator


class Tensors(Dataset):
    """Samples from tensors, one at a time."""

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor | None = None) -> None:
        self.inputs = inputs
        self.labels = torch.full((len(inputs),), -1) if labels is None else labels

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[tuple[torch.Tensor, ...], int | torch.Tensor]:
        label = self.labels[index]
        return (self.inputs[index],), label if label.is_floating_point() else int(label)


class BatchedTensors(Tensors):
    """The same, and whole batches at once."""

    def batch(self, indices: Sequence[int]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        picked = torch.as_tensor(list(indices))
        return (self.inputs[picked],), self.labels[picked]


def random_samples(graph: Graph, count: int, seed: int, *, labelled: bool = False) -> BatchedTensors:
    """Normal inputs; where labelled, the labels are what the graph itself says."""
    inputs = graph.inputs[0].random(count, seed)
    if not labelled:
        return BatchedTensors(inputs)
    with torch.no_grad():
        return BatchedTensors(inputs, graph.module(inputs).argmax(1))


class Recorder:
    """A progress that remembers how far the work was."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, str, Mapping[str, float] | None]] = []

    def __call__(self, fraction: float, message: str, metrics: Mapping[str, float] | None = None) -> None:
        self.calls.append((fraction, message, metrics))

    @property
    def fractions(self) -> list[float]:
        return [fraction for fraction, _, _ in self.calls]


class CountingTimer:
    """A device that takes 1 ns per multiplication of an operator and 1 us per call of any node.

    A network takes `overhead` seconds more than the sum of its operators, and `slope` times as long, as real ones do.
    """

    def __init__(self, overhead: float = 5e-6, slope: float = 1.3) -> None:
        self.overhead, self.slope = overhead, slope
        self.timed: list[str] = []
        self.networks_timed = 0

    def operators(self, operators: Sequence[TimedOperator]) -> list[float]:
        self.timed += [operator.key for operator in operators]
        return [_seconds(operator.module, operator.inputs) for operator in operators]

    def networks(self, networks: Sequence[tuple[nn.Module, tuple[TensorSpec, ...]]]) -> list[float]:
        self.networks_timed += len(networks)
        return [self.overhead + self.slope * _seconds(module, inputs) for module, inputs in networks]


def _seconds(module: nn.Module, inputs: tuple[TensorSpec, ...]) -> float:
    assert isinstance(module, fx.GraphModule)
    seconds = 0.0

    def count(operator: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal seconds
        outputs = output[0].numel() // operator.weight.shape[0]
        seconds += 1e-9 * operator.weight.numel() * outputs

    counted = [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    handles = [part.register_forward_hook(count) for part in counted]
    with torch.no_grad():
        module(*(spec.random(1, 0) for spec in inputs))
    for handle in handles:
        handle.remove()
    calls = sum(node.op in ("call_module", "call_function", "call_method") for node in module.graph.nodes)
    return seconds + 1e-6 * calls
