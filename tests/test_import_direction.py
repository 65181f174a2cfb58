"""The packages depend on each other one way: service -> compressors, deploy, protos."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"service", "compressors", "deploy", "protos"}

# Package -> what it may not import. The agent's exception is listed where it is one.
FORBIDDEN = {
    "compressors": {"service", "deploy", "protos", "grpc", "onnx", "onnxruntime", "openvino", "tensorrt"},
    "deploy": {"service", "compressors", "protos", "grpc"},
    "protos": {"service", "compressors", "deploy"},
}
# The importer of ONNX files reads them with the onnx package; nothing else in the engine knows it.
# The agent calls a server.
ALLOWED = {("compressors/sources/onnx", "onnx"), ("deploy/agent", "grpc"), ("deploy/agent", "protos")}
# The device agent runs these without torch.
TORCH_FREE = (
    "deploy/agent",
    "deploy/artifact.py",
    "deploy/bench",
    "deploy/caller.py",
    "deploy/devices.py",
    "deploy/engines",
    "deploy/evaluate.py",
    "deploy/gpu.py",
    "deploy/jetson.py",
    "deploy/machine.py",
    "deploy/measure",
    "deploy/predict.py",
    "deploy/runtimes",
    "deploy/sandbox",
)


def imported(path: Path) -> Iterator[str]:
    """Yields the top-level package of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import hides its direction"
            yield (node.module or "").split(".")[0]


def sources(folder: str) -> list[Path]:
    place = ROOT / folder
    return [place] if place.is_file() else sorted(place.rglob("*.py"))


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_package_imports_only_what_lies_below_it(package: str) -> None:
    files = sources(package)
    assert files
    forbidden = FORBIDDEN[package]
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imported(path)
        if name in forbidden and not any(path.is_relative_to(ROOT / place) and name == ours for place, ours in ALLOWED)
    }
    assert not wrong


@pytest.mark.parametrize("place", TORCH_FREE)
def test_what_the_device_agent_runs_needs_no_torch(place: str) -> None:
    files = sources(place)
    assert files
    assert not [str(path) for path in files if "torch" in set(imported(path))]


def test_no_catch_all_modules() -> None:
    vague = {"core", "common", "utils", "util", "helpers", "manager", "misc"}
    assert not [str(path) for package in PACKAGES for path in sources(package) if vague & {path.stem, path.parent.name}]
