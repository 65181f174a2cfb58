from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.cli import modelfile, request
from service.cli.errors import InputError
from service.cli.external import external_files
from service.cli.request import ModelFlags, Uploaded


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A network whose two weights lie in two files beside it."""
    nodes = [helper.make_node("Add", ["x", "a"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    stored = [numpy_helper.from_array(np.ones(4, np.float32), name) for name in "ab"]
    for tensor, file in zip(stored, ("w/a.bin", "b.bin"), strict=True):
        (tmp_path / "net" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "net" / file).write_bytes(tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, file)
        tensor.ClearField("raw_data")
    path = tmp_path / "net/net.onnx"
    path.write_bytes(helper.make_model(helper.make_graph(nodes, "g", edges[:1], edges[1:], stored)).SerializeToString())
    return path


def test_external_data_is_found_without_the_onnx_package(external: Path) -> None:
    assert external_files(external) == ["w/a.bin", "b.bin"]


def test_a_file_that_is_no_onnx_names_no_external_data(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\xff\x01nonsense")
    (tmp_path / "none.onnx").write_bytes(b"")
    assert external_files(tmp_path / "net.onnx") == external_files(tmp_path / "none.onnx") == []


@pytest.mark.parametrize("of", ["file", "folder"])
def test_a_file_with_external_data_is_packed_with_it(external: Path, tmp_path: Path, of: str) -> None:
    modelfile.pack(external if of == "file" else external.parent, tmp_path / "net.tar")
    with tarfile.open(tmp_path / "net.tar") as tar:
        assert tar.getnames() == ["net.onnx", "w/a.bin", "b.bin"]
    assert modelfile.kind_of(tmp_path / "net.tar") == "onnx"


def test_a_missing_part_is_named(external: Path) -> None:
    (external.parent / "b.bin").unlink()
    with pytest.raises(InputError, match=r"'b\.bin', which must be a file beside it"):
        modelfile.parts(external)


def test_a_folder_of_a_library_is_packed_without_pickles_where_safetensors_are(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    (folder / "sub").mkdir(parents=True)
    for name in (
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "sub/old.bin",
        ".git",
        "README.md",
        "sub/README.md",
    ):
        (folder / name).write_text("{}")
    assert modelfile.kind_of(folder) == "folder"
    modelfile.pack(folder, tmp_path / "bert.tar")
    with tarfile.open(tmp_path / "bert.tar") as tar:
        assert tar.getnames() == ["README.md", "config.json", "model.safetensors", "sub/old.bin"]
    assert modelfile.kind_of(tmp_path / "bert.tar") == "folder"


def test_an_archive_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    for name, inner in (("a", "net.onnx"), ("b", "unet/config.json"), ("c", "readme.md")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr(inner, "{}")
    assert modelfile.kind_of(tmp_path / "a.zip") == "onnx"
    assert modelfile.kind_of(tmp_path / "b.zip") == "folder"
    with pytest.raises(InputError, match="holds neither"):
        modelfile.kind_of(tmp_path / "c.zip")


def test_the_request_names_the_kind_of_the_file(external: Path) -> None:
    flags = ModelFlags(str(external), input_shape=(("x", (4,)),))
    request.check_model(flags)
    source = request.model_source(flags, Uploaded(model="artifacts/abcd"))
    assert source.WhichOneof("source") == "onnx_artifact"
    assert [(shape.name, list(shape.sizes)) for shape in source.input_shapes] == [("x", [4])]


def test_a_name_may_ask_for_published_weights_and_a_task() -> None:
    flags = ModelFlags("transformers:google/bert_uncased", pretrained=True, task="fill-mask")
    request.check_model(flags)
    named = request.model_source(flags, Uploaded()).named
    assert (named.architecture, named.pretrained, named.task) == (flags.model, True, "fill-mask")


def test_the_tokenizer_in_a_folder_is_packed_with_the_model(external: Path, tmp_path: Path) -> None:
    for folder in (external.parent, tmp_path / "bert"):
        folder.mkdir(exist_ok=True)
        for name in ("tokenizer.json", "vocab.txt", "notes.txt", "merges.txt"):
            (folder / name).write_text("{}")
    (tmp_path / "bert/config.json").write_text("{}")
    (tmp_path / "bert/model.safetensors").write_bytes(b"")
    for folder, model in ((external.parent, "net.onnx"), (tmp_path / "bert", "model.safetensors")):
        modelfile.pack(folder, tmp_path / "packed.tar")
        with tarfile.open(tmp_path / "packed.tar") as tar:
            names = set(tar.getnames())
        assert names >= {model, "tokenizer.json", "vocab.txt", "merges.txt"}
        assert "notes.txt" not in names
