"""A device that is not the processor: networks get there whole, learn the same, and come back."""

import json
import subprocess
import sys

import pytest

CASES = ("images", "without labels", "a program that names its device", "gates", "resumed", "bfloat16")


@pytest.fixture(scope="module")
def compared() -> dict:
    # A process of its own: what knows a second device has it for good.
    command = [sys.executable, "-m", "tests.compressors.tune.trained_elsewhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_training_on_another_device_is_the_same_training(compared: dict, case: str) -> None:
    found = compared[case]
    assert sum(found["seen"].values()) > 1000
    here, there = found["losses"]
    assert there == pytest.approx(here, rel=1e-6)
    assert found["apart"] < 1e-5
    assert found["moved"] > 0.01
    before, _, after = found["divergences"]
    assert after < before or case == "gates"


@pytest.mark.parametrize("case", [*CASES, "float16"])
def test_what_comes_back_is_on_the_processor(compared: dict, case: str) -> None:
    assert compared[case]["devices"] == ["cpu"]
    assert compared[case]["as_before"]


@pytest.mark.parametrize(("case", "products"), [("bfloat16", "torch.bfloat16"), ("float16", "torch.float16")])
def test_products_are_computed_in_the_precision(compared: dict, case: str, products: str) -> None:
    assert {name for name in compared[case]["seen"] if name.startswith("torch.")} == {products}


def test_float16_learns_as_float32_with_its_gradients_scaled(compared: dict) -> None:
    found = compared["float16"]
    assert found["seen"]["aten::_amp_foreach_non_finite_check_and_unscale_"] > 0
    here, there = found["losses"]
    assert there == pytest.approx(here, rel=1e-3)
    before, in_float32, after = found["divergences"]
    assert after == pytest.approx(in_float32, rel=0.05)
    assert after < before
