"""What a Jetson tells of itself: the power mode, and the GPU's clock.

`nvpmodel -q` prints the name of the power mode; the clock stands in the devfreq folder of the GPU. Whether
`jetson_clocks` has fixed the clocks shows there too: smallest and largest frequency are equal then.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_MARK = Path("/etc/nv_tegra_release")
_TREE = Path("/proc/device-tree/compatible")
_DEVFREQ = Path("/sys/class/devfreq")
_SECONDS = 5.0


@dataclass(frozen=True)
class JetsonState:
    """The state of a Jetson at one moment; None where it is not told.

    Attributes:
        power_mode: E.g. `MAXN` or `15W`.
        gpu_mhz: The GPU's clock.
        clocks_fixed: Whether the GPU's clock is fixed, as `jetson_clocks` does.
    """

    power_mode: str | None
    gpu_mhz: float | None
    clocks_fixed: bool | None


def is_jetson() -> bool:
    """Returns whether this machine is a Jetson."""
    return _MARK.exists() or "nvidia,tegra" in _read(_TREE)


def read_jetson_state() -> JetsonState | None:
    """Returns the state now, None elsewhere. Runs a program: call it before and after measuring, never during."""
    if not is_jetson():
        return None
    folder = find_gpu_clock(_DEVFREQ)
    values = {name: _read(folder / name).strip() for name in ("cur_freq", "min_freq", "max_freq")} if folder else {}
    current = values.get("cur_freq", "")
    known = all(value.isdigit() for value in values.values()) and bool(values)
    return JetsonState(
        power_mode=read_power_mode(_ask_nvpmodel()),
        gpu_mhz=int(current) / 1e6 if current.isdigit() else None,
        clocks_fixed=values["min_freq"] == values["max_freq"] if known else None,
    )


def read_power_mode(text: str) -> str | None:
    """Returns the power mode's name in what `nvpmodel -q` prints."""
    found = re.search(r"^NV Power Mode:\s*(\S+)", text, re.MULTILINE)
    return found.group(1) if found else None


def find_gpu_clock(root: Path) -> Path | None:
    """Returns the devfreq folder of the GPU: `gpu-gpc-0`, `17000000.gpu`, `17000000.gv11b` and the like."""
    folders = sorted(root.iterdir()) if root.is_dir() else []
    named = (folder for folder in folders if re.search(r"\.(ga10b|gv11b|gp10b|gpu)$|^gpu-gpc-0$", folder.name))
    return next(named, None)


def _ask_nvpmodel() -> str:
    program = shutil.which("nvpmodel")
    if program is None:
        return ""
    try:
        done = subprocess.run([program, "-q"], capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
