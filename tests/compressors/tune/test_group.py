"""A group of processes trains one network: equal gradients, one decision. On the processor here, as on several GPUs."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compressors.tune import TuneConfig, tune
from tests.compressors.networks import graph_of
from tests.compressors.samples import Recorder, random_samples
from tests.compressors.tune.test_run import damaged

MEMBER = """
import sys
import torch
torch.set_num_threads(1)
from tests.compressors.tune.test_group import train
from accelerate.state import PartialState
tuned, calls = train(sys.argv[1])
assert PartialState().num_processes == 2
rank = PartialState().process_index
torch.save((tuned.graph.module.state_dict(), tuned.learning_rate, len(calls)), f"{sys.argv[2]}/{rank}.pt")
PartialState().destroy_process_group()
"""


def train(name: str) -> tuple:
    graph = graph_of(name)
    data = random_samples(graph, 96, 1)
    settings = TuneConfig(
        epochs=2.0,
        batch=32,
        learning_rates=(0.02, 0.002),
        trial_steps=2,
        features=0.0,
        augment=False,
        optimizer="sgd",
        evaluations=2,
        device="cpu",
        precision="float32",
    )
    seen = Recorder()
    return tune(graph, damaged(graph), data, data, settings, seen), seen.calls


def run_group(name: str, folder: Path) -> list[tuple]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    members = [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER, name, str(folder)],
            env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for member in members:
        _, told = member.communicate(timeout=120)
        assert member.returncode == 0, told.decode()[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "resnet-a"])
def test_two_processes_end_with_one_network(tmp_path: Path, name: str) -> None:
    one, two = run_group(name, tmp_path)
    assert all(torch.equal(value, two[0][key]) for key, value in one[0].items())
    assert one[1] == two[1]
    assert one[2] > 0
    assert two[2] == 0
    if name == "vit":
        # Without batch norms the mean of the gradients of two halves is the gradient of the whole.
        alone = train(name)[0].graph.module.state_dict()
        for key, value in one[0].items():
            torch.testing.assert_close(value, alone[key], rtol=1e-4, atol=1e-5)
