"""`run.py`, as a process of its own that can import neither torch nor anything of ours."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.data.pixels import fit
from service.data.preprocessing import ResolvedPreprocessing
from service.delivery import runner, runners
from service.delivery.manifest import FILENAME, SCHEMA_VERSION, ImagePreprocessing
from tests.service.delivery.made import RECIPE, write_manifest

BANNED = ("torch", "service", "deploy", "compressors", "onnx", "pydantic", "google.protobuf")
# A module that is None cannot be imported.
START = f"import runpy, sys; sys.modules.update(dict.fromkeys({BANNED!r})); sys.argv = sys.argv[1:]; "
START += "runpy.run_path(sys.argv[0], run_name='__main__')"


def run(folder: Path, *arguments: str | Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-W", "error", "-c", START, folder / "run.py", *arguments, "--seconds", "0"]
    return subprocess.run(
        list(map(str, command)), check=False, capture_output=True, text=True, timeout=60, cwd=folder.parent, **changes
    )


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (20, 13)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def test_without_input_it_runs_on_random_values(delivered: Path) -> None:
    done = run(delivered, "--batch", "2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["input image: float32 (2, 3, 8, 8)", "output scores: float32 (2, 3)"]
    assert re.fullmatch(r"[\d.]+ ms a run \(median of 5\), batch 2, 1 thread\(s\)", lines[2])


def test_images_are_told_apart_by_name(delivered: Path, tmp_path: Path) -> None:
    images = [paint(tmp_path / "a.png", (0, 255, 0)), paint(tmp_path / "b.bmp", (0, 0, 255))]
    done = run(delivered, *images)
    assert done.returncode == 0, done.stderr
    best = [line.split()[-1] for line in done.stdout.splitlines() if re.match(r" +[-\d.]+  ", line)][::3]
    assert best == ["dog", "fish"]


def test_arrays_are_taken_as_they_are(delivered: Path, tmp_path: Path) -> None:
    values = np.zeros((1, 3, 8, 8), np.float32)
    values[:, 2] = 7
    np.save(tmp_path / "x.npy", values)
    np.savez(tmp_path / "x.npz", image=values)
    for given in (str(tmp_path / "x.npy"), f"image={tmp_path / 'x.npy'}", str(tmp_path / "x.npz")):
        done = run(delivered, given)
        assert "      7.0000  fish\n" in done.stdout, done.stderr


def test_openvino_runs_it_too(delivered: Path) -> None:
    done = run(delivered, "--runtime", "openvino")
    assert "output scores: float32 (1, 3)" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((1, 3, 9, 8), np.float32), r"input image wants shape \('batch', 3, 8, 8\), got \(1, 3, 9, 8\)"),
        (np.array([None]), "cannot be read as an image, .npy or .npz"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(delivered: Path, tmp_path: Path, content: Any, message: str) -> None:
    np.save(tmp_path / "x.npy", content, allow_pickle=True)
    done = run(delivered, tmp_path / "x.npy")
    assert done.returncode == 1
    assert re.match(f"run.py: .*{message}", done.stderr)


def test_a_runtime_that_is_missing_is_named(delivered: Path) -> None:
    start = START.replace("sys.argv = sys", "sys.modules['onnxruntime'] = None; sys.argv = sys")
    command = [sys.executable, "-I", "-c", start, str(delivered / "run.py")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "run.py: onnxruntime is not installed: pip install onnxruntime\n")


def test_a_model_that_was_changed_is_not_run(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    done = run(folder)
    assert done.returncode == 1
    assert done.stderr.startswith("run.py: model.onnx is not the file that manifest.json speaks of")


def test_a_manifest_that_names_files_elsewhere_is_not_followed(folder: Path) -> None:
    document = json.loads((folder / FILENAME).read_bytes())
    document["model"]["filename"] = document["files"][0]["filename"] = "../model.onnx"
    (folder / FILENAME).write_text(json.dumps(document))
    done = run(folder)
    assert done.returncode == 1
    assert "lists no file '../model.onnx' of this folder" in done.stderr


def test_hostile_names_are_printed_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    names = ('"); __import__("os").mkdir("owned") #', "\x1b[2J\nfake: 1.0", "{0.__class__} ${x} 'q'")
    write_manifest(folder, labels=names)
    done = run(folder, paint(tmp_path / "a.png", (255, 0, 0)))
    assert done.returncode == 0, done.stderr
    assert names[0] in done.stdout
    assert "?[2J?fake: 1.0" in done.stdout
    assert "\x1b" not in done.stdout
    assert not list(tmp_path.rglob("owned"))


def test_a_module_beside_it_is_not_taken_for_a_library(folder: Path) -> None:
    (folder / "numpy.py").write_text("raise SystemExit('hijacked')")
    (folder / "json.py").write_text("raise SystemExit('hijacked')")
    done = subprocess.run(
        [sys.executable, folder / "run.py", "--seconds", "0"], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 87, 3), dtype=np.uint8))
RECIPES = [
    ResolvedPreprocessing((3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ResolvedPreprocessing((3, 32, 24), (0.5,) * 3, (0.5,) * 3, crop_fraction=0.875, interpolation="bicubic"),
    ResolvedPreprocessing((3, 30, 20), (0.1,) * 3, (0.7,) * 3, resize=40, interpolation="nearest"),
    ResolvedPreprocessing((3, 30, 30), (0.1,) * 3, (0.7,) * 3, crop_fraction=0.9, squash=True),
    ResolvedPreprocessing((1, 61, 87), (0.449,), (0.226,)),
    ResolvedPreprocessing((1, 61, 87), (0.449,), (0.226,), crop_fraction=0.5, keep_exact=False),
]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16", "CMYK"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_images_are_prepared_as_the_service_prepares_them(recipe: ResolvedPreprocessing, mode: str) -> None:
    image = PHOTO.convert("L").convert("I;16") if mode == "I;16" else PHOTO.convert(mode)
    stated = ImagePreprocessing(
        input="x",
        color="L" if recipe.channels == 1 else "RGB",
        size=recipe.size,
        resize=recipe.resized,
        keep_proportions=not recipe.squash,
        keep_exact=recipe.keep_exact,
        interpolation=recipe.interpolation,
        antialias=True,
        mean=recipe.mean,
        std=recipe.std,
    )
    ours = recipe.finish(fit(image, recipe)[None].copy())[0].numpy()
    theirs = runner.prepare(image, json.loads(stated.model_dump_json()))
    assert theirs.dtype == np.float32
    np.testing.assert_array_equal(theirs, ours)


def test_what_is_no_image_to_the_model_is_refused(folder: Path, tmp_path: Path) -> None:
    image = paint(tmp_path / "a.png", (0, 0, 0))
    for kind in ("noised_image", "raw"):
        document = json.loads((folder / FILENAME).read_bytes())
        document["preprocessing"] = {**RECIPE, "kind": kind}
        (folder / FILENAME).write_text(json.dumps(document))
        done = run(folder, image)
        assert f"takes no images (preprocessing: {kind})" in done.stderr


def test_the_program_is_published() -> None:
    """Whoever changes it adds its hash: folders that were delivered with the old one stay as good as they were."""
    assert hashlib.sha256(runners.runner_bytes()).hexdigest() in runners.PUBLISHED[SCHEMA_VERSION]
