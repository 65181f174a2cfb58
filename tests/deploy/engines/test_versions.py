from __future__ import annotations

import enum

import pytest

from deploy.engines.versions import check_supported, creation_flags, decode_version, find_library, parse_version
from deploy.errors import RuntimeMissingError


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("10.3.0", (10, 3, 0)), ("11.4.0.106", (11, 4, 0, 106)), ("10.9.0.post1", (10, 9, 0)), ("unknown", ())],
)
def test_leading_numbers_are_read(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_version(text) == numbers


def test_numbers_are_compared_as_numbers() -> None:
    assert parse_version("10.13.0") > parse_version("10.3.0")


@pytest.mark.parametrize("version", ["10.3.0", "10.13.2.6", "11.4.0.106"])
def test_versions_that_shoal_drives_pass(version: str) -> None:
    check_supported(version)


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "12.0.0", "unknown"])
def test_other_versions_are_refused_with_the_range(version: str) -> None:
    with pytest.raises(
        RuntimeMissingError, match=rf"TensorRT {version} is installed here, and Shoal drives 10.3 to 11"
    ):
        check_supported(version)


def test_networks_are_strongly_typed_where_that_has_to_be_said() -> None:
    ten = enum.IntEnum("ten", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1})
    eleven = enum.IntEnum("eleven", {"EXPLICIT_BATCH": 0})
    assert creation_flags(ten) == 0b10
    assert creation_flags(eleven) == 0


@pytest.mark.parametrize(("number", "version"), [(100300, "10.3.0"), (101303, "10.13.3"), (110400, "11.4.0")])
def test_the_library_s_number_is_its_version(number: int, version: str) -> None:
    assert decode_version(number) == version


def test_the_tensorrt_that_a_library_was_linked_against_is_found_by_name() -> None:
    assert find_library(b"\0libcudart.so.12\0libnvinfer_plugin.so.10\0libnvinfer.so.10\0") == "libnvinfer.so.10"
    assert find_library(b"\0libcudart.so.12\0libnvinfer.so\0") is None
