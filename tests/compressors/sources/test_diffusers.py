"""Denoisers of the diffusers library; tiny configs, saved as the library saves them."""

import json

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from compressors.analysis import analyse
from compressors.errors import ModelError, UnsupportedModelError
from compressors.sources import ModelSource, load
from compressors.sources.diffusers_models import build

SETTINGS = {
    "sample_size": 16,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (8,),
    "norm_num_groups": 4,
    "down_block_types": ("AttnDownBlock2D",),
    "up_block_types": ("AttnUpBlock2D",),
    "attention_head_dim": None,
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**SETTINGS).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("models") / "unet"
    model.save_pretrained(place)
    return place


def source(path, **changes):
    return ModelSource("folder", path=path, **changes)


def test_saved_denoiser_loads_and_computes_the_same_at_any_batch_size(model, folder):
    graph = load(source(folder))
    assert [(s.name, s.shape, s.high) for s in graph.inputs] == [("sample", (3, 16, 16), 2), ("timestep", (), 1000)]
    assert [(s.name, s.shape) for s in graph.outputs] == [("out_sample", (3, 16, 16))]
    for batch in (1, 5):
        sample, timestep = graph.samples(batch)
        with torch.no_grad():
            wanted, got = model(sample, timestep).sample, graph.module(sample, timestep)
        assert float((wanted - got).abs().max() / wanted.abs().max()) <= 1e-6
    assert analyse(graph).sites


def test_old_names_of_attention_weights_are_known(model, folder):
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for key, value in load_file(folder / "diffusion_pytorch_model.safetensors").items():
        for today, old in new.items():
            key = key.replace(f".{today}.", f".{old}.")  # noqa: PLW2901 - several renamings of one name
        state[key] = value
    built = build(json.loads((folder / "config.json").read_text()), state, "old")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in built.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"_class_name": "Evil"}, UnsupportedModelError, "Evil"),
        ({"_class_name": "DiffusionPipeline"}, UnsupportedModelError, "UNet2DModel"),
        ({"evil": 1}, ModelError, "no setting 'evil'"),
        ({"layers_per_block": 10**6}, ModelError, "no model has"),
        ({"block_out_channels": [2**20], "norm_num_groups": 1}, ModelError, "do not belong together"),
        ({"block_out_channels": [12]}, ModelError, "in the file"),
        ({"down_block_types": ["A"]}, ModelError, "describes no UNet2DModel"),
    ],
)
def test_config_that_does_not_fit_is_refused_by_name(tmp_path, folder, settings, error, match):
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **settings}))
    save_file(
        load_file(folder / "diffusion_pytorch_model.safetensors"), tmp_path / "diffusion_pytorch_model.safetensors"
    )
    with pytest.raises(error, match=match):
        load(source(tmp_path))


@pytest.mark.slow
def test_conditional_denoiser_of_a_whole_pipeline_takes_what_it_attends_to(tmp_path):
    settings = {**SETTINGS, "cross_attention_dim": 12, "attention_head_dim": 4}
    settings.update(down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",))
    model = diffusers.UNet2DConditionModel(**settings).eval()
    model.save_pretrained(tmp_path / "unet")
    (tmp_path / "model_index.json").write_text("{}")
    graph = load(source(tmp_path, input_shapes={"encoder_hidden_states": (5, 12)}))
    inputs = graph.samples(3)
    with torch.no_grad():
        assert torch.allclose(graph.module(*inputs), model(*inputs).sample, atol=1e-5)


def test_built_in_name_needs_no_network():
    with pytest.raises(ModelError, match="needs weights"):
        load(ModelSource("named", name="diffusers:ddpm-cifar10"))
    with pytest.raises(ModelError, match="known: diffusers:ddpm-cifar10"):
        load(ModelSource("named", name="diffusers:ddpm"))


@pytest.mark.slow
def test_built_in_denoiser_has_the_published_size():
    graph = load(ModelSource("named", name="diffusers:ddpm-cifar10", options={"random_weights": True}))
    assert sum(p.numel() for p in graph.module.parameters()) == 35_746_307
