from compressors.analysis import analyse, merge_space
from service.pipeline.candidates import candidates
from tests.compressors.networks import graph_of


def test_every_stretch_is_listed_once_with_all_that_may_replace_it():
    graph = graph_of("resnet-a")
    found = candidates(analyse(graph), merge_space(graph))
    assert len({(one.entry, one.exit) for one in found}) == len(found)
    (block,) = [one for one in found if one.name == "layers.0"]
    assert block.candidates[:4] == ("regress 1x1", "regress 3x3", "regress 5x5", "remove")
    assert block.candidates[4:] == (
        "merge 3x3 (1 of 2 operators)",
        "merge 5x5 (padding moved to the front)",
    )


def test_single_operators_are_no_candidates():
    graph = graph_of("resnet-a")
    found = candidates(analyse(graph), merge_space(graph))
    assert all(one.sites or one.operators > 1 or "remove" in one.candidates for one in found)
