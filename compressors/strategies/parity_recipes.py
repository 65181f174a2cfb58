"""How the papers train, by what a network is: the rows of their tables that come nearest to it.

No paper trained every network that a job may bring. Which row is nearest goes by what the network reads (tokens, noisy
images, small or large images) and how it is built (plain, residual, with depthwise convolutions, with layer norms or
attention). Lengths are not here: a job says how many passes its trainings get, and milestones are shares of them.

1. EASIER, appendix, Table 4: CIFAR-10 and Tiny-ImageNet, 160 epochs with milestones at 80 and 120; PACS and VLCS (224
   pixels), 30 epochs with one at 24. It reads no text.
2. TLC, published scripts: the same for CIFAR-10, but 0.1 for VGG too; ImageNet, 90 epochs with milestones at 30 and 60;
   SST-2, RTE and QNLI with AdamW and no schedule.
3. LayerCollapse, published code: 1,000 epochs with milestones at 75, 150, 250 and 350, times 0.3; language models with
   AdamW, times 0.9 every 50 steps, gradients clipped at 10.
4. Layer Folding, published code: a constant rate, 100 epochs with gates and as many after the fold; plain networks
   decay and have a milestone half way through the training with gates.
5. LayerMerge: every entry for an epoch at 0.1, half a cosine; then ResNet-34, MobileNetV2, VGG19 or a diffusion model.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from torch import nn

from compressors.analysis.kinds import Kind, kind_of
from compressors.tasks.noise import is_denoiser
from compressors.tune import TuneConfig
from compressors.tune.optimise import choose_optimizer
from compressors.tune.recipe import Recipe

if TYPE_CHECKING:
    from compressors.graph import Graph


class Recipes(NamedTuple):
    """A paper's, for one network.

    Attributes:
        way: Of trainings on the way to a network.
        final: Of the network that was found.
    """

    way: Recipe
    final: Recipe


class Build(StrEnum):
    """What a network is, as far as the papers' tables tell networks apart."""

    TEXT = "text"
    DENOISER = "denoiser"
    TRANSFORMER = "transformer"
    MOBILE = "mobile"
    RESIDUAL = "residual"
    PLAIN = "plain"


_SMALL = 64
"""Pixels: CIFAR-10 has 32, Tiny-ImageNet 64; everything else in the papers has 224."""

CIFAR: Final = Recipe("sgd", 0.1, weight_decay=1e-4, milestones=(80 / 160, 120 / 160))
IMAGENET: Final = Recipe("sgd", 0.1, weight_decay=1e-4, milestones=(30 / 90, 60 / 90))
PACS: Final = Recipe("sgd", 0.001, batch=16, weight_decay=5e-4, milestones=(24 / 30,))
GLUE: Final = Recipe("adamw", 2e-5, batch=32)
COLLAPSE: Final = Recipe("sgd", 0.005, batch=256, milestones=(75 / 1000, 150 / 1000, 250 / 1000, 350 / 1000), gamma=0.3)
COLLAPSE_TEXT: Final = Recipe("adamw", 1e-4, batch=64, schedule="steps", gamma=0.9, decay_steps=50, clip=10.0)
FOLDING: Final = Recipe("sgd", 0.001)
FOLDING_PLAIN: Final = Recipe("sgd", 0.001, weight_decay=5e-4)
ENTRY: Final = Recipe("sgd", 0.1, batch=256, nesterov=True, weight_decay=1e-5, schedule="cosine")
ENTRY_DENOISER: Final = Recipe("adam", 2e-4, batch=256)
MERGED_RESNET: Final = Recipe(
    "sgd",
    1.024,
    batch=1024,
    momentum=0.875,
    weight_decay=3.0518e-5,
    decay_vectors=False,
    schedule="cosine",
    warmup=8 / 90,
    label_smoothing=0.1,
)
MERGED_MOBILE: Final = replace(ENTRY, rate=0.05)
MERGED_VGG: Final = replace(ENTRY, rate=0.01)
MERGED_DENOISER: Final = Recipe("adam", 4e-4, ema=0.9999, clip=1.0)


def build_of(graph: Graph) -> Build:
    """Returns what a network is, by its inputs first and its operators then."""
    if is_denoiser(graph):
        return Build.DENOISER
    if not graph.inputs[0].dtype.is_floating_point:
        return Build.TEXT
    if choose_optimizer(graph.module, TuneConfig()) != "sgd":
        return Build.TRANSFORMER
    if any(isinstance(part, nn.Conv2d) and part.groups == part.in_channels > 1 for part in graph.module.modules()):
        return Build.MOBILE
    return Build.PLAIN if is_plain(graph) else Build.RESIDUAL


def is_plain(graph: Graph) -> bool:
    """Returns whether nothing is added to anything: no shortcuts."""
    return all(kind_of(node) is not Kind.ADD for node in graph.module.graph.nodes)


def easier(graph: Graph) -> Recipes:
    """Returns EASIER's; for texts, which it does not read, those of TLC, from the same authors."""
    build = build_of(graph)
    if build is Build.TEXT:
        return Recipes(GLUE, GLUE)
    recipe = replace(CIFAR, rate={Build.TRANSFORMER: 0.001, Build.PLAIN: 0.01}.get(build, CIFAR.rate))
    return Recipes(PACS, PACS) if _large(graph) else Recipes(recipe, recipe)


def tlc(graph: Graph) -> Recipes:
    """Returns TLC's."""
    build, large = build_of(graph), _large(graph)
    recipe = IMAGENET if large else CIFAR
    if build is Build.TEXT:
        recipe = GLUE
    elif build is Build.TRANSFORMER:
        recipe = PACS if large else replace(CIFAR, rate=0.001)
    elif build is Build.PLAIN and large:
        recipe = replace(IMAGENET, rate=0.01)
    return Recipes(recipe, recipe)


def layer_collapse(graph: Graph) -> Recipes:
    """Returns LayerCollapse's."""
    recipe = COLLAPSE_TEXT if build_of(graph) is Build.TEXT else COLLAPSE
    return Recipes(recipe, recipe)


def layer_folding(graph: Graph) -> Recipes:
    """Returns Layer Folding's, with gates and after the fold."""
    if is_plain(graph):
        return Recipes(replace(FOLDING_PLAIN, milestones=(50 / 100,)), FOLDING_PLAIN)
    return Recipes(FOLDING, FOLDING)


def layer_merge(graph: Graph) -> Recipes:
    """Returns LayerMerge's, of every entry and of the network that is chosen; MobileNetV2's where none is nearer."""
    build = build_of(graph)
    final = {Build.DENOISER: MERGED_DENOISER, Build.RESIDUAL: MERGED_RESNET, Build.PLAIN: MERGED_VGG}
    return Recipes(ENTRY_DENOISER if build is Build.DENOISER else ENTRY, final.get(build, MERGED_MOBILE))


def _large(graph: Graph) -> bool:
    """Returns whether a network reads images of more pixels than Tiny-ImageNet's."""
    return len(graph.inputs[0].shape) == 3 and graph.inputs[0].shape[-1] > _SMALL
