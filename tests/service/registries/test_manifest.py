from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from service.cli.parse import BudgetLimit
from service.registries import RegistryError
from service.registries.manifest import ManifestRegistry, read_manifest

WHOLE = """\
version: 1
defaults:
  budget: 0.6x
  data: samples
models:
  - model: nets/a.onnx
  - name: second
    model: timm:resnet18
    device: agent/jetson
    budget: 12ms
    time_limit: 30m
    options: {kernels: [1, 3]}
    sample_shape: [3, 32, 32]
    input_shapes: {ids: [128]}
    accuracy_floor: 91%
"""


def _written(folder: Path, text: str, name: str = "models.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_models_keep_their_order_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    registry = ManifestRegistry(_written(tmp_path, WHOLE))
    first, second = registry.models()
    assert (first.name, first.place) == ("a.onnx", str(tmp_path / "nets/a.onnx"))
    assert (second.name, second.place) == ("second", "timm:resnet18")
    assert registry.defaults.data == str(tmp_path / "samples")


def test_settings_are_read_as_the_command_line_reads_them(tmp_path: Path) -> None:
    _, second = ManifestRegistry(_written(tmp_path, WHOLE)).models()
    assert second.settings.given() == {
        "budget": BudgetLimit(latency_ms=12.0),
        "target": "agent/jetson",
        "time_limit": timedelta(minutes=30),
        "options": (("kernels", [1, 3]),),
        "sample_shape": (3, 32, 32),
        "input_shapes": (("ids", (128,)),),
        "accuracy_floor": 0.91,
    }


def test_a_models_own_settings_come_before_those_of_others(tmp_path: Path) -> None:
    registry = ManifestRegistry(_written(tmp_path, WHOLE))
    first, second = (entry.settings.over(registry.defaults) for entry in registry.models())
    assert (first.budget, second.budget) == (BudgetLimit(fraction=0.6), BudgetLimit(latency_ms=12.0))
    assert first.data == second.data


@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_json_and_toml_say_the_same(tmp_path: Path, suffix: str) -> None:
    content = {"defaults": {"budget": "0.6x"}, "models": [{"model": "a.onnx", "epochs": 1}]}
    toml = '[defaults]\nbudget = "0.6x"\n[[models]]\nmodel = "a.onnx"\nepochs = 1\n'
    path = _written(tmp_path, json.dumps(content) if suffix == ".json" else toml, f"models{suffix}")
    (entry,) = ManifestRegistry(path).models()
    assert entry.settings.given() == {"epochs": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models:\n- model: a.onnx\n  buget: 1x\n", "line 3: models[0].buget: there is no such field; known are"),
        ("models:\n- model: a.onnx\n  budget: 2x\n", "line 3: models[0].budget: a budget of 2x asks for nothing"),
        ("models:\n- model: a.onnx\n  budget: 0.5\n", "models[0].budget: 0.5 is a bare value; write it as text"),
        ("models:\n- budget: 0.5x\n", "line 2: models[0].model: Field required"),
        ("models: []\n", "models: "),
        ("version: 2\nmodels: [{model: a.onnx}]\n", "line 1: version: Input should be 1; got 2"),
        ("models:\n- model: a.onnx\n- model: b/a.onnx\n", "models[1] is called 'a.onnx' like one before it"),
        ("models:\n- model: a.onnx\n  epochs: 3\n  no_finetune: true\n", "no_finetune and epochs 3 exclude each other"),
        ("models: [\n", "is no YAML: "),
        ("- a\n", "Input should be"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RegistryError) as caught:
        read_manifest(_written(tmp_path, text))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "models.yaml"))


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(RegistryError) as caught:
        read_manifest(_written(tmp_path, "models:\n- model: a.onnx\n  budget: fast\n  threads: 0\n"))
    assert [line.split(", ")[1].split(":")[0] for line in str(caught.value).split("; ")[:1]] == ["line 3"]
    assert "line 4: models[0].threads" in str(caught.value)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"must be a \.yaml, \.json or \.toml file; got \.txt"):
        read_manifest(_written(tmp_path, "models: []", "models.txt"))


def test_bare_weights_are_refused_alone(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"x")
    (entry,) = ManifestRegistry(_written(tmp_path, "models: [{model: a.pth}]")).models()
    assert entry.refusal is not None
    assert "never opened here" in entry.refusal
