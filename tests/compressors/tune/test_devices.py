"""Where and in what numbers: the choice, and what accelerate does with it."""

import pytest
import torch
from torch import nn

from compressors.precision import choose_precision
from compressors.tune.devices import Devices, bring_back, choose_device


def test_precision_is_what_was_asked_for() -> None:
    assert choose_precision("cpu", "float32") == "float32"
    assert choose_precision("cpu", "bfloat16") == "bfloat16"
    assert choose_precision("cpu", "auto") in ("float32", "bfloat16")


def test_device_is_a_gpu_only_where_there_is_one() -> None:
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == "cpu"


def test_precisions_follow_one_another_in_one_process() -> None:
    x = torch.randn(4, 8)
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        devices = Devices("cpu", precision)
        layer = nn.Linear(8, 3)
        model, optimizer = devices.prepared(layer, torch.optim.SGD(layer.parameters(), lr=0.1))
        with devices.autocast():
            assert nn.Linear(8, 3)(x).dtype == dtype
        y = model(x)
        assert y.dtype == torch.float32
        devices.backward(y.sum())
        optimizer.step()
        assert layer.weight.dtype == torch.float32


def test_gradients_are_clipped_to_a_common_norm() -> None:
    devices = Devices("cpu", "float32")
    layer = nn.Linear(8, 3)
    model, _ = devices.prepared(layer, torch.optim.SGD(layer.parameters(), lr=0.1))
    devices.backward(100 * model(torch.randn(4, 8)).sum())
    devices.clip(list(layer.parameters()), 1.0)
    total = sum(float(p.grad.square().sum()) for p in layer.parameters()) ** 0.5
    assert total == pytest.approx(1.0, rel=1e-4)


def test_one_process_has_every_sample_and_decides() -> None:
    devices = Devices("cpu", "float32")
    assert devices.main
    assert devices.share([3, 1, 2]) == [3, 1, 2]
    assert devices.agree("so") == "so"


def test_modules_go_channels_last_and_come_back() -> None:
    layer = nn.Conv2d(4, 4, 3)
    Devices("cpu", "float32").place_module(layer)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    layer.train()
    bring_back(layer)
    assert layer.weight.is_contiguous()
    assert not layer.training


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_gpu_trains_in_reduced_precision(precision: str) -> None:
    devices = Devices("cuda", precision)
    layer = nn.Linear(8, 3).cuda()
    model, optimizer = devices.prepared(layer, torch.optim.SGD(layer.parameters(), lr=0.1))
    before = layer.weight.detach().clone()
    devices.backward(model(torch.randn(4, 8).cuda()).square().sum())
    optimizer.step()
    assert (devices.scaler is not None) == (precision == "float16")
    assert not torch.equal(before, layer.weight)
