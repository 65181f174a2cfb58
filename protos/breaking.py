"""Checks that the protos break nobody who uses those of the last release. Run as `python -m protos.breaking`.

The last release is the nearest tag `v*` that is an ancestor. Where there is none yet, there is nothing to break.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def last_release(repository: Path) -> str | None:
    """Returns the tag of the last release; None where there is none, or no git to ask."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(repository), "describe", "--tags", "--abbrev=0", "--match", "v*"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own arguments)
    return asked.stdout.strip() if asked.returncode == 0 else None


def find_breaks(repository: Path, tag: str) -> str:
    """Returns what buf says against the protos in `repository`, a line each; empty where they break nothing.

    Raises:
        FileNotFoundError: buf is not installed.
        RuntimeError: buf could not compare them.
    """
    buf = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    if buf is None:
        raise FileNotFoundError("buf is not installed; install shoal[dev]")
    against = f"{repository}/.git#tag={tag},subdir=protos"
    checked = subprocess.run(  # noqa: S603 (our own arguments)
        [buf, "breaking", "--against", against], cwd=repository / "protos", capture_output=True, text=True, check=False
    )
    # 100 is what buf says when it found something.
    if checked.returncode not in (0, 100):
        raise RuntimeError(f"buf cannot compare the protos with those of {tag}: {checked.stderr.strip()}")
    return checked.stdout.strip()


def main() -> int:
    """Checks this repository; returns the exit status."""
    tag = last_release(ROOT)
    if tag is None:
        sys.stdout.write("no release yet, so the protos can break nobody\n")
        return 0
    breaks = find_breaks(ROOT, tag)
    sys.stdout.write(f"{breaks or f'the protos break nobody who uses {tag}'}\n")
    return 1 if breaks else 0


if __name__ == "__main__":
    sys.exit(main())
