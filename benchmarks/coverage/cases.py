"""The list: which architectures, from where, and at what input size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from benchmarks.coverage import detectors, networks

IMAGE = (3, 96, 96)
"""For convolutional networks: large enough for a stride of 32, small enough for two cores."""

FULL = (3, 224, 224)


@dataclass(frozen=True)
class Case:
    """One architecture.

    Attributes:
        name: As `ModelSource.name`, or `own:` and a name of its own.
        shape: One sample of its only input; None leaves it to the architecture's config.
        build: Makes the networks of its own; they come in as a `.pt2` file.
        options: Of the source.
    """

    name: str
    shape: tuple[int, ...] | None = IMAGE
    build: Callable[[], nn.Module] | None = None
    options: Mapping[str, object] = field(default_factory=dict)


_TIMM = """
resnet18 resnet34 resnet50 mobilenetv2_075 mobilenetv2_140 efficientnet_lite0 efficientnet_lite1 efficientnet_lite2
efficientnet_lite3 efficientnet_lite4 mobilenetv3_small_100 mobilenetv3_large_100 mobilenetv4_conv_small
mobilenetv4_conv_medium mobilenetv4_hybrid_medium mobileone_s0 mobileone_s1 repvgg_a0 repvgg_b0 convnext_atto
convnext_tiny convnextv2_atto convnextv2_tiny regnetx_002 regnety_002 regnety_008 ghostnet_100 ghostnetv2_100
ghostnetv3_100 edgenext_xx_small edgenext_small densenet121 inception_v4 mnasnet_100 efficientnet_b0
tf_efficientnetv2_s xception41 resnext50_32x4d wide_resnet50_2 seresnet50 skresnet18 res2net50_26w_4s hrnet_w18_small
dla34 dla46x_c poolformer_s12 poolformerv2_s12 repvit_m0_9 repvit_m1_0 hgnetv2_b0 hgnet_tiny nfnet_l0 eca_nfnet_l0
resnetv2_50 lcnet_100 fasternet_t0 starnet_s1 cspdarknet53 ese_vovnet19b_dw rexnet_100 selecsls42b gernet_s
repghostnet_100 tresnet_m mambaout_femto cspnext_tiny
"""
_TIMM_FULL = """
fastvit_t8 efficientformer_l1 efficientformerv2_s0 mobilevit_xxs mobilevitv2_050 tiny_vit_5m_224 levit_128s
coatnet_0_rw_224 maxvit_tiny_tf_224 cait_xxs24_224 deit_tiny_patch16_224 pit_ti_224 efficientvit_b0 efficientvit_m0
xcit_nano_12_p16_224 visformer_tiny vit_tiny_patch16_224 vit_small_patch16_224 mixer_s16_224
"""
_TIMM_LARGE = "vit_base_patch16_224 mixer_b16_224 vit_large_patch16_224"
_TORCHVISION = """
mobilenet_v2 resnet18 shufflenet_v2_x1_0 googlenet squeezenet1_1 mnasnet1_0 regnet_x_400mf efficientnet_b0 densenet121
"""
_DENSE = "lraspp_mobilenet_v3_large deeplabv3_mobilenet_v3_large fcn_resnet50"
_VGG = "vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn"


def cases() -> list[Case]:
    """Returns every case, the largest last."""
    return [
        *(
            _cifar(depth, option)
            for depth, option in ((20, "A"), (20, "B"), (32, "A"), (44, "A"), (56, "A"), (110, "A"))
        ),
        Case("own:unet", IMAGE, networks.UNet),
        Case("own:audio", (1, 8000), networks.Audio),
        Case("own:yolo-like", IMAGE, detectors.YoloLike),
        Case("own:ssd-like", IMAGE, detectors.SsdLike),
        *(Case(f"timm:{name}") for name in _TIMM.split()),
        *(Case(f"timm:{name}", FULL) for name in _TIMM_FULL.split()),
        *(Case(f"torchvision:{name}") for name in _TORCHVISION.split()),
        Case("torchvision:mobilenet_v2@224", FULL),
        Case("torchvision:inception_v3", (3, 139, 139)),
        Case("torchvision:swin_t", FULL),
        *(Case(f"torchvision:{name}") for name in _DENSE.split()),
        *(Case(name, None) for name in ("transformers:bert", "transformers:roberta", "transformers:gpt2")),
        Case("diffusers:ddpm-cifar10", None),
        *(Case(f"timm:{name}", FULL) for name in _TIMM_LARGE.split()),
        *(Case(f"torchvision:{name}", FULL) for name in _VGG.split()),
    ]


def _cifar(depth: int, option: str) -> Case:
    name = f"own:cifar-resnet{depth}" + ("" if option == "A" else "-b")
    return Case(name, (3, 32, 32), partial(networks.CifarResNet, depth, option))
