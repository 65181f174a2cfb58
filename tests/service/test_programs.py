from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest

from service.programs import version_of


def test_versions_are_those_of_the_distributions() -> None:
    assert version_of("numpy") == version("numpy")
    assert version_of("onnxruntime")


def test_what_is_not_installed_has_none() -> None:
    with pytest.raises(PackageNotFoundError):
        version_of("no-such-distribution")
