"""The libraries' own architectures, small, loaded through the same door as what users hand in."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from compressors.graph import Graph
from compressors.sources import ModelSource, load
from tests.compressors.networks import exported, randomise

TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
TOKENS = 8


def resnet() -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    narrow = {"channels": (4, 4, 4, 6), "stem_type": "deep", "stem_width": 2}
    return ResNet(BasicBlock, (2, 1, 1, 1), num_classes=5, zero_init_last=False, **narrow)


def mobilenet() -> nn.Module:
    from torchvision.models.mobilenetv2 import MobileNetV2

    setting = [[1, 8, 1, 1], [3, 8, 2, 2], [3, 12, 1, 2]]
    return MobileNetV2(5, 0.5, inverted_residual_setting=setting)


def vgg() -> nn.Module:
    """The head as it is published, but narrow: its first linear alone has a hundred million weights."""
    from torchvision.models.vgg import VGG, make_layers

    with torch.device("meta"):
        model = VGG(nn.Identity(), init_weights=False)
    model.features = make_layers([4, "M", 8, "M"], batch_norm=True)
    narrow = {4096: 24, 512 * 7 * 7: 8 * 7 * 7, 1000: 5}
    for name, layer in model.classifier.named_children():
        if isinstance(layer, nn.Linear):
            setattr(model.classifier, name, nn.Linear(narrow[layer.in_features], narrow[layer.out_features]))
    return model


def mixer() -> nn.Module:
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(5, img_size=16, patch_size=4, num_blocks=2, embed_dim=16, mlp_ratio=(2.0, 4.0))


def vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(16, 4, num_classes=5, embed_dim=16, depth=2, num_heads=2)


def swin() -> nn.Module:
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([2, 2], 12, [2], [2], [4, 4], num_classes=5)


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**TEXT, intermediate_size=64, num_labels=3))


def roberta() -> nn.Module:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    special = {"type_vocab_size": 1, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    return RobertaForSequenceClassification(RobertaConfig(**TEXT, **special, intermediate_size=64, num_labels=3))


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    special = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2, **special))


def ddpm() -> nn.Module:
    from diffusers import UNet2DModel

    kinds = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    return UNet2DModel(8, 3, 3, layers_per_block=1, block_out_channels=(8,), norm_num_groups=4, **kinds)


IMAGES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet": (resnet, (3, 8, 8)),
    "mobilenet": (mobilenet, (3, 32, 32)),
    "vgg": (vgg, (3, 28, 28)),
    "mixer": (mixer, (3, 16, 16)),
    "vit": (vit, (3, 16, 16)),
    "swin": (swin, (3, 16, 16)),
}
FOLDERS = {"bert": bert, "roberta": roberta, "gpt2": gpt2, "ddpm": ddpm}


def loaded(model: nn.Module, shape: tuple[int, ...] | None, sample: tuple[int, ...] | None = None) -> Graph:
    """A model as a user's: an exported file where its input has a shape, else the folder that its library saves."""
    with TemporaryDirectory() as place:
        if shape is not None:
            path = Path(place) / "model.pt2"
            torch.export.save(exported(model.eval(), shape), path)
            return load(ModelSource("pt2", path=path))
        model.eval().save_pretrained(place)
        return load(ModelSource("folder", path=Path(place), sample_shape=sample))


def trained(model: nn.Module) -> nn.Module:
    """Weights as training might have left them: norms off their first values, and every linear with a say."""
    generator = torch.Generator().manual_seed(1)
    for module in randomise(model).modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.dim() == 2 and not isinstance(module, nn.Embedding):
            inputs = weight.shape[0] if type(module).__name__ == "Conv1D" else weight.shape[1]
            nn.init.normal_(weight, 0, 1.5 * inputs**-0.5, generator=generator)
    return model


def settled(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Batch norms that have seen what runs through the network: without that, random ones let nothing through."""
    model.train()
    with torch.no_grad():
        for _ in range(30):
            model(torch.randn(64, *shape))
    return model.eval()


@cache
def architecture(name: str) -> Graph:
    """A network with weights as training might have left them. Shared between tests, as nobody may change it."""
    torch.manual_seed(0)
    if name in IMAGES:
        build, shape = IMAGES[name]
        return loaded(settled(trained(build()), shape), shape)
    return loaded(trained(FOLDERS[name]()), None, None if name == "ddpm" else (TOKENS,))
