"""Runtimes, tried on a model of one operator; and what there is of NVIDIA's."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from service.doctor.finding import Finding, Level, needing
from service.doctor.packages import installed_version

if TYPE_CHECKING:
    from deploy.runtimes import Runtime

_QUERY: Final = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
_SECONDS: Final = 20.0
_DEFAULT: Final = "onnxruntime"


def look_at_runtimes() -> Iterator[Finding]:
    """Yields each runtime that Shoal knows: whether it loads and runs a model."""
    with needing("runtimes", "runtimes", Level.WARN, "server"):
        import numpy as np

        from deploy.runtimes import RUNTIMES
        from service.doctor.tiny import write_tiny
    feed = np.arange(6, dtype=np.float32).reshape(3, 2)
    with tempfile.TemporaryDirectory(prefix="shoal-doctor-") as folder:
        with needing("runtimes", "onnx", Level.WARN, "server"):
            path = write_tiny(Path(folder) / "tiny.onnx")
        for (_, kind), runtime in RUNTIMES.items():
            if kind == "cpu":
                yield _tried(runtime, path, feed)


def _tried(runtime: Runtime, path: Path, feed: Any) -> Finding:
    from deploy.errors import RuntimeMissingError
    from deploy.runtimes import SessionSettings

    # Who has torch is to run a server, and that measures with this one unless told otherwise.
    name, wanted = runtime.name, runtime.name == _DEFAULT and installed_version("torch") is not None
    try:
        version = runtime.version()
        (output,) = runtime.load(path, SessionSettings()).run([feed])
    except RuntimeMissingError:
        level = Level.FAIL if wanted else Level.WARN
        meaning = "jobs fail unless they name another" if wanted else f"'{name}' cannot be a target's runtime here"
        return Finding("runtimes", name, level, "not installed", meaning, f"install shoal[{runtime.extra}]")
    except Exception as exc:  # noqa: BLE001 (a broken library may raise anything)
        broken = f"{type(exc).__name__}: {' '.join(str(exc).split())}"[:300]
        return Finding("runtimes", name, Level.FAIL, broken, "it is installed and does not work", "install it anew")
    if not (output == feed + 1).all():
        wrong = f"{version} computes x + 1 wrongly"
        return Finding("runtimes", name, Level.FAIL, wrong, "nothing that it says can be trusted", "install it anew")
    return Finding("runtimes", name, Level.OK, f"{version}, runs a model")


def look_at_gpu() -> Iterator[Finding]:
    """Yields NVIDIA's driver, what torch sees of it, and TensorRT."""
    yield _driver()
    yield _torch()
    yield _tensorrt()


def _driver() -> Finding:
    program = shutil.which("nvidia-smi")
    if program is None:
        return Finding("gpu", "driver", Level.OK, "no NVIDIA driver", "everything runs on the processor")
    try:
        asked = subprocess.run(  # noqa: S603 (NVIDIA's own program, found on the path)
            [program, *_QUERY], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return Finding("gpu", "driver", Level.WARN, f"nvidia-smi does not work: {exc}", advice="look at the driver")
    said = "; ".join(asked.stdout.strip().splitlines())
    if asked.returncode != 0:
        last = (asked.stderr or asked.stdout).strip().splitlines()[-1:] or ["no message"]
        return Finding("gpu", "driver", Level.WARN, f"nvidia-smi fails: {last[0]}", advice="look at the driver")
    return Finding("gpu", "driver", Level.OK, said)


def _torch() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("gpu", "torch", Level.OK, "torch is not installed", "nothing is trained here")
    if not torch.cuda.is_available():
        return Finding(
            "gpu", "torch", Level.OK, f"torch {torch.__version__} sees no GPU", "training is on the processor"
        )
    names = ", ".join(torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count()))
    return Finding("gpu", "torch", Level.OK, f"torch {torch.__version__}, CUDA {torch.version.cuda}: {names}")


def _tensorrt() -> Finding:
    try:
        import tensorrt
    except ImportError:
        return Finding("gpu", "tensorrt", Level.OK, "not installed", "no engines can be built here")
    except Exception as exc:  # noqa: BLE001 (its libraries may fail to load in any way)
        return Finding("gpu", "tensorrt", Level.WARN, f"does not load: {exc}"[:300], advice="match it to the driver")
    return Finding("gpu", "tensorrt", Level.OK, str(tensorrt.__version__))
