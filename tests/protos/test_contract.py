from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import protos
from protos.generate import generate

ROOT = Path(protos.__file__).parent


def test_the_committed_python_is_what_the_protos_say(tmp_path: Path) -> None:
    written = generate(tmp_path)

    assert {path.name for path in written} == {path.name for path in (ROOT / "shoal/v1").glob("*_pb2*.py*")}
    for path in written:
        committed = (ROOT / path.relative_to(tmp_path)).read_text()
        assert path.read_text() == committed, f"{path.name} is stale: run `python -m protos.generate`"


def test_buf_finds_nothing_to_complain_about() -> None:
    buf = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    if buf is None:
        pytest.skip("buf is not installed (extra `dev`)")
    checked = subprocess.run([buf, "lint"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.parametrize("path", sorted((ROOT / "shoal/v1").glob("*.proto")), ids=lambda path: path.name)
def test_everything_public_is_documented(path: Path) -> None:
    declared = re.compile(r"^\s*(message|enum|service|rpc|oneof|(repeated|optional|map<.*>)?\s*[\w.]+ \w+ = \d+)")
    lines = path.read_text().splitlines()
    bare = [
        line.strip() for above, line in pairwise(lines) if declared.match(line) and not above.strip().startswith("//")
    ]

    assert not bare
