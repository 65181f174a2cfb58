import itertools

import pytest
import torch
from hypothesis import assume, given
from torch import nn

from compressors import algebra
from compressors.algebra import Affine
from tests.compressors.algebra.maps import fits, form, forms, map_of, module_of, pair_of, quick


def linears(*widths):
    return [Affine(torch.zeros(1).expand(o, i), torch.zeros(o)) for i, o in itertools.pairwise(widths)]


def pixelwise(t, inputs, outputs):
    shapes = form(2, kernel=1), form(2, pad=1, groups=t * inputs), form(2, kernel=1)
    channels = (inputs, t * inputs), (t * inputs, t * inputs), (t * inputs, outputs)
    maps = [map_of(module_of(s, *io), s) for s, io in zip(shapes, channels, strict=True)]
    return maps if t > 1 else maps[1:]


def test_cost_of_a_convolution():
    _, one = pair_of(form(2, pad=1, stride=2, groups=2), 4, 6)
    assert algebra.cost(one, (8, 9)).parameters == 6 * 2 * 9 + 6
    assert algebra.cost(one, (8, 9)).multiply_adds == 6 * 2 * 9 * 4 * 5


def test_parameters_are_the_modules():
    conv = nn.Conv2d(4, 6, 3, groups=2)
    assert algebra.cost(algebra.of_module(conv), (5, 5)).parameters == sum(p.numel() for p in conv.parameters())


@pytest.mark.parametrize(
    ("widths", "before", "after"),
    [
        ((768, 3072, 768), 4_722_432, 590_592),
        ((196, 384, 196), 151_108, 38_612),
        ((512, 64, 512), 66_112, 262_656),
        ((25088, 4096, 4096), 119_545_856, 102_764_544),
    ],
)
def test_size_rule_of_two_linears(widths, before, after):
    compared = algebra.compare(linears(*widths), ())
    assert (compared.chain.parameters, compared.merged.parameters) == (before, after)
    inputs, hidden, outputs = widths
    assert compared.fewer_parameters == (hidden * (inputs + outputs + 1) > inputs * outputs)
    assert compared.fewer_multiply_adds == (hidden * (inputs + outputs) > inputs * outputs)


@pytest.mark.parametrize(
    ("t", "inputs", "outputs", "before", "after"),
    [(6, 24, 24, 8208, 5184), (6, 32, 32, 14_016, 9216), (6, 64, 96, 64_896, 55_296), (1, 32, 16, 800, 4608)],
)
def test_multiply_adds_of_inverted_residuals(t, inputs, outputs, before, after):
    compared = algebra.compare(pixelwise(t, inputs, outputs), (1, 1))
    assert (compared.chain.multiply_adds, compared.merged.multiply_adds) == (before, after)
    assert compared.fewer_multiply_adds == (after < before)


def test_two_3x3_grow():
    maps = [pair_of(form(2, pad=1), 4, 4)[1]] * 2
    compared = algebra.compare(maps, (8, 8))
    assert compared.merged.multiply_adds / compared.chain.multiply_adds == 25 / 18
    strided = [pair_of(form(2, pad=1, stride=2), 4, 8)[1], pair_of(form(2, pad=1), 8, 8)[1]]
    compared = algebra.compare(strided, (8, 8))
    assert compared.merged.multiply_adds / compared.chain.multiply_adds == 98 * 16 / (27 * 32)


def test_cheapest_runs_are_the_cheapest_of_all():
    maps = linears(100, 20, 300, 10, 200, 150)

    def spent(cuts):
        runs = itertools.pairwise([0, *cuts, len(maps)])
        return sum(algebra.compare(maps[a:b], ()).merged.multiply_adds for a, b in runs)

    every = [cuts for n in range(len(maps)) for cuts in itertools.combinations(range(1, len(maps)), n)]
    runs = algebra.cheapest_runs(maps, ())
    assert spent([start for start, _ in runs[1:]]) == min(map(spent, every))
    assert [start for start, _ in runs] == [0, *(stop for _, stop in runs[:-1])]


def test_bottleneck_is_kept():
    assert algebra.cheapest_runs(linears(512, 64, 512), ()) == ((0, 1), (1, 2))
    assert algebra.cheapest_runs(linears(64, 512, 64), ()) == ((0, 2),)


@quick
@given(one=forms(2), two=forms(2), three=forms(2))
def test_compared_cost_is_that_of_the_composition(one, two, three):
    maps = [map_of(module_of(one, 4, 8), one), *(map_of(module_of(shape, 8, 8), shape) for shape in (two, three))]
    assume(fits(maps, (12, 13)))
    assert algebra.compare(maps, (12, 13)).merged == algebra.cost(algebra.compose_chain(maps), (12, 13))
