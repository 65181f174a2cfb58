from __future__ import annotations

import hashlib
import logging
import os
import re
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from deploy.agree import agree
from deploy.artifact import Artifact, hash_model
from deploy.errors import ExportError
from deploy.export import export_onnx
from deploy.runtimes import SessionSettings, find_runtime
from tests.deploy.networks import IMAGE, Residual, Spec, make_residual


def lifted(module: nn.Module, spec: Spec) -> nn.Module:
    """The program as torch.export gives it back: an fx graph over aten functions."""
    batch = torch.export.Dim("batch", min=1)
    example = torch.zeros((2, *spec.shape))
    return torch.export.export(module, (example,), dynamic_shapes=({0: batch},)).module()


def modules_and_functions() -> torch.fx.GraphModule:
    """A lifted graph as the engine makes it: affine operators are modules, the rest are aten functions."""
    root = nn.Module()
    root.add_module("conv", nn.Conv2d(3, 4, 3, padding=1))
    root.add_module("act", nn.ReLU())
    root.add_module("fc", nn.Linear(8, 5))
    graph, aten = torch.fx.Graph(), torch.ops.aten
    x = graph.placeholder("image")
    kept = graph.call_module("act", (graph.call_module("conv", (x,)),))
    kept = graph.call_function(aten.add.Tensor, (kept, kept))
    kept = graph.call_function(aten.slice.Tensor, (kept, 2, 0, 9223372036854775807, 2))
    kept = graph.call_function(aten.constant_pad_nd.default, (kept, [0, 0, 0, 0, 2, 2], 0.0))
    kept = graph.call_function(aten.adaptive_avg_pool2d.default, (kept, [1, 1]))
    kept = graph.call_function(aten.flatten.using_ints, (kept, 1))
    graph.output((graph.call_module("fc", (kept,)),))
    return torch.fx.GraphModule(root, graph).eval()


def test_the_file_accepts_any_batch_size_and_keeps_the_names(artifact: Artifact) -> None:
    model = onnx.load(artifact.path)
    (entry,), (exit_,) = model.graph.input, model.graph.output
    assert (entry.name, exit_.name) == ("image", "logits")
    assert entry.type.tensor_type.shape.dim[0].dim_param == "batch"
    session = find_runtime("onnxruntime").load(artifact.path, SessionSettings())
    for batch in (1, 2, 7):
        assert session.run([artifact.inputs[0].random(batch, 0)])[0].shape == (batch, 3)


def test_the_artifact_describes_the_file(artifact: Artifact) -> None:
    assert artifact.size_bytes == artifact.path.stat().st_size
    assert artifact.sha256 == hashlib.sha256(artifact.path.read_bytes()).hexdigest()
    assert artifact.precision == "float32"
    assert artifact.opset == onnx.load(artifact.path).opset_import[0].version
    assert [(spec.name, spec.shape, spec.dtype) for spec in artifact.inputs] == [("image", (3, 8, 8), "float32")]
    assert [(spec.name, spec.shape) for spec in artifact.outputs] == [("logits", (3,))]
    assert artifact.producers["torch"] == torch.__version__.split("+")[0]
    assert artifact.notes == ()


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, bool]:
    """A second export of an equal module, over an earlier large one; and whether the module was left as it was."""
    module, path = make_residual(), tmp_path_factory.mktemp("again") / "again.onnx"
    path.with_name("again.onnx.data").write_bytes(b"weights of an earlier export")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    written = export_onnx(module, [IMAGE], ["logits"], path)
    same = all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    return written, same and all(parameter.requires_grad for parameter in module.parameters())


def test_the_same_module_gives_the_same_bytes(artifact: Artifact, again: tuple[Artifact, bool]) -> None:
    assert again[0].path.read_bytes() == artifact.path.read_bytes()
    assert again[0].sha256 == artifact.sha256


def test_the_sources_of_operators_are_read_for_the_first_model_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ast_utils = pytest.importorskip("onnxscript._internal.ast_utils")
    read: list[object] = []
    parse = ast_utils.get_src_and_ast
    monkeypatch.setattr(ast_utils, "get_src_and_ast", lambda function: read.append(function) or parse(function))
    for name in ("one", "two"):
        read.clear()
        export_onnx(make_residual(), (IMAGE,), ["scores"], tmp_path / f"{name}.onnx")
    assert read == []


def test_the_caller_module_is_not_changed(again: tuple[Artifact, bool]) -> None:
    assert again[1]


def test_weights_of_an_earlier_large_export_are_removed(again: tuple[Artifact, bool]) -> None:
    assert [file.name for file in again[0].path.parent.iterdir()] == ["again.onnx"]


def test_the_file_holds_no_path_or_trace_of_the_machine(artifact: Artifact) -> None:
    content = artifact.path.read_bytes()
    model = onnx.load(artifact.path)
    for weight in model.graph.initializer:
        weight.ClearField("raw_data")
    assert b"/" not in model.SerializeToString()
    for word in (b"site-packages", b".py", b"aten.", b"stack_trace", os.fsencode(Path.cwd())):
        assert word not in content
    assert not model.metadata_props
    assert not [node.name for node in model.graph.node if node.doc_string or node.metadata_props]


def test_batch_norm_is_folded_into_its_convolution(artifact: Artifact) -> None:
    operators = [node.op_type for node in onnx.load(artifact.path).graph.node]
    assert "BatchNormalization" not in operators
    assert operators.count("Conv") == 2


@pytest.mark.parametrize("module", [lifted(make_residual(), IMAGE), modules_and_functions()], ids=["aten", "mixed"])
def test_lifted_graphs_are_exported_and_agree(module: nn.Module, tmp_path: Path) -> None:
    written = export_onnx(module, [IMAGE], ["logits"], tmp_path / "lifted.onnx")
    assert agree(written, module).passed


def test_several_inputs_and_outputs_of_other_types(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 4)
            self.out = nn.Linear(4, 2)

        def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            hidden = self.table(tokens) * mask.unsqueeze(-1)
            return self.out(hidden.sum(1)), hidden

    specs = [Spec("tokens", (5,), torch.int64), Spec("mask", (5,))]
    module = Two().eval()
    written = export_onnx(module, specs, ["logits", "hidden"], tmp_path / "two.onnx")
    assert [spec.name for spec in written.outputs] == ["logits", "hidden"]
    assert agree(written, module).passed


def test_large_weights_lie_beside_the_file(large: Artifact, residual: Residual) -> None:
    beside = large.path.with_name("large.onnx.data")
    assert large.size_bytes == large.path.stat().st_size + beside.stat().st_size
    assert len(large.notes) == 1
    assert "not simplified" in large.notes[0]
    assert b"/" not in large.path.read_bytes()
    assert agree(large, residual).passed


def test_the_hash_covers_weights_beside_the_file(large: Artifact, large_copy: Path) -> None:
    assert hash_model(large_copy) == (large.sha256, large.size_bytes)
    beside = large_copy.with_name("large.onnx.data")
    changed = bytearray(beside.read_bytes())
    changed[0] ^= 1
    beside.write_bytes(changed)
    assert hash_model(large_copy)[0] != large.sha256


def test_a_module_in_training_mode_is_refused(tmp_path: Path) -> None:
    module = make_residual().train()
    with pytest.raises(ExportError, match=r"'norm' \(BatchNorm2d\) is in training mode"):
        export_onnx(module, [IMAGE], ["logits"], tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_fixed_batch_size_in_the_module_is_refused(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, 192)

    with pytest.raises(ExportError, match="free batch size"):
        export_onnx(Fixed().eval(), [IMAGE], ["y"], tmp_path / "model.onnx")


def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    class Spectral(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(x)

    with pytest.raises(ExportError, match=r"aten\.\w*svd\w*") as caught:
        export_onnx(Spectral().eval(), [IMAGE], ["y"], tmp_path / "model.onnx")
    assert "svd" in (caught.value.operator or "")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [[], ["a", "b"], ["a", "a"], ["image"]])
def test_output_names_must_fit(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="output names"):
        export_onnx(nn.Identity(), [IMAGE], names, tmp_path / "model.onnx")


def test_outputs_that_repeat_or_pass_an_input_on_and_clashing_names(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, unused: torch.Tensor) -> tuple[torch.Tensor, ...]:  # noqa: ARG002
            y = self.x(x)
            return x, y, y

    module, specs = Odd().eval(), [Spec("x.weight", (4,)), Spec("unused", (2,))]
    written = export_onnx(module, specs, ["same", "x.bias", "twice"], tmp_path / "odd.onnx")
    assert [spec.name for spec in written.inputs] == ["x.weight", "unused"]
    assert [spec.name for spec in written.outputs] == ["same", "x.bias", "twice"]
    assert agree(written, module).passed


def test_an_output_without_the_batch_in_front_is_refused(tmp_path: Path) -> None:
    class Summed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(0)

    with pytest.raises(ExportError, match=r"'y' has the shape \[4\]; its first dimension must be the batch"):
        export_onnx(Summed().eval(), [Spec("x", (4,))], ["y"], tmp_path / "model.onnx")


def test_a_failure_is_quiet_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match="data-dependent"):
        export_onnx(Branching().eval(), [Spec("x", (4,))], ["y"], tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


def test_the_exporter_is_quiet(
    residual: Residual, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        export_onnx(residual, [IMAGE], ["logits"], tmp_path / "model.onnx")
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.records) == ("", "", [])


def test_float16_weights_are_reported(tmp_path: Path) -> None:
    module = nn.Linear(4, 2).half().eval()
    written = export_onnx(module, [Spec("x", (4,), torch.float16)], ["y"], tmp_path / "half.onnx")
    assert written.precision == "float16"
    assert re.fullmatch(r"[0-9a-f]{64}", written.sha256)
    assert np.dtype(written.inputs[0].dtype) == np.float16
