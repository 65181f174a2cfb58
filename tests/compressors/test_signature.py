import torch

from compressors.signature import fingerprint
from tests.compressors.networks import graph_of


def test_a_fingerprint_is_that_of_structure_and_weights():
    graph = graph_of("resnet-b")
    same = graph.copied()
    assert fingerprint(graph) == fingerprint(same)
    with torch.no_grad():
        next(same.module.parameters()).view(-1)[0] += 1e-3
    assert fingerprint(graph) != fingerprint(same)
    assert fingerprint(graph) != fingerprint(graph_of("resnet-a"))
