"""Files that lie, climb, loop or are cut off: each ends in an error of ours, before memory or time are gone."""

import resource
import tarfile
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from compressors.errors import ModelError, OptionError, UnsafeModelError, UnsupportedModelError
from compressors.sources import ModelSource, load
from compressors.sources.onnx import wire
from tests.compressors.sources.onnx.builders import FLOAT, difference, helper, model, node, weights


def good():
    nodes = [node("Conv", "xw", "h"), node("Relu", "h")]
    return model(nodes, stored={"w": weights(4, 3, 3, 3)})


def read(proto, folder):
    path = folder / "net.onnx"
    path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
    return load(ModelSource(kind="onnx", path=path))


def edited(change):
    proto = good()
    change(proto)
    return proto


def claims(proto):
    proto.graph.initializer[0].dims[:] = [2**15, 2**15, 1, 1]


def overflows(proto):
    proto.graph.initializer[0].dims[:] = [2**40, 2**40]


def negative(proto):
    proto.graph.initializer[0].dims[:] = [-4, 3, 3, 3]


def dangles(proto):
    proto.graph.node[1].input[0] = "nowhere"


def circles(proto):
    proto.graph.node[0].input[0] = "y"


def twice(proto):
    proto.graph.initializer.append(proto.graph.initializer[0])


def computed_twice(proto):
    proto.graph.node.append(node("Relu", "h"))


def no_output(proto):
    proto.graph.output[0].name = "nowhere"


def strings(proto):
    proto.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"x"]))


def halves(proto):
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights(4, 3, 3, 3).astype(np.float16), "w"))


def not_a_number(proto):
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights(4, 3, 3, 3) * np.nan, "w"))


def infinite(proto):
    bad = weights(4, 3, 3, 3)
    bad[0, 0, 0, 0] = np.inf
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(bad, "w"))


def strange_attribute(proto):
    proto.graph.node[0].attribute.append(helper.make_attribute("surprise", 1))


def wrong_attribute(proto):
    proto.graph.node[0].attribute.append(helper.make_attribute("group", 1.5))


def too_many_inputs(proto):
    proto.graph.node[1].input.append("x")


def future(proto):
    proto.opset_import[0].version = 999


def ancient(proto):
    proto.opset_import[0].version = 5


def no_opset(proto):
    del proto.opset_import[:]


def sequence(proto):
    proto.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", FLOAT, None))


def sparse(proto):
    proto.graph.sparse_initializer.append(onnx.SparseTensorProto(dims=[2**20]))


def does_not_fit(proto):
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights(4, 5, 3, 3), "w"))


LIES = {
    claims: (ModelError, r"'w' claims 1073741824 elements .*, the file has 432"),
    overflows: (ModelError, r"claims \d+ elements, more than"),
    negative: (ModelError, "sizes must not be negative"),
    dangles: (ModelError, "reads 'nowhere', which nothing computes"),
    circles: (ModelError, "go in a circle"),
    twice: (ModelError, "'w' is there twice"),
    computed_twice: (ModelError, "'y' is there twice"),
    no_output: (ModelError, "'nowhere' is computed by nothing"),
    strings: (UnsupportedModelError, "element type STRING"),
    halves: (UnsupportedModelError, "FLOAT16.*export the model in float32"),
    not_a_number: (ModelError, "NaN or infinite"),
    infinite: (ModelError, "NaN or infinite"),
    strange_attribute: (ModelError, "'surprise'"),
    wrong_attribute: (ModelError, "'group' of kind FLOAT"),
    too_many_inputs: (ModelError, "has 2 inputs; wanted 1 to 1"),
    future: (UnsupportedModelError, "follows opset 999; this Shoal reads 7 to"),
    ancient: (UnsupportedModelError, "follows opset 5"),
    no_opset: (ModelError, "states no opset version"),
    sequence: (UnsupportedModelError, "sequence_type"),
    sparse: (UnsupportedModelError, "sparse tensors"),
    does_not_fit: (ModelError, r"Conv \(opset 17\) does not fit its inputs"),
}


@pytest.mark.parametrize("change", LIES, ids=lambda change: change.__name__)
def test_a_file_that_lies_is_refused(change, tmp_path):
    error, message = LIES[change]
    with pytest.raises(error, match=message):
        read(edited(change), tmp_path)


def test_operators_out_of_order_are_sorted(tmp_path):
    proto = good()
    first = proto.graph.node.pop(0)
    proto.graph.node.append(first)
    path = tmp_path / "net.onnx"
    graph = read(proto, tmp_path)
    path.write_bytes(good().SerializeToString())
    assert difference(path, graph) < 1e-6


CONSTANTS = {
    "filled": ([node("ConstantOfShape", "s", "c")], {"s": np.array([10**6, 10**6])}),
    "counted": ([node("Range", "abd", "c")], {"a": np.int64(0), "b": np.int64(10**12), "d": np.int64(1)}),
    "spread": ([node("Expand", "as", "c")], {"a": np.float32(1), "s": np.array([10**6, 10**6])}),
    "tiled": ([node("Tile", "as", "c")], {"a": weights(3, 3), "s": np.array([10**6, 10**6])}),
    "padded": ([node("Pad", "as", "c")], {"a": weights(3, 3), "s": np.array([10**6, 10**6, 10**6, 10**6])}),
    "one-hot": ([node("OneHot", "asv", "c")], {"a": np.zeros(10**4, np.int64), "s": np.int64(10**8), "v": weights(2)}),
    "multiplied": ([node("MatMul", "ab", "c")], {"a": weights(20_000, 1), "b": weights(1, 20_000)}),
    "resized": ([node("Resize", ["a", "", "s"], "c")], {"a": weights(1, 1, 2, 2), "s": np.float32([1, 1, 1e5, 1e5])}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_huge_constant_is_refused_before_it_is_made(name, tmp_path):
    nodes, stored = CONSTANTS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match="elements, more than the"):
        read(model([*nodes, node("Add", "xc")], stored=stored), tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # kibibytes


INNER = {
    "padded for a convolution": (
        [node("Conv", "xw", pads=[10**6] * 4, strides=[10**6] * 2)], {"w": weights(4, 3, 1, 1)}
    ),
    "spread by a convolution": (
        [node("ConvTranspose", "xw", strides=[10**5] * 2, output_shape=[2, 2])], {"w": weights(3, 4, 1, 1)}
    ),
    "padded for a pool": ([node("AveragePool", "x", kernel_shape=[9, 9], pads=[10**6] * 4, strides=[10**6] * 2)], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", INNER)
def test_a_huge_tensor_within_an_operator_is_refused(name, tmp_path):
    nodes, stored = INNER[name]
    with pytest.raises(ModelError, match="elements, more than the"):
        read(model(nodes, stored=stored), tmp_path)


def test_a_convolution_with_a_scalar_for_a_weight_is_refused(tmp_path):
    with pytest.raises(ModelError):
        read(model([node("Conv", "xw", "h"), node("Add", "hb")], stored={"w": weights(), "b": weights(1)}), tmp_path)


def test_a_split_has_the_outputs_that_it_says(tmp_path):
    nodes = [node("Split", "x", ["p", "y"], axis=1, num_outputs=2**40)]
    with pytest.raises(ModelError, match="says that it has 1099511627776 outputs and has 2"):
        read(model(nodes, opset=18), tmp_path)


SIZES = {
    "gathered": ([node("Gather", "ab", "c")], {"a": np.ones((1, 2**16), np.int64), "b": np.zeros(2**16, np.int64)}),
    "compared": ([node("Max", "ab", "c")], {"a": np.ones((1, 2**16), np.int64), "b": np.ones((2**16, 1), np.int64)}),
}


@pytest.mark.parametrize("name", SIZES)
def test_shape_arithmetic_does_not_grow(name, tmp_path):
    nodes, stored = SIZES[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match="elements, more than the"):
        read(model([*nodes, node("Reshape", "xc")], stored=stored), tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # kibibytes


def test_a_file_cut_anywhere_is_refused(tmp_path):
    data = good().SerializeToString()
    for end in range(0, len(data) - 1, 7):
        with pytest.raises(ModelError):
            read(data[:end], tmp_path)


def test_random_bytes_are_refused(tmp_path):
    generator = np.random.default_rng(0)
    data = bytearray(good().SerializeToString())
    for _ in range(40):
        broken = bytearray(data)
        for place in generator.integers(0, len(data), 4):
            broken[place] = generator.integers(0, 256)
        try:
            read(bytes(broken), tmp_path)
        except (ModelError, OptionError):
            continue
    for _ in range(50):
        with pytest.raises(ModelError):
            read(generator.bytes(200), tmp_path)


def test_messages_without_end_are_refused_before_they_are_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(wire, "MESSAGES", 10_000)
    empty_nodes = b"\x0a\x00" * 10_001
    graph = b"\x3a" + varint(len(empty_nodes)) + empty_nodes
    with pytest.raises(ModelError, match="more than 10000 messages, 4000000 single"):
        read(graph, tmp_path)


def test_messages_within_messages_are_refused(tmp_path):
    inner = b""
    for _ in range(60):
        attribute = b"\x32" + varint(len(inner)) + inner  # AttributeProto.g
        op = b"\x2a" + varint(len(attribute)) + attribute  # NodeProto.attribute
        inner = b"\x0a" + varint(len(op)) + op  # GraphProto.node
    with pytest.raises(ModelError, match="nests its messages"):
        read(b"\x3a" + varint(len(inner)) + inner, tmp_path)


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_functions_that_call_each_other_are_refused(tmp_path):
    bodies = [helper.make_node("B", ["a"], ["b"], domain="d"), helper.make_node("A", ["a"], ["b"], domain="d")]
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    made = [
        helper.make_function("d", name, ["a"], ["b"], [body], sets) for name, body in zip("AB", bodies, strict=True)
    ]
    proto = model([helper.make_node("A", ["x"], ["y"], domain="d")], functions=made)
    proto.opset_import.append(helper.make_opsetid("d", 1))
    with pytest.raises(ModelError, match="calls functions more than"):
        read(proto, tmp_path)


def test_names_cannot_reach_python(tmp_path):
    nodes = [
        node("Conv", ["x", "__class__"], "h"),
        node("Conv", ["h", "forward.__init__"], "i"),
        node("Add", ["i", "a"]),
    ]
    stored = {"__class__": weights(4, 3, 3, 3), "forward.__init__": weights(4, 4, 1, 1), "a": weights(4, 1, 1)}
    graph = read(model(nodes, stored=stored), tmp_path)
    assert difference(tmp_path / "net.onnx", graph) < 1e-5


# External data.


def external(folder, location, offset=0, length=432):
    proto = good()
    tensor = proto.graph.initializer[0]
    (folder / "net.bin").write_bytes(b"\0" * offset + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return proto


def test_external_data_is_read(tmp_path):
    graph = read(external(tmp_path, "net.bin", offset=16), tmp_path)
    (tmp_path / "net.onnx").write_bytes(good().SerializeToString())
    assert difference(tmp_path / "net.onnx", graph) < 1e-6


@pytest.mark.parametrize("location", ["/etc/passwd", "../net.bin", "a/../../net.bin", "c:\\net.bin", "", "C:net.bin"])
def test_external_data_elsewhere_is_unsafe(location, tmp_path):
    with pytest.raises(UnsafeModelError, match="must be a file beside the model"):
        read(external(tmp_path, location), tmp_path)


def test_external_data_behind_a_link_is_unsafe(tmp_path):
    proto = external(tmp_path, "link/net.bin")
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UnsafeModelError, match="behind the link"):
        read(proto, tmp_path)


def test_external_data_in_a_pipe_is_unsafe(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsafeModelError, match="no plain file"):
        read(external(tmp_path, "pipe"), tmp_path)


@pytest.mark.parametrize(
    ("offset", "length", "message"),
    [
        (10**15, 432, "wants bytes"),
        (-1, 432, "at offset -1"),
        (0, 4, "claims 432 bytes"),
        ("x", 432, "must be numbers"),
    ],
)
def test_external_data_out_of_range_is_refused(offset, length, message, tmp_path):
    proto = external(tmp_path, "net.bin", 0, length)
    proto.graph.initializer[0].external_data[1].value = str(offset)
    with pytest.raises(ModelError, match=message):
        read(proto, tmp_path)


def test_missing_external_data_says_what_to_do(tmp_path):
    with pytest.raises(ModelError, match=r"missing; hand in a zip or tar"):
        read(external(tmp_path, "other.bin"), tmp_path)


# Archives.


def test_a_zip_and_a_tar_with_external_data_are_read(tmp_path):
    (tmp_path / "in").mkdir()
    proto = external(tmp_path / "in", "net.bin")
    (tmp_path / "in/net.onnx").write_bytes(proto.SerializeToString())
    with zipfile.ZipFile(tmp_path / "net.zip", "w") as archive:
        for name in ("net.onnx", "net.bin"):
            archive.write(tmp_path / "in" / name, f"top/{name}")
    with tarfile.open(tmp_path / "net.tar", "w") as tar:
        for name in ("net.onnx", "net.bin"):
            tar.add(tmp_path / "in" / name, f"./{name}")
    for name in ("net.zip", "net.tar"):
        graph = load(ModelSource(kind="onnx", path=tmp_path / name))
        assert difference(tmp_path / "in/net.onnx", graph) < 1e-6


def tarred(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    return path


@pytest.mark.parametrize("names", [("a.txt",), ("a.onnx", "b.onnx")])
def test_an_archive_holds_one_model(names, tmp_path):
    with pytest.raises(ModelError, match=r"exactly one \.onnx file"):
        load(ModelSource(kind="onnx", path=tarred(tmp_path / "net.tar", *((name, tarfile.REGTYPE) for name in names))))


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        load(ModelSource(kind="onnx", path=tmp_path / "nowhere.onnx"))
    with pytest.raises(OptionError, match="needs the path"):
        load(ModelSource(kind="onnx"))
