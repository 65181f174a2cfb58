"""Samples of a job: one recipe for every split and every use, and a tokenizer from wherever the model comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressors.batches import fetch
from compressors.graph import Graph, TensorSpec
from service.data import DataError, ResolvedPreprocessing, TokenRecipe
from service.pipeline.inputs import Model, Samples, load_samples
from service.spec import Budget, DataReference, DataSplit, JobSpec, ModelSource, Preprocessing
from service.worker.messages import WorkOrder
from tests.service.data.made import pixels, png, token_inputs, write_folders, write_tokenizer, zip_of

MODEL, DATA, OTHER = "artifacts/model-1", "artifacts/data-1", "artifacts/data-2"


def order(tmp_path: Path, files: dict[str, Path], preprocessing: Preprocessing | None = None, **data: Any) -> WorkOrder:
    reference = DataReference(train=DataSplit(artifact=DATA), validation=DataSplit(artifact=OTHER), **data)
    spec = JobSpec(
        model=ModelSource(folder_artifact=MODEL),
        budget=Budget(fraction=0.5),
        data=reference,
        preprocessing=preprocessing or Preprocessing(),
    )
    folder = tmp_path / "job"
    folder.mkdir()
    return WorkOrder(
        job="optimizationJobs/a",
        task="optimize",
        spec=spec,
        files=files,
        folder=folder,
        cache_folder=tmp_path,
        deadline_seconds=60,
    )


def model(*inputs: TensorSpec, **config: Any) -> Model:
    graph = Graph(torch.fx.symbolic_trace(nn.Identity()), inputs, (TensorSpec("logits", (2,)),), "net")
    return Model(graph, config, "a folder of a model", None)


def images(tmp_path: Path, preprocessing: Preprocessing | None = None, **config: Any) -> Samples:
    """Returns the samples of a job whose splits hold the same images in different formats."""
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
    for index in range(20):
        (tmp_path / "d" / "ab"[index % 2] / f"{index}.png").write_bytes(png(pixels(index, 20, 30)))
    with (tmp_path / "x.npz").open("wb") as out:
        np.savez(out, images=np.stack([pixels(i, 20, 30) for i in range(20)]), labels=np.arange(20) % 2)
    job = order(tmp_path, {MODEL: tmp_path, DATA: tmp_path / "d", OTHER: tmp_path / "x.npz"}, preprocessing)
    return load_samples(job, model(TensorSpec("x", (3, 8, 8)), **config), outputs=2)


def normalised(samples: Samples) -> ResolvedPreprocessing:
    recipe = samples.parts.fit.preprocessing
    assert isinstance(recipe, ResolvedPreprocessing)
    return recipe


def test_one_recipe_serves_training_calibration_choices_and_evaluation(tmp_path: Path):
    samples = images(tmp_path, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), crop_pct=0.9, interpolation="bicubic")
    assert samples.validation is not None
    recipes = [samples.parts.fit, samples.parts.selection, samples.parts.calibration, samples.validation]
    assert len({id(split.preprocessing) for split in recipes}) == 1
    assert (normalised(samples).mean, normalised(samples).crop_fraction) == ((0.1, 0.2, 0.3), 0.9)


def test_an_image_becomes_the_same_input_in_every_use(tmp_path: Path):
    samples = images(tmp_path, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    assert samples.validation is not None
    evaluated = np.concatenate([inputs[0] for inputs, _ in samples.validation.numpy_batches(7)])
    known = {values.tobytes() for values in evaluated}
    assert len(known) == 20
    for split in (samples.parts.fit, samples.parts.selection, samples.parts.calibration):
        found = fetch(split, range(len(split))).inputs[0].numpy()
        assert {values.tobytes() for values in found} <= known


def test_the_job_s_own_fields_win_over_the_model_s_configuration(tmp_path: Path):
    asked = Preprocessing(mean=(0.4,), std=(0.9,), interpolation="nearest")
    recipe = normalised(images(tmp_path, asked, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), crop_pct=0.9))
    assert (recipe.mean, recipe.std, recipe.interpolation) == ((0.4,) * 3, (0.9,) * 3, "nearest")
    assert recipe.crop_fraction == 0.9


def texts(tmp_path: Path, folder: Path, **data: Any) -> Samples:
    rows = [f"{'good' if index % 2 else 'bad'} film,{index % 2}" for index in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]))
    lines = [json.dumps({"text": "good film", "label": 1}), json.dumps({"text": "bad film", "label": 0})]
    (tmp_path / "v.jsonl").write_text("\n".join(lines))
    files = {MODEL: folder, DATA: tmp_path / "t.csv", OTHER: tmp_path / "v.jsonl"}
    return load_samples(order(tmp_path, files, **data), model(*token_inputs()), outputs=2)


@pytest.mark.parametrize("packed", [False, True])
def test_texts_are_tokenised_with_the_tokenizer_in_the_model_s_folder(tmp_path: Path, packed: bool):
    folder = write_tokenizer(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"not read")
    samples = texts(tmp_path, zip_of(folder, tmp_path / "m.zip") if packed else folder)
    assert samples.validation is not None
    recipe = samples.parts.fit.preprocessing
    assert isinstance(recipe, TokenRecipe)
    assert recipe is samples.validation.preprocessing
    ids, mask, segments = samples.validation.batch([0, 1])[0]
    assert ids.tolist() == [[2, 4, 6, 3, 0, 0], [2, 5, 6, 3, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 1, 0, 0]] * 2
    assert segments.tolist() == [[0] * 6] * 2
    assert {tuple(row) for row in samples.parts.fit.batch(range(16))[0][0].tolist()} == set(map(tuple, ids.tolist()))


def test_texts_for_a_model_without_a_tokenizer_are_refused(tmp_path: Path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    with pytest.raises(DataError, match="there is no tokenizer for them"):
        texts(tmp_path, tmp_path / "m")


def test_columns_of_the_request_are_those_that_are_read(tmp_path: Path):
    with pytest.raises(DataError, match=r"t\.csv has no column 'words': found text, label"):
        texts(tmp_path, write_tokenizer(tmp_path / "m"), text_columns=("words",))


def test_lists_of_classes_become_vectors_over_the_model_s_outputs(tmp_path: Path):
    rows = [{"text": "good film", "label": [index % 2]} for index in range(20)]
    for name in ("t.jsonl", "v.jsonl"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    folder = write_tokenizer(tmp_path / "m")
    job = order(tmp_path, {MODEL: folder, DATA: tmp_path / "t.jsonl", OTHER: tmp_path / "v.jsonl"})
    samples = load_samples(job, model(*token_inputs()), outputs=5)
    batch = fetch(samples.parts.fit, [0, 1, 2])
    assert (batch.labels.dtype, tuple(batch.labels.shape)) == (torch.float32, (3, 5))
    assert samples.parts.fit.labelled


def test_one_archive_serves_both_splits(tmp_path: Path):
    write_folders(tmp_path / "d" / "train", {"a": 10, "b": 10})
    write_folders(tmp_path / "d" / "val", {"a": 3, "b": 3})
    archive = zip_of(tmp_path / "d", tmp_path / "blob")
    job = order(tmp_path, {MODEL: tmp_path, DATA: archive, OTHER: archive})
    samples = load_samples(job, model(TensorSpec("x", (3, 8, 8))), outputs=2)
    assert samples.validation is not None
    assert (samples.total, len(samples.validation)) == (20, 6)


DENOISER = (TensorSpec("sample", (3, 8, 8)), TensorSpec("timestep", (), torch.int64, 0, 1000))


def denoised(tmp_path: Path, files: dict[str, Path], *inputs: TensorSpec) -> Samples:
    return load_samples(order(tmp_path, files), model(*(inputs or DENOISER)), outputs=None)


def test_images_for_a_denoiser_get_noise_and_timesteps_in_every_use(tmp_path: Path):
    write_folders(tmp_path / "d", {"a": 12, "b": 12})
    samples = denoised(tmp_path, {MODEL: tmp_path, DATA: tmp_path / "d", OTHER: tmp_path / "d"})
    recipe = normalised(samples)
    assert (recipe.mean, recipe.std) == ((0.5,) * 3, (0.5,) * 3)
    feeds = samples.feeds
    assert feeds.validation is not None
    for feed in (feeds.fit, feeds.selection, feeds.calibration, feeds.validation):
        batch = fetch(feed, [0, 1])
        assert [tuple(values.shape) for values in batch.inputs] == [(2, 3, 8, 8), (2,)]
        assert batch.labels.shape == batch.inputs[0].shape


def test_a_denoiser_s_further_inputs_come_from_arrays_and_timesteps_are_put_in(tmp_path: Path):
    with (tmp_path / "x.npz").open("wb") as out:
        np.savez(out, sample=np.zeros((20, 3, 8, 8), np.float32), encoder_hidden_states=np.ones((20, 7, 4), np.float32))
    files = {MODEL: tmp_path, DATA: tmp_path / "x.npz", OTHER: tmp_path / "x.npz"}
    samples = denoised(tmp_path, files, *DENOISER, TensorSpec("encoder_hidden_states", (7, 4)))
    assert [tuple(each.shape) for each in fetch(samples.feeds.fit, [0]).inputs] == [(1, 3, 8, 8), (1,), (1, 7, 4)]


def test_ready_inputs_with_timesteps_are_taken_as_they_are(tmp_path: Path):
    with (tmp_path / "x.npz").open("wb") as out:
        np.savez(out, sample=np.ones((20, 3, 8, 8), np.float32), timestep=np.full(20, 7))
    samples = denoised(tmp_path, {MODEL: tmp_path, DATA: tmp_path / "x.npz", OTHER: tmp_path / "x.npz"})
    batch = fetch(samples.feeds.fit, [0, 1])
    assert batch.inputs[1].tolist() == [7, 7]
    assert batch.labels.tolist() == [-1, -1]


def test_labels_are_not_looked_at_where_they_mean_nothing(tmp_path: Path):
    write_folders(tmp_path / "d", {"a": 6, "b": 6, "c": 6})
    job = order(tmp_path, {MODEL: tmp_path, DATA: tmp_path / "d", OTHER: tmp_path / "d"})
    three_classes_for_two_outputs = load_samples(job, model(TensorSpec("x", (3, 8, 8))), outputs=None)
    assert three_classes_for_two_outputs.total == 18
