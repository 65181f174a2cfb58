import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from compressors.errors import ModelError, OptionError, UnsafeModelError, UnsupportedModelError
from compressors.sources import ModelSource, load, preprocessing
from compressors.sources.archive import ArchiveLimits, open_entries
from tests.compressors.networks import exported

WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
PROGRAM = "models/model.json"


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def entries(model):
    buffer = io.BytesIO()
    torch.export.save(exported(model, (3, 8, 8)), buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def write(path, entries, top="model", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(f"{top}/{name}", data)
    return ModelSource("pt2", path=path)


def edited(entries, name, change):
    """Returns the entries with one JSON entry changed."""
    content = json.loads(entries[name])
    change(content)
    return {**entries, name: json.dumps(content).encode()}


def first(config):
    return next(iter(config["config"].values()))


def test_saved_program_loads_and_computes_the_same(tmp_path, model, entries):
    graph = load(write(tmp_path / "good.pt2", entries))
    x = torch.randn(3, 3, 8, 8)
    assert torch.allclose(graph.module(x), model(x), atol=1e-6)
    assert graph.name == "good"


def test_file_as_torch_wrote_it_loads(tmp_path, model):
    path = tmp_path / "m.pt2"
    torch.export.save(exported(model, (3, 8, 8)), path)
    assert load(ModelSource("pt2", path=path)).inputs[0].shape == (3, 8, 8)


class Named(nn.Module):
    def forward(self, x):
        return {"logits": x * 2, "aux": [x + 1, {"deep": x - 1}]}


@pytest.fixture(scope="module")
def named():
    buffer = io.BytesIO()
    torch.export.save(exported(Named(), (3,)), buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}


def names(source):
    return [spec.name for spec in load(source).outputs]


def test_outputs_keep_the_names_of_the_saved_dictionary(tmp_path, named):
    assert names(write(tmp_path / "m.pt2", named)) == ["logits", "aux_0", "aux_1_deep"]


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("logits", "../../x", ["output_0", "output_1_0", "output_1_1_deep"]),
        ("logits", "x", ["out_x", "aux_0", "aux_1_deep"]),
        ("logits", "aux", ["aux", "aux_0", "aux_1_deep"]),
        ("builtins.dict", "os.system", ["logits", "aux_0", "aux_1_deep"]),
    ],
)
def test_names_of_outputs_are_words_and_containers_are_never_built(tmp_path, named, old, new, wanted):
    def change(program):
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        signature["out_spec"] = signature["out_spec"].replace(old, new)

    assert names(write(tmp_path / "m.pt2", edited(named, PROGRAM, change))) == wanted


@pytest.mark.parametrize("spec", ["", "[1]", "[1, 3]", "{}", "[" * 5000, '[1, {"type": "a", "children_spec": []}]'])
def test_outputs_without_readable_names_are_numbered(tmp_path, named, spec):
    def change(program):
        program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = spec

    found = names(write(tmp_path / "m.pt2", edited(named, PROGRAM, change)))
    assert found == ["output_0", "output_1", "output_2"]


def test_pickle_in_place_of_the_sample_inputs_is_never_read(tmp_path, entries):
    proof = tmp_path / "proof"
    evil = io.BytesIO()
    torch.save(Evil(proof), evil)
    load(write(tmp_path / "evil.pt2", {**entries, "data/sample_inputs/model.pt": evil.getvalue()}))
    assert not proof.exists()
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever torch makes of the object, the file is the point
        torch.export.load(tmp_path / "evil.pt2")
    assert proof.exists(), "the payload does nothing, so this test proves nothing"


@pytest.mark.parametrize(
    ("folder", "config", "key", "path_name"),
    [
        ("data/weights/", WEIGHTS, "use_pickle", "weight_0"),
        ("data/constants/", CONSTANTS, "use_pickle", "tensor_0"),
        ("data/constants/", CONSTANTS, "custom", "custom_obj_0"),
        ("data/constants/", CONSTANTS, "opaque", "opaque_obj_0"),
    ],
)
def test_pickled_payload_is_refused_by_name_and_not_run(tmp_path, entries, folder, config, key, path_name):
    proof = tmp_path / "proof"
    payload = io.BytesIO()
    torch.save(Evil(proof), payload)
    template = first(json.loads(entries[WEIGHTS]))

    def change(content):
        item = {**template, "path_name": path_name, "use_pickle": key == "use_pickle"}
        content["config"] = {"conv.weight": item}

    data = pickle.dumps(Evil(proof)) if key == "opaque" else payload.getvalue()
    source = write(tmp_path / "evil.pt2", {**edited(entries, config, change), folder + path_name: data})
    with pytest.raises(UnsafeModelError, match=folder + path_name):
        load(source)
    assert not proof.exists()


@pytest.mark.parametrize("name", ["data/weights/model.pt", "data/constants/model.pt"])
def test_legacy_pickle_of_all_weights_is_refused(tmp_path, entries, name):
    with pytest.raises(UnsafeModelError, match=name):
        load(write(tmp_path / "m.pt2", {**entries, name: b"..."}))


def test_compiled_code_is_refused(tmp_path, entries):
    with pytest.raises(UnsafeModelError, match="compiled"):
        load(write(tmp_path / "m.pt2", {**entries, "data/aotinductor/model/model.so": b"\x7fELF"}))


def nodes(program):
    return program["graph_module"]["graph"]["nodes"]


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.hub.load",
        "_operator.call",
        "math.__loader__",
        "torch.ops.aten.from_file.default",
        "#x:y",
    ],
)
def test_operator_that_is_no_tensor_operator_is_refused(tmp_path, entries, target):
    source = edited(entries, PROGRAM, lambda p: nodes(p)[0].update(target=target))
    with pytest.raises(UnsafeModelError, match="no tensor operator"):
        load(write(tmp_path / "m.pt2", source))


def test_custom_operator_is_unsupported(tmp_path, entries):
    source = edited(entries, PROGRAM, lambda p: nodes(p)[0].update(target="torch.ops.mylib.magic.default"))
    with pytest.raises(UnsupportedModelError, match="mylib"):
        load(write(tmp_path / "m.pt2", source))


def test_operator_that_this_torch_lacks_is_named(tmp_path, entries):
    source = edited(entries, PROGRAM, lambda p: nodes(p)[0].update(target="torch.ops.aten.from_the_future.default"))
    with pytest.raises(ModelError, match="from_the_future"):
        load(write(tmp_path / "m.pt2", source))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('pathlib').Path('{proof}').touch()",
        "Symbol('s0').__class__",
        "(lambda: 1)()",
        "Symbol('{proof}')",
        "9**9**9",
        "Pow(9, Pow(9, 9))",
        "s0**99",
    ],
)
def test_size_expression_that_is_more_than_arithmetic_is_refused_and_not_run(tmp_path, entries, text):
    proof = tmp_path / "proof"

    def change(program):
        sizes = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = text.format(proof=proof)

    with pytest.raises(UnsafeModelError, match="size expression"):
        load(write(tmp_path / "m.pt2", edited(entries, PROGRAM, change)))
    assert not proof.exists()


def test_guard_code_is_dropped(tmp_path, entries):
    proof = tmp_path / "proof"
    code = f"__import__('pathlib').Path({str(proof)!r}).touch()"
    graph = load(write(tmp_path / "m.pt2", edited(entries, PROGRAM, lambda p: p.update(guards_code=[code]))))
    graph.module(torch.randn(2, 3, 8, 8))
    assert not proof.exists()


def test_object_argument_is_refused(tmp_path, entries):
    change = {"name": "x", "arg": {"as_operator": "torch.os.system"}, "kind": 1}
    source = edited(entries, PROGRAM, lambda p: nodes(p)[0]["inputs"].append(change))
    with pytest.raises(UnsafeModelError, match="as_operator"):
        load(write(tmp_path / "m.pt2", source))


def test_other_version_of_the_format_says_which(tmp_path, entries):
    source = edited(entries, PROGRAM, lambda p: p.update(schema_version={"major": 99, "minor": 1}))
    with pytest.raises(ModelError, match=r"99\.1"):
        load(write(tmp_path / "m.pt2", source))


def test_other_version_of_the_archive_is_refused(tmp_path, entries):
    with pytest.raises(ModelError, match="archive version"):
        load(write(tmp_path / "m.pt2", {**entries, "archive_version": b"7"}))


@pytest.mark.parametrize("missing", [PROGRAM, "archive_format"])
def test_archive_without_a_program_is_refused(tmp_path, entries, missing):
    with pytest.raises(ModelError, match="no exported program"):
        load(write(tmp_path / "m.pt2", {k: v for k, v in entries.items() if k != missing}))


@pytest.mark.parametrize("missing", [WEIGHTS, CONSTANTS, "data/weights/weight_0"])
def test_missing_entry_is_named(tmp_path, entries, missing):
    with pytest.raises(ModelError, match=missing):
        load(write(tmp_path / "m.pt2", {k: v for k, v in entries.items() if k != missing}))


def test_broken_json_is_refused(tmp_path, entries):
    with pytest.raises(ModelError, match="no exported program"):
        load(write(tmp_path / "m.pt2", {**entries, PROGRAM: b"{"}))


def test_layout_of_old_torch_says_what_to_do(tmp_path):
    with pytest.raises(ModelError, match="save it again"):
        load(write(tmp_path / "m.pt2", {"serialized_exported_program.json": b"{}", "version": b"8.7"}))


def test_pickle_of_a_whole_module_is_refused(tmp_path, model):
    path = tmp_path / "m.pt2"
    torch.save(model, path)
    with pytest.raises(UnsafeModelError, match=r"torch\.save"):
        load(ModelSource("pt2", path=path))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused(tmp_path, model):
    path = tmp_path / "m.pt2"
    torch.jit.save(torch.jit.trace(model, torch.randn(1, 3, 8, 8)), path)
    with pytest.raises(UnsafeModelError, match="TorchScript"):
        load(ModelSource("pt2", path=path))


@pytest.mark.parametrize("size", [0, 10, 3000, -40])
def test_truncated_file_is_refused(tmp_path, entries, size):
    whole = tmp_path / "whole.pt2"
    write(whole, entries)
    path = tmp_path / "cut.pt2"
    path.write_bytes(whole.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"cut\.pt2 is truncated or damaged"):
        load(ModelSource("pt2", path=path))


def test_flipped_bit_in_a_weight_is_refused(tmp_path, entries):
    path = tmp_path / "m.pt2"
    write(path, entries)
    data = bytearray(path.read_bytes())
    position = bytes(data).find(entries["data/weights/weight_0"])
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        load(ModelSource("pt2", path=path))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"none\.pt2"):
        load(ModelSource("pt2", path=tmp_path / "none.pt2"))


def test_source_without_a_path_is_incomplete():
    with pytest.raises(OptionError, match="path"):
        load(ModelSource("pt2"))


def test_unknown_kind_is_refused():
    with pytest.raises(OptionError, match="kind"):
        load(ModelSource("pickle"))


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, entries):
    source = write(tmp_path / "m.pt2", {**entries, "extra/zeros": bytes(2**24)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match="compressed more than"):
        load(source)


@pytest.mark.parametrize("limits", [ArchiveLimits(total_bytes=1000), ArchiveLimits(entries=3)])
def test_caps_hold(tmp_path, entries, limits):
    write(tmp_path / "m.pt2", entries)
    with pytest.raises(ModelError, match="more than"), open_entries(tmp_path / "m.pt2", limits):
        pass


@pytest.mark.parametrize("name", ["../escape", "a/../../escape", "back\\slash"])
def test_climbing_names_are_refused(tmp_path, entries, name):
    with pytest.raises(UnsafeModelError, match="unsafe name"):
        load(write(tmp_path / "m.pt2", {**entries, name: b""}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_entry_is_refused(tmp_path, entries):
    path = tmp_path / "m.pt2"
    write(path, entries)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"model/{WEIGHTS}", b"{}")
    with pytest.raises(UnsafeModelError, match="twice"):
        load(ModelSource("pt2", path=path))


def test_second_top_folder_is_refused(tmp_path, entries):
    path = tmp_path / "m.pt2"
    write(path, entries)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/archive_format", b"pt2")
    with pytest.raises(ModelError, match="top folders"):
        load(ModelSource("pt2", path=path))


def test_weight_larger_than_its_bytes_is_refused(tmp_path, entries):
    def change(config):
        first(config)["tensor_meta"]["sizes"] = [{"as_int": 2**40}]

    with pytest.raises(ModelError, match="claims"):
        load(write(tmp_path / "m.pt2", edited(entries, WEIGHTS, change)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weight_that_is_not_finite_is_named(tmp_path, model, value):
    broken = Small()
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.conv.weight[0, 0, 0, 0] = value
    torch.export.save(exported(broken.eval(), (3, 8, 8)), tmp_path / "m.pt2")
    with pytest.raises(ModelError, match=r"conv\.weight"):
        load(ModelSource("pt2", path=tmp_path / "m.pt2"))


def test_program_of_an_accelerator_loads_on_the_cpu(tmp_path, entries):
    text = entries[PROGRAM].replace(b'"type": "cpu", "index": null', b'"type": "cuda", "index": 0')
    config = entries[WEIGHTS].replace(b'"type": "cpu", "index": null', b'"type": "cuda", "index": 0')
    assert b"cuda" in text
    assert b"cuda" in config
    graph = load(write(tmp_path / "m.pt2", {**entries, PROGRAM: text, WEIGHTS: config}))
    assert {p.device.type for p in graph.module.parameters()} == {"cpu"}


def test_given_sample_shape_must_fit(tmp_path, entries):
    source = write(tmp_path / "m.pt2", entries)
    with pytest.raises(ModelError, match="sample shape"):
        load(ModelSource("pt2", path=source.path, sample_shape=(3, 9, 9)))


def test_file_states_no_preprocessing():
    assert preprocessing(ModelSource("pt2", path=Path("m.pt2"))) is None
