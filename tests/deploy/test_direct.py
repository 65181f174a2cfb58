"""What is written directly must become, in the runtime, exactly what the exporter's file becomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import fx, nn

from deploy.direct import build_direct
from deploy.export import ExportSettings, export_onnx
from deploy.operators import Piece, _SideBySide, write_pieces
from tests.deploy.networks import Spec

BATCH = 2
ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU6(),
    nn.Hardtanh(-2.0, 3.0),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.SiLU(),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.LeakyReLU(0.2),
    nn.ELU(0.7),
]
IMAGE = (16, 9, 9)
AFFINE = [
    (nn.Conv2d(16, 32, 3, stride=2, padding=1), IMAGE),
    (nn.Conv2d(16, 16, (1, 3), padding=(0, 2), dilation=2, bias=False), IMAGE),
    (nn.Conv2d(16, 16, 5, padding=2, groups=16), IMAGE),
    (nn.Conv1d(16, 8, 3, padding=1), (16, 10)),
    (nn.Linear(16, 10), (16,)),
    (nn.Linear(16, 10, bias=False), (16,)),
    (nn.Linear(16, 10), (4, 16)),
    (nn.Linear(16, 10, bias=False), (4, 16)),
]
CASES = [(module, shape) for module, shape in AFFINE] + [
    (nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), activation), IMAGE) for activation in ACTIVATIONS
]
CASES += [(nn.Sequential(nn.Linear(16, 10), activation), (16,)) for activation in (nn.ReLU(), nn.GELU())]


def optimised(path: Path) -> list[tuple[object, ...]]:
    """The operators that ONNX Runtime makes of a file, with their attributes and the shapes of their weights."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimised"))
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    weights = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    return [
        (
            node.op_type,
            sorted((attribute.name, str(helper.get_attribute_value(attribute))) for attribute in told(node)),
            sorted(weights[name] for name in node.input if name in weights),
        )
        for node in graph.node
    ]


def told(node: onnx.NodeProto) -> list[onnx.AttributeProto]:
    """The attributes that say something: the exporter writes defaults out, and the direct way leaves them out."""
    defaults = {"transA": 0, "allowzero": 0, "alpha": 1.0, "beta": 1.0, "auto_pad": b"NOTSET"}
    return [
        attribute
        for attribute in node.attribute
        if attribute.name not in defaults or helper.get_attribute_value(attribute) != defaults[attribute.name]
    ]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All cases as the exporter writes them."""
    folder = tmp_path_factory.mktemp("exported")
    pieces = [
        Piece(module.eval(), (Spec("x", shape),), folder / f"{index}.onnx")
        for index, (module, shape) in enumerate(CASES)
    ]
    specs = [Spec(f"x{index}", shape) for index, (_, shape) in enumerate(CASES)]
    names = [f"y{index}" for index in range(len(CASES))]
    settings = ExportSettings(dynamic_batch=False, traced_batch=BATCH)
    export_onnx(_SideBySide(pieces), specs, names, folder / "all.onnx", settings)
    extractor = onnx.utils.Extractor(onnx.load(folder / "all.onnx"))
    for index, piece in enumerate(pieces):
        onnx.save(extractor.extract_model([f"x{index}"], [f"y{index}"]), piece.path)
    return [piece.path for piece in pieces]


@pytest.mark.parametrize("index", range(len(CASES)), ids=[str(module) for module, _ in CASES])
def test_the_runtime_makes_the_same_of_both(index: int, exported: list[Path], tmp_path: Path) -> None:
    module, shape = CASES[index]
    model = build_direct(module, [Spec("x", shape)], BATCH)
    assert model is not None
    path = tmp_path / "direct.onnx"
    onnx.save(model, path)
    onnx.checker.check_model(model, full_check=True)
    assert optimised(path) == optimised(exported[index])


@pytest.mark.parametrize("index", range(len(CASES)), ids=[str(module) for module, _ in CASES])
def test_it_computes_what_torch_computes(index: int) -> None:
    module, shape = CASES[index]
    model = build_direct(module.eval(), [Spec("x", shape)], BATCH)
    assert model is not None
    value = np.random.default_rng(0).standard_normal((BATCH, *shape), dtype=np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = module(torch.from_numpy(value)).numpy()
    np.testing.assert_allclose(session.run(None, {"x": value})[0], wanted, atol=1e-5)


def test_a_traced_chain_is_recognised() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity(), nn.ReLU())
    traced = fx.symbolic_trace(module)
    model = build_direct(traced, [Spec("x", (3, 8, 8))], 1)
    assert model is not None
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu"]


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.conv(x) + x)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)),
        nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 1)),
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)),
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.ReLU()),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 3, 3, padding="same"),
        nn.ReLU(),
        nn.Identity(),
        Doubled(),
        fx.symbolic_trace(Doubled()),
    ],
    ids=lambda module: type(module).__name__,
)
def test_everything_else_is_left_to_the_exporter(module: nn.Module) -> None:
    assert build_direct(module.eval(), [Spec("x", (3, 8, 8))], 1) is None


def test_only_one_float_input_is_taken() -> None:
    two = [Spec("x", (3, 8, 8)), Spec("y", (3, 8, 8))]
    assert build_direct(nn.Conv2d(3, 3, 1), two, 1) is None
    assert build_direct(nn.Conv2d(3, 3, 1), [Spec("x", (3, 8, 8), torch.float64)], 1) is None


def test_pieces_take_the_direct_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the exporter was called")

    monkeypatch.setattr("deploy.operators.export_onnx", refuse)
    write_pieces([Piece(nn.Linear(4, 2), (Spec("x", (4,)),), tmp_path / "a.onnx")], 1)
    assert (tmp_path / "a.onnx").exists()
