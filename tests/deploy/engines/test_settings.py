from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.engines.settings import Batches, choose_batches, choose_shapes, choose_workspace
from deploy.errors import EngineBuildError, ModelFileError

GIB = 1 << 30


@pytest.mark.parametrize(
    ("best", "batches"),
    [(None, Batches(1, 1, 8)), (1, Batches(1, 1, 8)), (4, Batches(1, 4, 8)), (64, Batches(1, 64, 64))],
)
def test_an_engine_takes_one_sample_and_as_many_as_files_are_checked_with(best: int | None, batches: Batches) -> None:
    assert choose_batches(best) == batches


@pytest.mark.parametrize("sizes", [(0, 1, 1), (2, 1, 4), (1, 5, 4)])
def test_batches_out_of_order_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(EngineBuildError, match="smallest <= best <= largest"):
        Batches(*sizes)


def test_an_open_batch_gets_the_profile_and_nothing_else_changes() -> None:
    shapes = choose_shapes("image", (-1, 3, 224, 224), Batches(1, 4, 8))
    assert shapes == ((1, 3, 224, 224), (4, 3, 224, 224), (8, 3, 224, 224))


def test_a_fixed_input_needs_no_profile() -> None:
    assert choose_shapes("image", (2, 3, 8, 8), Batches(1, 4, 8)) is None


@pytest.mark.parametrize("shape", [(-1, 3, -1, -1), (1, -1)])
def test_other_open_sizes_are_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelFileError, match="input 'ids' has open sizes besides the batch"):
        choose_shapes("ids", shape, Batches(1, 1, 8))


def test_a_gpu_with_its_own_memory_lends_half_of_what_is_free() -> None:
    assert choose_workspace(20 * GIB, shares_memory=False) == 10 * GIB


@pytest.mark.parametrize(("free", "workspace"), [(2 * GIB, GIB // 2), (20 * GIB, GIB)])
def test_where_memory_is_shared_less_is_lent(free: int, workspace: int) -> None:
    assert choose_workspace(free, shares_memory=True) == workspace


@given(st.integers(0, 2**40), st.booleans())
def test_the_workspace_is_whole_mebibytes_and_never_nothing(free: int, shared: bool) -> None:
    chosen = choose_workspace(free, shared)
    assert chosen >= 64 << 20
    assert chosen % (1 << 20) == 0
    assert chosen <= max(64 << 20, free)
