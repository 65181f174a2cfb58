"""The check of the protos against the last release, in repositories made for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from protos.breaking import find_breaks, last_release

BEFORE = 'syntax = "proto3";\npackage some.v1;\nmessage Some {\n  string name = 1;\n  int32 count = 2;\n}\n'

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None
    or (shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")) is None,
    reason="git or buf is not installed (extra `dev`)",
)


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=some", "-c", "user.email=some@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one proto and no release."""
    proto = tmp_path / "protos/some/v1/some.proto"
    proto.parent.mkdir(parents=True)
    proto.write_text(BEFORE)
    (tmp_path / "protos/buf.yaml").write_text("version: v2\nmodules:\n  - path: .\nbreaking:\n  use:\n    - FILE\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_there_is_no_release_before_the_first(repository: Path) -> None:
    git(repository, "tag", "some-other-tag")

    assert last_release(repository) is None


def test_what_is_no_repository_has_no_release(tmp_path: Path) -> None:
    assert last_release(tmp_path / "nowhere") is None


def test_a_field_more_breaks_nobody(repository: Path) -> None:
    git(repository, "tag", "v1.0.0")
    proto = repository / "protos/some/v1/some.proto"
    proto.write_text(BEFORE.replace("}", "  bool more = 3;\n}"))

    assert last_release(repository) == "v1.0.0"
    assert find_breaks(repository, "v1.0.0") == ""


def test_a_field_that_changes_its_type_is_found(repository: Path) -> None:
    git(repository, "tag", "v1.0.0")
    (repository / "protos/some/v1/some.proto").write_text(BEFORE.replace("int32 count", "string count"))

    assert 'Field "2"' in find_breaks(repository, "v1.0.0")


def test_a_release_that_is_not_there_cannot_be_compared_with(repository: Path) -> None:
    with pytest.raises(RuntimeError, match=r"v9\.9\.9"):
        find_breaks(repository, "v9.9.9")
