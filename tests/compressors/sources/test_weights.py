import json
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from compressors.errors import ModelError, UnsafeModelError
from compressors.sources import ModelSource, load
from compressors.sources.trace import uninitialised
from compressors.sources.weights import fit_weights, read_weights


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(6, 4), nn.Linear(4, 6)
        self.head.weight = self.table.weight
        self.register_buffer("steps", torch.arange(3))


def state():
    return {"table.weight": torch.randn(6, 4), "head.bias": torch.randn(6), "steps": torch.arange(3)}


@pytest.mark.parametrize("name", ["table.weight", "head.weight"])
def test_tied_weights_may_be_stored_under_either_name_and_stay_tied(name):
    model, weights = Tied(), state()
    weights[name] = weights.pop("table.weight")
    fit_weights(model, weights, "m")
    assert model.head.weight is model.table.weight
    assert torch.equal(model.table.weight, weights[name])


def test_tied_weights_that_differ_are_refused():
    with pytest.raises(ModelError, match=r"ties 'table.weight' and 'head.weight'"):
        fit_weights(Tied(), {**state(), "head.weight": torch.zeros(6, 4)}, "m")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "backbone."])
def test_prefixes_that_frameworks_add_are_removed(tmp_path, prefix):
    weights = state()
    save_file({prefix + key: value for key, value in weights.items()}, tmp_path / "w.safetensors")
    model = Tied()
    fit_weights(model, read_weights(tmp_path / "w.safetensors"), "m")
    assert torch.equal(model.head.bias, weights["head.bias"])


def test_weights_in_half_precision_take_the_model_s():
    model, weights = Tied(), state()
    weights["head.bias"] = weights["head.bias"].bfloat16()
    fit_weights(model, weights, "m")
    assert model.head.bias.dtype is torch.float32
    assert torch.equal(model.head.bias, weights["head.bias"].float())


def test_whole_numbers_are_no_weights():
    with pytest.raises(ModelError, match=r"of another kind.*head.bias: torch.int64 in the file"):
        fit_weights(Tied(), {**state(), "head.bias": torch.ones(6, dtype=torch.int64)}, "m")


def test_weights_are_not_copied():
    model, weights = Tied(), state()
    fit_weights(model, weights, "m")
    assert model.table.weight.data_ptr() == weights["table.weight"].data_ptr()


def sharded(place, weights):
    place.mkdir()
    files = {}
    for index, (key, value) in enumerate(weights.items()):
        files[key] = f"model-{index}.safetensors"
        save_file({key: value}, place / files[key])
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return place


@pytest.mark.parametrize("packed", [False, True])
def test_shards_with_an_index_are_one_state_dict(tmp_path, packed):
    place = sharded(tmp_path / "m", state())
    if packed:
        with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
            for item in place.iterdir():
                archive.write(item, item.name)
        wanted = {key: value for item in place.glob("*.safetensors") for key, value in load_file(item).items()}
        place = tmp_path / "m.zip"
    else:
        wanted = state()
    found = read_weights(place)
    assert set(found) == set(wanted)
    assert not packed or all(torch.equal(found[key], value) for key, value in wanted.items())


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"a": "/etc/passwd"}, UnsafeModelError, "not a shard beside it"),
        ({"a": "../w.safetensors"}, UnsafeModelError, "not a shard beside it"),
        ({"a": "code.py"}, UnsafeModelError, "not a shard beside it"),
        ({"a": "gone.safetensors"}, ModelError, "which is missing"),
        ({"a": "model-0.safetensors"}, ModelError, "does not hold 'a'"),
    ],
)
def test_index_is_checked(tmp_path, change, error, match):
    place = sharded(tmp_path / "m", state())
    index = json.loads((place / "model.safetensors.index.json").read_text())
    index["weight_map"].update(change)
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(error, match=match):
        read_weights(place)


@pytest.mark.parametrize("content", ["", "[]", '{"weight_map": 3}', "{}"])
def test_index_that_is_none_is_refused(tmp_path, content):
    place = sharded(tmp_path / "m", state())
    (place / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelError, match="no index of shards"):
        read_weights(place)


def test_folder_with_several_models_is_refused(tmp_path):
    for name in ("a", "b"):
        save_file(state(), tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelError, match=r"found a.safetensors, b.safetensors"):
        read_weights(tmp_path)


def test_sparse_weights_are_refused(tmp_path):
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="quantised or sparse"):
        read_weights(tmp_path / "w.pth")


def test_old_format_of_torch_save_is_read(tmp_path):
    torch.save(state(), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert set(read_weights(tmp_path / "w.pth")) == set(state())


def test_building_without_drawing_leaves_buffers_as_they_are():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    with uninitialised():
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Tied())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(model[2].steps, torch.arange(3))
    assert torch.equal(model[1].running_var, torch.ones(4))


@pytest.mark.parametrize("name", ["timm:resnet18.a1_in1k", "torchvision:squeezenet1_1"])
def test_published_weights_without_a_network_say_why(monkeypatch, tmp_path, name):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    with pytest.raises(ModelError, match=r"published weights.*cannot be used.*give a weights file"):
        load(ModelSource("named", name=name, options={"pretrained": True}))


def _no_network(*_args, **_kwargs):
    raise OSError("no network")


def test_name_without_published_weights_says_so():
    with pytest.raises(ModelError, match="publishes no weights"):
        load(ModelSource("named", name="timm:mixer_s32_224", options={"pretrained": True}))
