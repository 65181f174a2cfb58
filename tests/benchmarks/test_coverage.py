"""Small architectures the whole way: lifted, analysed, merged, exported, and each step compared with the one before."""

from functools import partial

import pytest

from benchmarks.coverage.cases import Case, cases
from benchmarks.coverage.detectors import SsdLike, YoloLike
from benchmarks.coverage.machine import describe
from benchmarks.coverage.networks import Audio, CifarResNet, UNet
from benchmarks.coverage.table import report
from benchmarks.coverage.worker import run

SMALL = [
    Case("own:cifar-resnet", (3, 16, 16), partial(CifarResNet, 8, "B")),
    Case("own:unet", (3, 16, 16), partial(UNet, 4, 2)),
    Case("own:audio", (1, 800), partial(Audio, 8, 2)),
    pytest.param(Case("own:yolo-like", (3, 64, 64), partial(YoloLike, 4)), marks=pytest.mark.slow, id="own:yolo-like"),
    Case("own:ssd-like", (3, 64, 64), SsdLike),
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_architecture_goes_the_whole_way(case):
    result = run(case)
    assert "failure" not in result, result["failure"]["trace"]
    errors = result["errors"]
    assert errors["lift"] <= 1e-6
    assert errors["merge64"] <= 1e-10
    assert errors["merge32"] <= 1e-4
    assert errors["file"] <= 1e-4
    assert result["segments"]
    assert result["layers"][1] <= result["layers"][0]


def test_a_source_that_is_not_there_is_reported_not_raised():
    result = run(Case("nowhere:net"))
    assert result["failure"]["phase"] == "trace"
    assert "unknown model name" in result["failure"]["message"]


def test_the_page_lists_what_failed():
    page = report([{**run(Case("nowhere:net")), **describe()}])
    assert "0 of 1 architectures go the whole way" in page
    assert "nowhere:net: in trace, ModelError" in page


def test_names_are_unique():
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names)
