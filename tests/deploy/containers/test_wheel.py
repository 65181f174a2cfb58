"""The wheel that images install, made as their stage `wheel` makes it: of what the Dockerfile copies, no more."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.deploy.containers.test_dockerfiles import JETSON, ROOT, SERVER, instructions

PACKAGES = ("compressors", "deploy", "protos", "service")
DATA = (".j2", ".svg", ".js", ".proto", ".pyi", ".py")
ELSEWHERE = ("deploy/containers", "deploy/helm")
"""What is no part of the program."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    context = folder / "src"
    context.mkdir()
    for line in instructions(SERVER, "COPY"):
        for name in [] if line.startswith("--from") else line.split()[:-1]:
            source, target = ROOT / name, context / name
            shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copy(source, target)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # The build's own requirement is installed here; the image takes it from the index.
    command += ["--no-build-isolation", "--wheel-dir", str(folder), "."]
    subprocess.run(command, cwd=context, check=True, timeout=300)
    (found,) = folder.glob("*.whl")
    return found


def sources() -> set[str]:
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True)
    files = {line for line in listed.stdout.splitlines() if line.endswith(DATA)}
    return {name for name in files if not name.startswith(ELSEWHERE)}


def test_the_wheel_holds_every_file_that_programs_read(wheel: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout: nobody says which files belong to it")
    with zipfile.ZipFile(wheel) as archive:
        assert sources() <= set(archive.namelist())


def test_what_was_installed_starts_by_itself(wheel: Path, tmp_path: Path) -> None:
    """Without the checkout: the file of the package says where it came from."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    start = (
        "import service, sys; from service.cli.app import shoal; print(service.__file__); shoal(['serve', '--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", start],
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.startswith(str(tmp_path))
    assert "--state-dir" in done.stdout


def test_the_image_for_jetsons_makes_the_same_wheel() -> None:
    """So that one test serves both."""
    copied = [
        sorted(
            line for line in instructions(path, "COPY") if not line.startswith("--from") and "constraints" not in line
        )
        for path in (SERVER, JETSON)
    ]
    assert copied[0] == copied[1]
