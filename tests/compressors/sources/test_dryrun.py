import pytest
import torch
from torch import nn

from compressors.errors import ModelError
from compressors.sources.dryrun import dry_run


def test_a_function_that_does_not_fit_is_named_without_its_address():
    program = torch.export.export(nn.ReLU(), (torch.zeros(2, 3),))
    call = next(node for node in program.graph.nodes if node.op == "call_function")
    call.target = torch.sym_ite
    with pytest.raises(ModelError, match=r"the operator 'sym_ite' \('relu'\) does not fit its arguments") as caught:
        dry_run(program, "net.pt2")
    assert "0x" not in str(caught.value)
