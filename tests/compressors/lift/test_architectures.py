"""Whole architectures of torchvision and timm, built with random weights and lifted."""

from dataclasses import replace

import pytest
import timm
import torch
from torchvision import models

from compressors.analysis import analyse
from compressors.lift import lift
from compressors.surgery import merge
from compressors.surgery.verify import relative_error
from tests.compressors.networks import exported, randomise

FAST = ["timm:resnet18", "timm:efficientnet_lite0", "timm:convnext_atto", "torchvision:vgg11_bn"]
SLOW = [
    "torchvision:mobilenet_v2",
    "timm:mobilenetv3_large_100",
    "timm:vit_tiny_patch16_224",
    "timm:mixer_s32_224",
    "timm:regnety_002",
    "timm:resnetv2_50",
    "timm:nfnet_l0",
    "torchvision:densenet121",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:googlenet",
    "torchvision:swin_t",
    "torchvision:squeezenet1_1",
    "timm:hrnet_w18_small",
    "timm:deit_tiny_patch16_224",
    "timm:edgenext_xx_small",
    "timm:ghostnet_100",
]


def build(name):
    source, _, architecture = name.partition(":")
    torch.manual_seed(0)
    if source == "timm":
        options = {"img_size": 64} if architecture.startswith(("vit", "deit", "mixer")) else {}
        return timm.create_model(architecture, pretrained=False, **options)
    if architecture == "googlenet":
        return models.googlenet(init_weights=False, aux_logits=False)
    return models.get_model(architecture, weights=None)


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_lifted_architecture_computes_the_same_and_has_segments(name):
    model = randomise(build(name))
    graph = lift(exported(model, (3, 64, 64)), name)
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        wanted, got = model(x), graph.module(x)
    assert float((wanted - got).abs().max() / wanted.abs().max().clamp_min(1e-30)) <= 1e-6
    analysis = analyse(graph)
    assert analysis.sites
    assert any(segment.kernels for segment in analysis.segments)
    if "vgg" not in name:  # over a gigabyte in float64
        check_merge(graph)


def check_merge(graph):
    double = replace(graph.copied(), inputs=tuple(replace(spec, dtype=torch.float64) for spec in graph.inputs))
    double.module.double()
    x = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        wanted, got = double.module(x), merge(double).graph.module(x)
    assert relative_error(wanted, got) <= 1e-10
