from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from compressors.errors import ModelError, OptionError, UnsafeModelError
from compressors.sources import ModelSource, load, preprocessing
from compressors.sources.weights import read_weights

NAME = "timm:test_resnet"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", pretrained=False, num_classes=7).eval()


def source(weights, **changes):
    return ModelSource("named", name=NAME, weights=weights, sample_shape=(3, 32, 32), num_classes=7, **changes)


@pytest.mark.parametrize("form", ["safetensors", "plain", "wrapped", "parallel"])
def test_weights_in_every_form_give_the_same_function(tmp_path, model, form):
    state = model.state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(state, path)
    elif form == "wrapped":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        torch.save({f"module.{k}": v for k, v in state.items()} if form == "parallel" else state, path)
    graph = load(source(path))
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(graph.module(x), model(x), atol=1e-5)
    assert graph.outputs[0].shape == (7,)


def test_torchvision_name_builds_without_weights_when_allowed():
    graph = load(
        ModelSource(
            "named",
            name="torchvision:squeezenet1_1",
            sample_shape=(3, 64, 64),
            num_classes=3,
            options={"random_weights": True},
        )
    )
    assert graph.outputs[0].shape == (3,)


def test_named_model_without_weights_says_that_it_needs_them():
    with pytest.raises(ModelError, match="needs weights"):
        load(ModelSource("named", name=NAME))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("timm:resnet81", "did you mean timm:resnet18"),
        ("torchvision:mobilnet_v2", "did you mean torchvision:mobilenet_v2"),
        ("timm:zzzzzzzz", "no architecture 'zzzzzzzz'$"),
        ("resnet18", "starts with timm:, torchvision:"),
        ("timm:hf-hub:someone/model", "no architecture"),
        ("timm:local-dir:/tmp", "no architecture"),
    ],
)
def test_unknown_name_suggests_close_ones(name, match):
    with pytest.raises(ModelError, match=match):
        load(ModelSource("named", name=name))


def test_source_without_a_name_is_incomplete():
    with pytest.raises(OptionError, match="name"):
        load(ModelSource("named"))


def test_weights_that_do_not_fit_name_what_is_wrong(tmp_path, model):
    state = model.state_dict()
    first, second, *_ = [key for key in state if key.endswith("weight")]
    state["surplus.weight"] = torch.zeros(1)
    del state[first]
    state[second] = torch.zeros(1, 2, 3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ModelError) as caught:
        load(source(tmp_path / "w.pth"))
    message = str(caught.value)
    assert f"1 missing ({first})" in message
    assert "1 unexpected (surplus.weight)" in message
    assert f"{second}: (1, 2, 3) in the file" in message


def test_wrong_number_of_classes_is_hinted_at(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match="is num_classes right"):
        load(ModelSource("named", name=NAME, weights=tmp_path / "w.pth", sample_shape=(3, 32, 32), num_classes=9))


def test_pickled_module_is_refused_and_not_run(tmp_path, model):
    torch.save(model, tmp_path / "w.pth")
    with pytest.raises(UnsafeModelError, match="more than tensors"):
        load(source(tmp_path / "w.pth"))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickle_that_runs_code_is_not_run(tmp_path):
    torch.save({"fc.weight": Evil(tmp_path / "proof")}, tmp_path / "w.pth")
    with pytest.raises(UnsafeModelError):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [([1, 2], "no state dict"), ({"fc.weight": 3}, "is no tensor"), ({}, "no state dict")],
)
def test_file_without_a_state_dict_is_refused(tmp_path, content, match):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=match):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_weights_are_refused(tmp_path, name, model):
    path = tmp_path / name
    save_file(model.state_dict(), path) if name.endswith("safetensors") else torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=name):
        read_weights(path)


def test_missing_weights_file_is_named(tmp_path):
    with pytest.raises(ModelError, match="no such weights file"):
        load(source(tmp_path / "w.pth"))


def test_weights_that_are_not_finite_are_named(tmp_path, model):
    state = model.state_dict()
    key = next(key for key in state if key.endswith("running_var"))
    state[key] = torch.full_like(state[key], float("nan"))
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=key):
        load(source(tmp_path / "w.pth"))


def test_shape_comes_from_the_config_when_not_given():
    graph = load(ModelSource("named", name="timm:test_vit", options={"random_weights": True}))
    assert graph.inputs[0].shape == preprocessing(ModelSource("named", name="timm:test_vit"))["input_size"]


def test_sample_shape_changes_what_the_architecture_takes():
    graph = load(ModelSource("named", name="timm:test_vit", sample_shape=(1, 64, 64), options={"random_weights": True}))
    assert graph.inputs[0].shape == (1, 64, 64)


def test_shape_that_the_architecture_cannot_take_is_refused():
    with pytest.raises(ModelError, match="cannot be traced"):
        load(
            ModelSource(
                "named", name="torchvision:squeezenet1_1", sample_shape=(3, 2, 2), options={"random_weights": True}
            )
        )


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:mobilenet_v2"])
def test_preprocessing_comes_from_the_config(name):
    found = preprocessing(ModelSource("named", name=name))
    assert found["mean"] == pytest.approx((0.485, 0.456, 0.406))
    assert found["std"] == pytest.approx((0.229, 0.224, 0.225))
    assert found["input_size"] == (3, 224, 224)
    assert 0.5 < found["crop_pct"] <= 1
    assert found["interpolation"] in {"bilinear", "bicubic"}


def test_names_only_reach_the_registries():
    with pytest.raises(ModelError, match="no architecture"):
        load(ModelSource("named", name=f"timm:{nn.Linear.__module__}"))
