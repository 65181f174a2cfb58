from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import fx, nn

from compressors.graph import Graph, TensorSpec
from service.data import TokenRecipe
from service.data.preprocessing import ResolvedPreprocessing
from service.delivery.describe import choose_labels, class_output, describe_preprocessing
from service.delivery.manifest import ImagePreprocessing, RawPreprocessing, TokenPreprocessing

IMAGE = TensorSpec("image", (3, 32, 24))
SCORES = TensorSpec("scores", (2,))


def graph(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (SCORES,)) -> Graph:
    return Graph(fx.symbolic_trace(nn.Identity()), inputs, outputs, "net")


def test_an_image_recipe_is_told_with_nothing_left_open() -> None:
    recipe = ResolvedPreprocessing((3, 32, 24), (0.5,) * 3, (0.2,) * 3, crop_fraction=0.8, interpolation="nearest")
    assert describe_preprocessing(recipe, graph(IMAGE)) == ImagePreprocessing(
        input="image",
        color="RGB",
        size=(32, 24),
        resize=(40, 30),
        keep_proportions=True,
        keep_exact=True,
        interpolation="nearest",
        antialias=False,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
    )


def test_ready_inputs_are_told_so() -> None:
    recipe = ResolvedPreprocessing((5,), raw=True)
    assert describe_preprocessing(recipe, graph(TensorSpec("x", (5,)))) == RawPreprocessing()


def test_images_of_a_denoiser_are_no_inputs_yet() -> None:
    recipe = ResolvedPreprocessing((3, 8, 8), (0.5,) * 3, (0.5,) * 3)
    found = describe_preprocessing(recipe, graph(IMAGE, TensorSpec("timestep", (), torch.int64)))
    assert found.kind == "noised_image"


def test_channels_that_are_no_colours_have_none() -> None:
    recipe = ResolvedPreprocessing((5, 8, 8), (0.5,) * 5, (0.5,) * 5)
    found = describe_preprocessing(recipe, graph(TensorSpec("x", (5, 8, 8))))
    assert isinstance(found, ImagePreprocessing)
    assert found.color is None


@dataclass(frozen=True)
class Words:
    """A tokenizer that says which one it is."""

    fingerprint: str = "words 0123"

    def encode(self, texts: object) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
        raise NotImplementedError(texts)


def test_texts_are_told_by_tokenizer_length_and_role() -> None:
    specs = tuple(TensorSpec(name, (16,), torch.int64) for name in ("input_ids", "attention_mask"))
    found = describe_preprocessing(TokenRecipe(specs, Words()), graph(*specs))
    roles = {"input_ids": "ids", "attention_mask": "mask"}
    assert found == TokenPreprocessing(tokenizer="words 0123", length=16, roles=roles)
    assert describe_preprocessing(TokenRecipe(specs), graph(*specs)) == TokenPreprocessing(
        tokenizer=None, length=None, roles={}
    )


@pytest.mark.parametrize(
    ("named", "stated", "chosen"),
    [
        (("a", "b"), ("x", "y"), ("a", "b")),
        (None, ("x", "y"), ("x", "y")),
        (("a",), ("x", "y"), ("x", "y")),
        (("a", "b", "c"), ("x",), None),
        (None, None, None),
    ],
)
def test_names_are_the_datas_else_the_models_and_as_many_as_classes(
    named: tuple[str, ...] | None, stated: tuple[str, ...] | None, chosen: tuple[str, ...] | None
) -> None:
    assert choose_labels(named, stated, 2) == chosen


def test_the_judged_output_is_the_one_with_classes() -> None:
    box = TensorSpec("box", (4, 4))
    assert class_output(graph(IMAGE)) == SCORES
    assert class_output(graph(IMAGE, outputs=(box,))) is None
