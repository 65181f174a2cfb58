from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from compressors import algebra
from tests.compressors.algebra.maps import (
    TOLERANCE,
    error,
    fits,
    form,
    forms,
    line,
    map_of,
    module_of,
    normal,
    pair_of,
    quick,
)  # fmt: skip


def same_size(shape, spare, stride):
    """The form with the padding after each axis that makes outputs of all forms of a spare equal."""
    extents = [d * (k - 1) for d, k in zip(shape.dilation, shape.kernel, strict=True)]
    after = tuple(e + spare - p for e, p in zip(extents, shape.before, strict=True))
    return replace(shape, after=after, stride=(stride,) * len(extents))


@quick
@given(axes=st.integers(1, 2), data=st.data(), stride=st.integers(1, 2), spare=st.integers(-1, 1))
def test_sum_of_branches_is_one_map(axes, data, stride, spare):
    shapes = [same_size(data.draw(forms(axes)), spare, stride) for _ in range(3)]
    modules = [module_of(shape, 4, 8, seed) for seed, shape in enumerate(shapes)]
    maps = [map_of(m, s) for m, s in zip(modules, shapes, strict=True)]
    size = (9, 8)[:axes]
    assume(all(fits([one], size) for one in maps))
    x = normal(2, 4, *size)
    assert error(sum(module(x) for module in modules), algebra.add_all(maps)(x)) < TOLERANCE


@quick
@given(axes=st.integers(1, 2), data=st.data(), stride=st.integers(1, 2), spare=st.integers(-1, 1))
def test_concatenated_outputs_of_branches_are_one_map(axes, data, stride, spare):
    shapes = [same_size(data.draw(forms(axes)), spare, stride) for _ in range(3)]
    modules = [module_of(shape, 4, width, width) for width, shape in zip((4, 8, 12), shapes, strict=True)]
    maps = [map_of(m, s) for m, s in zip(modules, shapes, strict=True)]
    size = (9, 8)[:axes]
    assume(all(fits([one], size) for one in maps))
    x = normal(2, 4, *size)
    assert error(torch.cat([module(x) for module in modules], 1), algebra.stack_outputs(maps)(x)) < TOLERANCE


@quick
@given(axes=st.integers(1, 2), data=st.data(), stride=st.integers(1, 2), spare=st.integers(-1, 1))
def test_concatenated_inputs_of_a_sum_are_one_map(axes, data, stride, spare):
    shapes = [same_size(data.draw(forms(axes)), spare, stride) for _ in range(2)]
    modules = [module_of(shape, width, 4, width) for width, shape in zip((4, 8), shapes, strict=True)]
    maps = [map_of(m, s) for m, s in zip(modules, shapes, strict=True)]
    size = (9, 8)[:axes]
    assume(all(fits([one], size) for one in maps))
    left, right = normal(2, 4, *size, seed=1), normal(2, 8, *size, seed=2)
    whole = algebra.join_inputs(maps)
    assert error(modules[0](left) + modules[1](right), whole(torch.cat([left, right], 1))) < TOLERANCE


@pytest.mark.parametrize("groups", [1, 2])
def test_a_map_of_concatenated_inputs_is_a_sum_over_the_parts(groups):
    module, one = pair_of(form(2, pad=1, groups=groups), 6, 4)
    parts = normal(1, 1, 5, 5, seed=1), normal(1, 3, 5, 5, seed=2), normal(1, 2, 5, 5, seed=3)
    split = algebra.split_inputs(one, [1, 3, 2])
    total = sum(part(x) for part, x in zip(split, parts, strict=True))
    assert error(module(torch.cat(parts, 1)), total) < TOLERANCE


def test_parts_that_are_not_the_inputs_are_refused():
    with pytest.raises(ValueError, match="not 4 inputs"):
        algebra.split_inputs(algebra.identity(4, 2), [1, 2])


def test_maps_side_by_side_are_grouped_where_they_can_be():
    shapes = form(2, pad=1), form(2, kernel=1)
    modules = module_of(shapes[0], 3, 2, 1), module_of(shapes[1], 3, 2, 2)
    whole = algebra.side_by_side([map_of(m, s) for m, s in zip(modules, shapes, strict=True)])
    left, right = normal(1, 3, 5, 5, seed=1), normal(1, 3, 5, 5, seed=2)
    wanted = torch.cat([modules[0](left), modules[1](right)], 1)
    assert whole.groups == 2
    assert error(wanted, whole(torch.cat([left, right], 1))) < TOLERANCE


@quick
@given(shape=forms(2), data=st.data())
def test_residual_of_any_map_that_keeps_sizes(shape, data):
    shape = same_size(shape, 0, 1)
    module, one = pair_of(shape, 4, 4)
    assume(fits([one], (8, 7)))
    x = normal(2, 4, 8, 7)
    assert error(x + module(x), algebra.residual(one)(x)) < TOLERANCE


def test_post_norm_residual_of_a_linear():
    linear = nn.Linear(6, 6).double()
    x = normal(2, 3, 6)
    assert error(x + linear(x), algebra.residual(algebra.of_module(linear))(x)) < TOLERANCE


def test_residual_of_a_depthwise_convolution_stays_depthwise():
    _, one = pair_of(form(2, pad=1, groups=4), 4, 4)
    assert algebra.residual(one).groups == 4


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (form(2, pad=1), form(2, kernel=1)),
        (form(2, kernel=7, stride=2, pad=3), form(2, kernel=1, stride=2)),
        (form(2, stride=2, pad=1), form(2, kernel=1, stride=2)),
        (form(2, kernel=5, pad=2, groups=2), form(2, kernel=(3, 1), pad=(1, 0), groups=4)),
    ],
    ids=["stride 1", "7x7 stride 2", "3x3 stride 2", "rectangular"],
)
def test_projections_are_taps_of_the_larger_kernel(one, two):
    modules = module_of(one, 4, 8, 1), module_of(two, 4, 8, 2)
    whole = algebra.add(*(map_of(m, s) for m, s in zip(modules, (one, two), strict=True)))
    x = normal(2, 4, 10, 11)
    assert whole.kernel == one.kernel
    assert error(modules[0](x) + modules[1](x), whole(x)) < TOLERANCE


def norm(seed):
    generator = torch.Generator().manual_seed(seed)
    module = nn.BatchNorm2d(4).double().eval().requires_grad_(False)
    for values in (module.running_mean, module.weight, module.bias):
        values.normal_(generator=generator)
    module.running_var.uniform_(0.5, 2, generator=generator)
    return module


def test_block_of_repvgg_is_one_convolution():
    shapes = form(2, pad=1, bias=False), form(2, kernel=1, bias=False)
    modules = [module_of(shape, 4, 4, seed) for seed, shape in enumerate(shapes)]
    norms = [norm(seed) for seed in range(3)]
    maps = [map_of(m, s) for m, s in zip(modules, shapes, strict=True)] + [algebra.identity(4, 2)]
    x = normal(2, 4, 7, 7)
    wanted = norms[0](modules[0](x)) + norms[1](modules[1](x)) + norms[2](x)
    folded = [algebra.scale_outputs(one, *algebra.norm_scale(bn)) for one, bn in zip(maps, norms, strict=True)]
    assert error(wanted, algebra.add_all(folded)(x)) < TOLERANCE


def test_maps_that_agree_at_one_size_only_are_added_for_it():
    """A 2x2 with stride 2 and a 1x1 with stride 2 give equal sizes for even inputs."""
    shapes = form(2, kernel=2, stride=2), form(2, kernel=1, stride=2)
    modules = [module_of(shape, 4, 4, seed) for seed, shape in enumerate(shapes)]
    maps = [map_of(m, s) for m, s in zip(modules, shapes, strict=True)]
    x = normal(1, 4, 8, 8)
    with pytest.raises(ValueError, match="sizes"):
        algebra.add(*maps)
    assert error(modules[0](x) + modules[1](x), algebra.add(*maps, (8, 8))(x)) < TOLERANCE
    with pytest.raises(ValueError, match="sizes"):
        algebra.add(*maps, (9, 9))


@quick
@given(shape=forms(2), sizes=st.tuples(st.integers(4, 9), st.integers(4, 9)))
def test_trimming_keeps_the_function_at_its_size(shape, sizes):
    module, one = pair_of(shape, 4, 4)
    assume(fits([one], sizes))
    x = normal(1, 4, *sizes)
    assert error(module(x), algebra.trim_after(one, sizes)(x)) < TOLERANCE


def test_circular_branches_are_added():
    shapes = form(2, pad=1, circular=True), form(2, kernel=1)
    modules = [module_of(shape, 4, 4, seed) for seed, shape in enumerate(shapes)]
    whole = algebra.add(*(map_of(m, s) for m, s in zip(modules, shapes, strict=True)))
    x = normal(1, 4, 6, 6)
    assert error(modules[0](x) + modules[1](x), whole(x)) < TOLERANCE


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_channels_are_selected(groups):
    module, one = pair_of(form(2, pad=1, groups=groups), 4, 8)
    x = normal(1, 4, 6, 6)
    assert error(module(x)[:, [5, 0, 1]], algebra.select_outputs(one, [5, 0, 1])(x)) < TOLERANCE
    kept = torch.zeros_like(x)
    kept[:, [3, 1]] = x[:, [3, 1]]
    assert error(module(kept), algebra.select_inputs(one, [3, 1])(x[:, [3, 1]])) < TOLERANCE


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: algebra.add(line([1, 2, 3], stride=2, pad=1), line([1])), "stride"),
        (lambda: algebra.add(line([1, 2, 3]), line([1])), "sizes"),
        (lambda: algebra.add(algebra.identity(2, 1), algebra.identity(3, 1)), "channels"),
        (lambda: algebra.add(line([1] * 3, pad=1), replace(line([1] * 3, pad=1), circular=True)), "no common padding"),
        (lambda: algebra.stack_outputs([algebra.identity(2, 1), algebra.identity(3, 1)]), "input channels"),
        (lambda: algebra.join_inputs([algebra.identity(2, 1), algebra.identity(3, 1)]), "output channels"),
        (lambda: algebra.add_all([]), "at least one"),
        (lambda: algebra.stack_outputs([]), "input channels"),
        (lambda: algebra.join_inputs([]), "output channels"),
        (lambda: algebra.side_by_side([]), "at least one"),
    ],
)
def test_maps_that_do_not_fit_are_refused(build, reason):
    with pytest.raises(ValueError, match=reason):
        build()
