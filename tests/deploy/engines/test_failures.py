"""The messages are TensorRT's own words, as users have reported them."""

from __future__ import annotations

import pytest

from deploy.engines.failures import classify_death, classify_failure
from deploy.errors import DeviceMemoryError, EngineBuildError

GIB = 1 << 30
NO_KERNEL = "Error Code 10: Internal Error (Could not find any implementation for node /layer1.0/conv1/Conv.)"
SKIPPED = "Skipping tactic 3 due to insufficient memory on requested size of 4294967296 detected for tactic 0x4."

TIGHT = (
    "Some tactics do not have sufficient workspace memory to run. Increasing workspace size may increase performance"
)


@pytest.mark.parametrize(
    ("messages", "shares_memory"),
    [
        ([SKIPPED, NO_KERNEL], False),
        ([NO_KERNEL], True),
        (
            [TIGHT, NO_KERNEL],
            False,
        ),
    ],
)
def test_a_missing_implementation_for_want_of_memory_is_told_as_that(messages: list[str], shares_memory: bool) -> None:
    error = classify_failure(messages, shares_memory, GIB)
    assert isinstance(error, DeviceMemoryError)
    assert "no kernel for '/layer1.0/conv1/Conv'" in str(error)
    assert "1024 MiB of workspace" in str(error)


@pytest.mark.parametrize(
    "message",
    [
        "[virtualMemoryBuffer.cpp::resizePhysical::160] Error Code 2: OutOfMemory (no further information)",
        "Requested amount of GPU memory (4294967296 bytes) could not be allocated.",
        "GPU memory allocation error during getBestTactic: conv1",
        "Cuda Error in allocate: 2 (out of memory)",
    ],
)
def test_plain_lack_of_memory_is_told(message: str) -> None:
    assert isinstance(classify_failure([message], False, GIB), DeviceMemoryError)


def test_a_missing_implementation_with_memory_to_spare_is_no_lack_of_memory() -> None:
    error = classify_failure([NO_KERNEL], False, GIB)
    assert isinstance(error, EngineBuildError)
    assert "logged no lack of memory" in str(error)


def test_a_tight_workspace_alone_is_no_reason() -> None:
    error = classify_failure([TIGHT, "Error Code 4: Internal Error (plugin)"], False, GIB)
    assert isinstance(error, EngineBuildError)
    assert "Error Code 4" in str(error)


@pytest.mark.parametrize(
    ("message", "node"),
    [
        ("Could not find any implementation for node 2-layer MLP: (Unnamed Layer* 8) -> (Unnamed Layer* 10).)", "MLP"),
        ("could not find any implementation for node (Unnamed Layer* 1) [TopK], try increasing the workspace", "TopK]"),
        ("Could not find any implementation for node {ForeignNode[a...b]} due to insufficient workspace.", "a...b]}"),
        ("Could not find any implementation for node layer1.0.conv.", "layer1.0.conv"),
    ],
)
def test_the_node_is_named_in_every_wording(message: str, node: str) -> None:
    said = str(classify_failure([message, SKIPPED], False, GIB))
    assert node in said.partition("got what")[0]
    assert "try increasing" not in said


def test_a_silent_failure_says_so() -> None:
    assert "logged no reason" in str(classify_failure([], False, GIB))


def test_a_killed_builder_ran_out_of_memory() -> None:
    assert isinstance(classify_death(-9, ""), DeviceMemoryError)


@pytest.mark.parametrize(
    ("status", "said", "told"),
    [(-11, "", "signal SIGSEGV"), (1, "a\nlast words\n", "last words"), (3, "", "said nothing")],
)
def test_other_ends_of_a_builder_are_told(status: int, said: str, told: str) -> None:
    error = classify_death(status, said)
    assert isinstance(error, EngineBuildError)
    assert told in str(error)
