from __future__ import annotations

from service.report.alignment import Row, align
from service.report.schema import LayerReport
from tests.service.report.networks import CUT_BLOCKS, resnet_layers


def rows(before: tuple[LayerReport, ...], after: tuple[LayerReport, ...]) -> list[Row]:
    return [row for run in align(before, after) for row in run.rows]


def changed(before: tuple[LayerReport, ...], after: tuple[LayerReport, ...]) -> list[tuple[str | None, str | None]]:
    return [(r.before and r.before.name, r.after and r.after.name) for r in rows(before, after) if r.changed]


def test_equal_networks_are_one_unchanged_run():
    (run,) = align(resnet_layers(), resnet_layers())
    assert not run.changed
    assert [row.before for row in run.rows] == list(resnet_layers()) == [row.after for row in run.rows]


def test_a_fitted_block_stands_beside_the_block_it_replaces():
    assert changed(resnet_layers(), resnet_layers(("layer2.1",))) == [
        ("layer2.1.conv1", "layer2.1.fitted"),
        ("relu_22", None),
        ("layer2.1.conv2", None),
        ("add_24", None),
    ]


def test_a_removed_block_is_cut_whole():
    whole = resnet_layers()
    start = next(i for i, layer in enumerate(whole) if layer.name == "layer2.1.conv1")
    without = whole[:start] + whole[start + 5 :]
    assert changed(whole, without) == [(layer.name, None) for layer in whole[start : start + 5]]


def test_every_layer_appears_once_and_in_order():
    before, after = resnet_layers(), resnet_layers(CUT_BLOCKS)
    lined = rows(before, after)
    assert [row.before for row in lined if row.before] == list(before)
    assert [row.after for row in lined if row.after] == list(after)


def test_numbered_names_are_not_taken_for_layers():
    def numbered(layers: tuple[LayerReport, ...], start: int) -> tuple[LayerReport, ...]:
        return tuple(layer.model_copy(update={"name": f"node_{start + i}"}) for i, layer in enumerate(layers))

    before, after = numbered(resnet_layers(), 0), numbered(resnet_layers(("layer1.1",)), 1000)
    assert 1 <= sum(row.changed for row in rows(before, after)) <= 6


def test_empty_networks_have_no_rows():
    assert align((), ()) == []


def test_all_new():
    assert [row.before for row in rows((), resnet_layers())] == [None] * len(resnet_layers())
