"""Finds the network in the files of an MLflow model, without running or unpickling any of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from service.cli import modelfile
from service.registries.base import RefusedModelError

_DESCRIPTION: Final = "MLmodel"
_ADVICE: Final = (
    'log it as ONNX (mlflow.onnx.log_model), or with mlflow.pytorch.log_model(..., serialization_format="pt2")'
)


def find_model(folder: Path) -> Path:
    """Returns the file or folder of the network that an MLflow model holds.

    Args:
        folder: The downloaded files, or one file.

    Raises:
        RefusedModelError: There is none that can be opened safely; the message says what to log instead.
    """
    if folder.is_file():
        return _checked(folder)
    flavors = _flavors(folder)
    named = [path for path in _named(folder, flavors) if path.exists()]
    found = named or _networks(folder)
    if len(found) == 1:
        return _checked(found[0])
    if found:
        names = ", ".join(path.relative_to(folder).as_posix() for path in found[:4])
        raise RefusedModelError(f"it holds {len(found)} networks ({names}); log a version with one")
    raise RefusedModelError(_nothing(folder, flavors))


def _flavors(folder: Path) -> dict[str, Any]:
    import yaml

    try:
        described = yaml.safe_load((folder / _DESCRIPTION).read_text("utf-8"))
        flavors = described["flavors"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as exc:
        raise RefusedModelError(f"its {_DESCRIPTION} cannot be read: {' '.join(str(exc).split())}") from exc
    return flavors if isinstance(flavors, dict) else {}


def _named(folder: Path, flavors: dict[str, Any]) -> Iterator[Path]:
    """Yields where the flavours that we know say that their network is."""
    onnx = flavors.get("onnx")
    if isinstance(onnx, dict) and isinstance(onnx.get("data"), str):
        path = _inside(folder, onnx["data"])
        # A folder around the file where its weights are beside it.
        yield path
    torch = flavors.get("pytorch")
    if isinstance(torch, dict) and isinstance(torch.get("model_data"), str):
        yield _inside(folder, torch["model_data"]) / "model.pt2"
    transformers = flavors.get("transformers")
    if isinstance(transformers, dict) and isinstance(transformers.get("model_binary"), str):
        yield _inside(folder, transformers["model_binary"])


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RefusedModelError(f"its {_DESCRIPTION} names a file outside of the model: {name}")
    return path


def _networks(folder: Path) -> list[Path]:
    """Returns what looks like a network among files that no flavour of ours names."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    exported = [path for path in files if path.suffix in {".pt2", ".onnx"}]
    saved = [path.parent for path in files if path.name in modelfile.CONFIGS]
    return exported or [path for path in saved if any(path.glob("*.safetensors"))]


def _checked(path: Path) -> Path:
    """Returns a network that the service may be given."""
    if path.is_dir() and not any(path.rglob("*.safetensors")) and not any(path.glob("*.onnx")):
        raise RefusedModelError(
            f"its weights are pickled, which is never opened; save them as safetensors, or {_ADVICE}"
        )
    return path


def _nothing(folder: Path, flavors: dict[str, Any]) -> str:
    files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    pickles = [name for name in files if name.endswith((".pth", ".pkl", ".pickle", ".pt", ".joblib"))]
    kinds = ", ".join(sorted(name for name in flavors if name != "python_function")) or "no"
    if pickles:
        return f"its network is pickled ({pickles[0]}; flavour {kinds}), which is never opened here; {_ADVICE}"
    return f"there is no network in it that can be read (flavour {kinds}; {len(files)} files); {_ADVICE}"
