"""`run.py`, as a process of its own that can import neither torch nor anything of ours."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
from PIL import Image

from deploy.engines.metadata import metadata_path, write_metadata
from deploy.engines.place import engine_folder, private_folder
from deploy.engines.settings import choose_batches, choose_shapes, choose_workspace
from deploy.gpu import list_gpus
from deploy.runtimes import SessionSettings, find_runtime
from deploy.runtimes.onnxruntime_cuda import list_providers
from deploy.runtimes.onnxruntime_tensorrt import make_provider_options
from service.data.pixels import fit
from service.data.preprocessing import ResolvedPreprocessing
from service.delivery import runner, runners
from service.delivery.manifest import FILENAME, SCHEMA_VERSION, ImagePreprocessing
from tests.deploy.engines.test_metadata import CONTENT, METADATA
from tests.deploy.gpus import needs_cuda_provider, needs_gpu, needs_tensorrt
from tests.service.delivery.made import NOWHERE, RECIPE, claim, deliver, write_half, write_manifest, write_model

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
    assert re.fullmatch(r"[\d.]+ ms a run \(median of 5\), batch 2, 1 thread\(s\), onnxruntime on cpu", lines[2])


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
    assert "note: measured with onnxruntime on cpu (a processor), runs with openvino on cpu: " in done.stdout


HALVES = [("float16", "FP16"), ("bfloat16", "BF16")]


@pytest.mark.parametrize(("precision", "ability"), HALVES)
def test_openvino_computes_in_what_was_measured(tmp_path: Path, precision: str, ability: str) -> None:
    if ability not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip(f"this processor does not compute in {precision}")
    folder = claim(deliver(tmp_path / "out", partial(write_half, precision=precision)), "openvino", "local/cpu")
    values = np.random.default_rng(0).normal(0, 10, (1, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    (measured,) = find_runtime("openvino").load(folder / "model.onnx", SessionSettings()).bind([values])()  # type: ignore[misc]
    printed = [line.split()[0] for line in run(folder, tmp_path / "x.npy").stdout.splitlines() if line[:2] == "  "]
    assert printed == [f"{score:.4f}" for score in sorted(measured[0], reverse=True)]


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_openvino_is_compiled_for_its_inputs_in_the_precision_that_was_measured(tmp_path: Path, precision: str) -> None:
    path, core = tmp_path / "x.onnx", openvino.Core()
    write_model(path) if precision == "float32" else write_half(path, precision)
    compiled = runner.compile_openvino(core, setup(path), [np.zeros((2, 3, 8, 8), np.float32)])
    assert list(compiled.inputs[0].shape) == [2, 3, 8, 8]
    session: Any = find_runtime("openvino").load(path, SessionSettings())
    precisions = [each.get_property("INFERENCE_PRECISION_HINT") for each in (compiled, session._compiled)]
    assert precisions[0] == precisions[1]


def setup(path: Path, runtime: str = "onnxruntime", device: str = "cpu") -> runner.Setup:
    specs = [{"name": "image", "shape": ["batch", 3, 8, 8]}, {"name": "step", "shape": ["batch"]}]
    return runner.Setup(path, runtime, device, 1, 4, specs)


@pytest.mark.parametrize(
    ("runtime", "provider"),
    [
        ("onnxruntime", "CUDAExecutionProvider"),
        ("onnxruntime-tensorrt", "TensorrtExecutionProvider"),
        ("tensorrt", "TensorrtExecutionProvider"),
    ],
)
def test_a_gpu_that_is_not_here_is_told(folder: Path, runtime: str, provider: str) -> None:
    done = run(claim(folder, runtime, NOWHERE))
    assert done.returncode == 0, done.stderr
    reason = re.compile(rf"note: .*{provider}")
    assert any(map(reason.match, done.stdout.splitlines()))
    said = f"note: measured with {runtime} on cuda:99 (a processor), runs with onnxruntime on cpu: the time is not that"
    assert said in done.stdout
    assert done.stdout.splitlines()[-1].endswith("1 thread(s), onnxruntime on cpu")


@needs_gpu
@needs_cuda_provider
def test_a_gpu_that_is_here_is_taken(folder: Path) -> None:
    done = run(claim(folder, "onnxruntime", "local/cuda:0"))
    assert "note: " not in done.stdout
    assert done.stdout.splitlines()[-1].endswith("onnxruntime on cuda:0")


def test_the_processor_is_taken_where_it_is_asked_for(folder: Path) -> None:
    done = run(claim(folder, "onnxruntime", NOWHERE), "--device", "cpu")
    assert "Provider" not in done.stdout
    assert "runs with onnxruntime on cpu: the time is not that of the report" in done.stdout


def test_what_is_no_device_is_refused(delivered: Path) -> None:
    assert "'gpu' is no device; wanted cpu or cuda:N" in run(delivered, "--device", "gpu").stderr


def test_providers_get_the_options_that_were_measured(tmp_path: Path) -> None:
    measured = list_providers(SessionSettings(device="cuda:1"))
    places = list(runner.list_places(setup(tmp_path, "onnxruntime-tensorrt", "cuda:1"), 2))
    assert [place for place, _ in places] == [
        "onnxruntime-tensorrt on cuda:1",
        "onnxruntime on cuda:1",
        "onnxruntime on cpu",
    ]
    tensorrt, cuda, _ = places[0][1]
    assert places[1][1][0] == cuda == measured[0]
    open_shapes = {"image": (-1, 3, 8, 8), "step": (-1,)}
    shapes = {name: choose_shapes(name, shape, choose_batches(4)) for name, shape in open_shapes.items()}
    every = make_provider_options(1, tmp_path, 0, shapes)  # type: ignore[arg-type]
    kept = {name: value for name, value in every.items() if "cache" not in name and "workspace" not in name}
    assert tensorrt == ("TensorrtExecutionProvider", kept)


def test_a_larger_batch_than_was_measured_fits_the_engine(tmp_path: Path) -> None:
    shapes = runner.engine_shapes(setup(tmp_path), 32)
    assert shapes["trt_profile_max_shapes"] == "image:32x3x8x8,step:32"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's key to engines lies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return engine_folder()


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `run.py` takes itself to be in."""
    monkeypatch.setattr(runner, "HERE", tmp_path)
    return tmp_path


def here(**changes: Any) -> runner.Here:
    known = runner.Here(METADATA.tensorrt, METADATA.gpu, METADATA.compute_capability, (13, 0))
    return replace(known, **changes)


def shipped(folder: Path, key: Path, **changes: Any) -> runner.Setup:
    """A model with the engine that was delivered with it, sealed with a key."""
    engine = folder / "model.engine"
    engine.write_bytes(CONTENT)
    write_metadata(engine, METADATA, key)
    return replace(setup(folder, "tensorrt", "cuda:0"), sha256=METADATA.onnx_sha256, engine=engine, **changes)


def against(settings: runner.Setup, there: runner.Here, batch: int = 1) -> str:
    assert settings.engine is not None
    return "; ".join(runner.objections(settings, settings.engine, there, batch))


def test_an_engine_that_this_user_built_for_this_gpu_is_taken(tmp_path: Path, cache: Path) -> None:
    assert against(shipped(tmp_path, cache), here()) == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": "10.7.0"}, "it was built by TensorRT 10.3.0, here is 10.7.0"),
        ({"gpu": "Orin"}, "it was built for 'NVIDIA L4', here is 'Orin'"),
        ({"capability": "8.7"}, "it was built for another compute capability"),
        ({"cuda": (12, 2)}, "it was built under CUDA 12.6, and the driver here is older"),
    ],
)
def test_an_engine_that_does_not_fit_is_not_taken(
    tmp_path: Path, cache: Path, changes: dict[str, Any], why: str
) -> None:
    assert against(shipped(tmp_path, cache, trust=True), here(**changes)) == why


def test_an_engine_takes_the_batches_that_it_was_built_for(tmp_path: Path, cache: Path) -> None:
    assert against(shipped(tmp_path, cache), here(), batch=9) == "it does not take batches of 9"


def test_an_engine_of_another_model_is_not_taken(tmp_path: Path, cache: Path) -> None:
    other = replace(shipped(tmp_path, cache), sha256="b" * 64)
    assert against(other, here()) == "it was built of another model"


def test_an_engine_of_another_user_is_taken_only_where_it_is_trusted(tmp_path: Path, cache: Path) -> None:
    foreign = shipped(tmp_path, private_folder(tmp_path / "elsewhere"))
    assert against(foreign, here()) == (
        "another user or machine built it, and engines are programs; see --trust-engine"
    )
    assert against(replace(foreign, trust=True), here()) == ""


def test_an_engine_that_was_changed_is_not_taken_even_where_it_is_trusted(tmp_path: Path, cache: Path) -> None:
    settings = shipped(tmp_path, cache, trust=True)
    (tmp_path / "model.engine").write_bytes(CONTENT + b"!")
    assert against(settings, here()) == "it was changed"


@pytest.mark.parametrize("content", ["", "[]", '{"engine": {}, "seal": 1}', "[" * 100_000])
def test_metadata_that_cannot_be_read_are_no_reason_to_load(tmp_path: Path, cache: Path, content: str) -> None:
    settings = shipped(tmp_path, cache, trust=True)
    metadata_path(tmp_path / "model.engine").write_text(content)
    assert against(settings, here()).startswith("what is known of it cannot be read: ")


def keep(facts: list[Any]) -> Path:
    """Keeps an engine as `run.py` does, and returns its folder."""
    kept = runner.find_kept(facts)
    assert kept.folder is not None
    (kept.folder / "engine").write_bytes(CONTENT)
    kept.seal()
    return kept.folder


def test_an_engine_that_was_kept_is_found_again(beside: Path, cache: Path) -> None:
    folder = keep(["a"])
    assert runner.find_kept(["a"]) == runner.Kept(folder, whole=True)
    assert not runner.find_kept(["b"]).whole


@pytest.mark.parametrize("spoil", ["changed", "added", "a link", "moved", "another key"])
def test_what_this_user_did_not_keep_is_thrown_away(spoil: str, beside: Path, cache: Path) -> None:
    folder = keep(["a"])
    match spoil:
        case "changed":
            (folder / "engine").write_bytes(b"another engine")
        case "added":
            (folder / "timing.cache").write_bytes(b"more")
        case "a link":
            (folder / "engine").rename(beside / "outside")
            (folder / "engine").symlink_to(beside / "outside")
        case "moved":
            other = keep(["b"])
            shutil.rmtree(folder)
            other.rename(folder)
        case _:
            (cache / "key").write_bytes(b"k" * 32)
    kept = runner.find_kept(["a"])
    assert kept == runner.Kept(folder, whole=False)
    assert not list(folder.iterdir())


def test_a_link_in_place_of_the_folder_is_not_followed(beside: Path, cache: Path) -> None:
    (beside / "elsewhere").mkdir()
    (beside / "engines").symlink_to(beside / "elsewhere")
    keep(["a"])
    assert not (beside / "engines").is_symlink()
    assert not list((beside / "elsewhere").iterdir())


def test_a_folder_that_cannot_be_written_is_said(beside: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (beside / "engines").write_text("no folder")
    assert runner.find_kept(["a"]) == runner.Kept(None)
    assert capsys.readouterr().out.startswith(f"note: engines cannot be kept in {beside / 'engines'} and are built at")


def test_a_key_where_others_may_write_is_not_used(
    beside: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.chmod(0o777)
    assert runner.find_kept(["a"]) == runner.Kept(None)
    assert "others may write" in capsys.readouterr().out


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("free", [0, 3 << 30, (3 << 30) + 12345, 40 << 30])
def test_kernels_get_the_memory_that_was_measured_with(free: int, shared: bool) -> None:
    assert runner.choose_workspace(free, shared) == choose_workspace(free, shared)


def test_a_driver_that_is_not_here_is_named() -> None:
    if list_gpus():
        pytest.skip("there is a GPU here")
    with pytest.raises(runner.GpuError, match=r"libcuda\.so\.1|the driver of NVIDIA's GPUs says"):
        runner.Gpu("cuda:0")


def test_a_delivered_engine_that_was_changed_is_not_run(folder: Path, cache: Path) -> None:
    shipped(folder, cache)
    write_manifest(folder)
    document = json.loads((folder / FILENAME).read_bytes())
    document["engines"] = [{"filename": "model.engine", "onnx_sha256": "a" * 64, "runtime": "tensorrt 10.3.0"}]
    (folder / FILENAME).write_text(json.dumps(document))
    (folder / "model.engine").write_bytes(b"another")
    assert run(folder).stderr.startswith("run.py: model.engine is not the file that manifest.json speaks of")


@needs_gpu
@needs_tensorrt
def test_an_engine_is_built_once_and_kept(folder: Path) -> None:
    first, second = (run(claim(folder, "tensorrt", "local/cuda:0")) for _ in range(2))
    assert "building an engine" in first.stdout
    assert "building an engine" not in second.stdout
    assert second.stdout.splitlines()[-1].endswith("tensorrt on cuda:0")


def test_inputs_lie_on_the_device_before_a_run(tmp_path: Path) -> None:
    """On the processor: there is no GPU to try it on, and ONNX Runtime binds to both in the same way."""
    session = onnxruntime.InferenceSession(write_model(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    values = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    model = runner.bind_on_device(onnxruntime, session, {"image": values}, "onnxruntime on cpu")
    (found,) = model.read(model.run())
    np.testing.assert_array_equal(found, session.run(None, {"image": values})[0])


def test_a_model_that_onnx_runtime_cannot_run_is_told(tmp_path: Path) -> None:
    done = run(deliver(tmp_path / "out", partial(write_half, precision="bfloat16")))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("run.py: ONNX Runtime cannot run model.onnx with CPUExecutionProvider: ")


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
    wanted = "onnxruntime is not installed: pip install onnxruntime, or onnxruntime-gpu for a GPU"
    assert (done.returncode, done.stderr) == (1, f"run.py: {wanted}\n")


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
