"""Models of the transformers library; tiny configs, saved as the library saves them."""

import json
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save, save_file

from compressors.analysis import analyse
from compressors.errors import ModelError, OptionError, UnsafeModelError, UnsupportedModelError
from compressors.sources import ModelSource, load, preprocessing
from compressors.sources.weights import read_weights

TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 50}
IMAGE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32}


def bert(**changes):
    return transformers.BertForSequenceClassification(transformers.BertConfig(**{**TEXT, **changes}))


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=20, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def vit():
    return transformers.ViTForImageClassification(transformers.ViTConfig(**IMAGE, patch_size=8, num_labels=3))


def swin():
    config = transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4, num_labels=3
    )
    return transformers.SwinForImageClassification(config)


MODELS = {
    "bert": bert,
    "roberta": lambda: transformers.RobertaForSequenceClassification(
        transformers.RobertaConfig(**TEXT, type_vocab_size=1, bos_token_id=0, pad_token_id=1, eos_token_id=2)
    ),
    "distilbert": lambda: transformers.DistilBertForMaskedLM(
        transformers.DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64, vocab_size=50)
    ),
    "gpt2": gpt2,
    "vit": vit,
    "swin": swin,
    "convnext": lambda: transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 1], num_stages=2, image_size=32, num_labels=3)
    ),
    "mobilenet_v2": lambda: transformers.MobileNetV2ForImageClassification(
        transformers.MobileNetV2Config(depth_multiplier=0.25, image_size=32, num_labels=3)
    ),
    "deit": lambda: transformers.DeiTForImageClassification(
        transformers.DeiTConfig(**IMAGE, patch_size=8, num_labels=3)
    ),
    "wav2vec2": lambda: transformers.Wav2Vec2ForCTC(
        transformers.Wav2Vec2Config(
            **{**TEXT, "vocab_size": 32},
            conv_dim=(16, 16),
            conv_stride=(5, 2),
            conv_kernel=(10, 3),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
        )
    ),
}
SLOW = {"distilbert", "deit", "mobilenet_v2", "wav2vec2", "roberta"}
SHAPES = {"gpt2": (12,), "wav2vec2": (400,)}


def saved(model, folder, **options):
    """Saves with weights that show mistakes: norms and biases are not at their first values."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.eval().save_pretrained(folder, **options)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("models") / "bert"
    torch.manual_seed(0)
    saved(bert(), place)
    return place


def source(path, **changes):
    return ModelSource("folder", path=path, **changes)


def copied(folder, place, **settings):
    """Copies a model folder with changed settings."""
    place.mkdir()
    for item in folder.iterdir():
        (place / item.name).write_bytes(item.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, **settings}))
    return place


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in MODELS])
def test_saved_model_loads_and_computes_the_same(tmp_path, name):
    model = saved(MODELS[name](), tmp_path / name)
    graph = load(source(tmp_path / name, sample_shape=SHAPES.get(name)))
    inputs = graph.samples(3)
    with torch.no_grad():
        wanted = model(**dict(zip((s.name for s in graph.inputs), inputs, strict=True))).to_tuple()
        got = graph.module(*inputs)
    for left, right in zip(wanted, got if isinstance(got, tuple) else (got,), strict=False):
        assert float((left - right).abs().max() / left.abs().max()) <= 1e-6
    assert graph.outputs[0].name == "logits"
    assert analyse(graph).sites


def test_text_model_takes_ids_mask_and_segments_with_their_ranges(folder):
    graph = load(source(folder))
    assert [(s.name, s.shape, s.dtype, s.low, s.high) for s in graph.inputs] == [
        ("input_ids", (128,), torch.int64, 0, 50),
        ("attention_mask", (128,), torch.int64, 1, 2),
        ("token_type_ids", (128,), torch.int64, 0, 2),
    ]
    ids, mask, _ = graph.samples(2)
    assert int(ids.max()) > 10
    assert bool((mask == 1).all())


def test_masked_tokens_do_not_count(folder):
    graph = load(source(folder, sample_shape=(16,)))
    ids, mask, segments = graph.samples(1)
    mask[:, 10:] = 0
    other = ids.clone()
    other[:, 10:] = 7
    with torch.no_grad():
        assert torch.allclose(graph.module(ids, mask, segments), graph.module(other, mask, segments), atol=1e-6)


def test_lengths_come_from_the_user_by_name(folder):
    shapes = {"input_ids": (9,), "attention_mask": (9,), "token_type_ids": (9,)}
    assert {s.shape for s in load(source(folder, input_shapes=shapes)).inputs} == {(9,)}
    assert {s.shape for s in load(source(folder, input_shapes={"input_ids": (7,)})).inputs} == {(7,)}
    with pytest.raises(OptionError, match="no input 'pixels'"):
        load(source(folder, input_shapes={"pixels": (3,)}))


def test_length_is_never_more_than_the_model_has_positions(tmp_path):
    saved(bert(max_position_embeddings=24), tmp_path / "m")
    assert load(source(tmp_path / "m")).inputs[0].shape == (24,)


@pytest.mark.parametrize("form", ["sharded", "bin", "bin-sharded", "zip", "tar"])
def test_every_way_of_saving_holds_the_same_weights(tmp_path, folder, form):
    state = load_file(folder / "model.safetensors")
    place = copied(folder, tmp_path / "m")
    if form not in {"zip", "tar"}:
        (place / "model.safetensors").unlink()
    if form in {"sharded", "bin-sharded"}:
        write_shards(place, state, "safetensors" if form == "sharded" else "bin")
    elif form == "bin":
        torch.save(state, place / "pytorch_model.bin")
    elif form == "zip":
        with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
            for item in place.iterdir():
                archive.write(item, f"bert/{item.name}")
        place = tmp_path / "m.zip"
    elif form == "tar":
        with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as archive:
            archive.add(place, "bert")
        place = tmp_path / "m.tar.gz"
    found = read_weights(place)
    assert set(found) == set(state)
    assert all(torch.equal(found[key], value) for key, value in state.items())


def test_zipped_folder_with_half_precision_weights_is_a_model_in_single_precision(tmp_path, folder):
    state = load_file(folder / "model.safetensors")
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.write(folder / "config.json", "bert/config.json")
        archive.writestr("bert/model.safetensors", save({k: v.half() for k, v in state.items()}))
    graph = load(source(tmp_path / "m.zip", sample_shape=(8,)))
    weight = graph.module.get_submodule("classifier").weight
    assert torch.equal(weight, state["classifier.weight"].half().float())


def write_shards(place, state, suffix):
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = sorted(state)
    parts = {f"{stem}-0000{i + 1}-of-00002.{suffix}": names[i::2] for i in range(2)}
    for file, keys in parts.items():
        part = {key: state[key] for key in keys}
        save_file(part, place / file) if suffix == "safetensors" else torch.save(part, place / file)
    index = {"metadata": {}, "weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (place / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def test_embedding_tied_to_the_head_stays_tied(tmp_path):
    saved(gpt2(), tmp_path / "m")
    assert "lm_head.weight" not in load_file(tmp_path / "m" / "model.safetensors")
    graph = load(source(tmp_path / "m"))
    (lookup,) = (node for node in graph.module.graph.nodes if str(node.target) == "aten.embedding.default")
    assert get_attribute(graph.module, lookup.args[0].target) is graph.module.lm_head.weight


def get_attribute(module, name):
    owner, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(owner), leaf)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, UnsafeModelError, "auto_map"),
        ({"text_config": {"auto_map": {"AutoConfig": "evil.Config"}}}, UnsafeModelError, "auto_map"),
        ({"quantization_config": {"bits": 4}}, UnsupportedModelError, "quantised"),
        ({"model_type": "nonsense"}, UnsupportedModelError, "'nonsense'"),
        ({"model_type": "timm_wrapper"}, UnsupportedModelError, "timm:NAME"),
        ({"architectures": ["EvilModel"]}, UnsupportedModelError, "EvilModel"),
        ({"architectures": ["GPT2LMHeadModel"]}, ModelError, "'bert' model"),
        ({"architectures": ["AutoModel"]}, UnsupportedModelError, "AutoModel"),
        ({"hidden_size": 10**5, "num_attention_heads": 1}, ModelError, "do not belong together"),
        ({"vocab_size": 10**9}, ModelError, "do not belong together"),
        ({"num_hidden_layers": 10**7}, ModelError, "no model has"),
        ({"hidden_size": 10**12}, ModelError, "no model has"),
        ({"hidden_size": "wide"}, ModelError, "describes no"),
        ({"num_hidden_layers": 2}, ModelError, "missing.*encoder.layer.1"),
        ({"num_hidden_layers": 0}, ModelError, "unexpected.*encoder.layer.0"),
        ({"id2label": {str(i): str(i) for i in range(5)}, "label2id": {}}, ModelError, "classifier.*num_classes"),
    ],
)  # fmt: skip
def test_config_that_asks_for_more_than_data_is_refused_by_name(tmp_path, folder, settings, error, match):
    with pytest.raises(error, match=match):
        load(source(copied(folder, tmp_path / "m", **settings)))


def test_settings_that_only_say_how_it_ran_are_dropped(tmp_path, folder):
    settings = {
        "_attn_implementation": "evil/kernels",
        "dtype": "float16",
        "use_cache": True,
        "output_attentions": True,
    }
    graph = load(source(copied(folder, tmp_path / "m", **settings), sample_shape=(8,)))
    assert [spec.name for spec in graph.outputs] == ["logits"]
    assert graph.outputs[0].dtype is torch.float32


def test_index_that_points_outside_is_refused(tmp_path, folder):
    place = copied(folder, tmp_path / "m")
    (place / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsafeModelError, match="is not a shard beside it"):
        load(source(place))


def test_link_that_leaves_the_folder_is_refused(tmp_path, folder):
    place = copied(folder, tmp_path / "m")
    (place / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (place / "model.safetensors").symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(UnsafeModelError, match="link"):
        load(source(place))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickle_in_place_of_weights_is_not_run(tmp_path, folder):
    place = copied(folder, tmp_path / "m")
    (place / "model.safetensors").unlink()
    torch.save({"a": Evil(tmp_path / "proof")}, place / "pytorch_model.bin")
    with pytest.raises(UnsafeModelError, match="more than tensors"):
        load(source(place))
    assert not (tmp_path / "proof").exists()


def test_task_picks_the_head(folder):
    graph = load(source(folder, sample_shape=(8,), options={"task": "feature-extraction", "random_weights": True}))
    assert [spec.name for spec in graph.outputs] == ["last_hidden_state", "pooler_output"]
    with pytest.raises(OptionError, match="no head for 'image-classification'"):
        load(source(folder, options={"task": "image-classification"}))


def test_type_by_name_is_the_default_config():
    graph = load(ModelSource("named", name="transformers:bert", sample_shape=(8,), options={"random_weights": True}))
    analysis = analyse(graph)
    assert sum(value.numel() for value in graph.module.state_dict().values()) > 109_000_000
    assert len(analysis.sites) == 13
    assert [spec.name for spec in graph.inputs] == ["input_ids", "attention_mask", "token_type_ids"]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("transformers:brt", "did you mean transformers:bert"),
        ("transformers:bert", "needs weights"),
        ("transformers:../../etc", "no model type"),
        ("transformers:someone/model", "cannot be downloaded.*folder"),
    ],
)
def test_name_that_cannot_be_had_says_why(monkeypatch, name, match):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=match):
        load(ModelSource("named", name=name))


@pytest.mark.parametrize(
    ("package", "name"),
    [("transformers.models.auto", "transformers:bert"), ("diffusers", "diffusers:ddpm-cifar10")],
)
def test_missing_library_names_the_extra(monkeypatch, package, name):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=r"shoal\[huggingface\]"):
        load(ModelSource("named", name=name, options={"random_weights": True}))


def test_preprocessing_comes_from_the_folder(tmp_path):
    vit().save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    found = preprocessing(source(tmp_path))
    assert found["mean"] == (0.5, 0.5, 0.5)
    assert found["input_size"] == (3, 32, 32)
    assert found["interpolation"] == "bilinear"


def test_folder_without_config_says_what_a_folder_holds(tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises(ModelError, match="beside its weights"):
        load(source(tmp_path / "m"))
    with pytest.raises(ModelError, match="no such file or folder"):
        load(source(tmp_path / "n"))
    with pytest.raises(OptionError, match="path"):
        load(ModelSource("folder"))


def test_damaged_archive_is_refused(tmp_path):
    (tmp_path / "m.zip").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ModelError, match="damaged"):
        load(source(tmp_path / "m.zip"))
