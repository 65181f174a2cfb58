"""Runs the model in this folder. Needs Python 3.10, numpy and the model's runtime; nothing of Shoal.

    python run.py                        random input: the shapes of the outputs, and the time of a run
    python run.py cat.jpg dog.png        images, prepared as they were when the model was measured (needs Pillow)
    python run.py input.npy              ready input of a model with one input, batch first
    python run.py ids=a.npy mask=b.npy   the same of several inputs, by name; or one .npz with all of them

It runs with the runtime, device and options that the model was measured with. Where those are not here, it says what
it runs with instead, and why.

Whatever is particular to the model (names, shapes, classes, preprocessing) is read from manifest.json, as data.
"""

from __future__ import annotations

import os
import sys

_BESIDE = os.path.dirname(os.path.abspath(__file__))
if __name__ == "__main__" and sys.path[:1] == [_BESIDE]:
    del sys.path[0]  # A numpy.py that somebody put beside this file must not be taken for the library.

import argparse
import hashlib
import json
import math
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

HERE = Path(_BESIDE)
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
TOP = 5
HALF = {"f16": "FP16", "bf16": "BF16"}  # Formats, and what OpenVINO calls the ability to compute in them.
TENSORRT, CUDA, PROCESSOR = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
LEAST_LARGEST_BATCH = 8  # Of TensorRT's engines, as when it was measured.


@dataclass(frozen=True)
class Setup:
    """What is opened, and how.

    Attributes:
        path: The model's file.
        runtime: One of `RUNTIMES`.
        device: `cpu` or `cuda:N`.
        threads: Inside one operator.
        batch: That a runtime that compiles for one is to be fast at.
        inputs: What the model takes, as in the manifest.
    """

    path: Path
    runtime: str
    device: str
    threads: int
    batch: int
    inputs: list[dict[str, Any]]


@dataclass(frozen=True)
class Model:
    """A model with its inputs in place.

    Attributes:
        place: What runs it, such as `onnxruntime on cpu`.
        run: Runs it once, and returns when the outputs are complete: what is timed.
        read: Returns the outputs, given what `run` returned.
    """

    place: str
    run: Callable[[], Any]
    read: Callable[[Any], list[np.ndarray]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the model as the command line says."""
    manifest = read_manifest(HERE / "manifest.json")
    options = parse(arguments, manifest)
    path = HERE / check_file(manifest, manifest["model"]["filename"])
    for name in manifest["model"].get("weights", []):
        check_file(manifest, name)
    specs = manifest["model"]["inputs"]
    inputs = take_inputs(options, manifest)
    setup = Setup(path, options.runtime, options.device, options.threads, int(manifest["budget"]["batch"]), specs)
    model = RUNTIMES[setup.runtime](setup, inputs)
    outputs = model.read(model.run())
    for spec, values in zip(specs, inputs, strict=True):
        say(f"input {spec['name']}: {values.dtype} {values.shape}")
    for spec, values in zip(manifest["model"]["outputs"], outputs, strict=True):
        say(f"output {spec['name']}: {values.dtype} {values.shape}")
    tell_place(manifest, model.place)
    seconds, runs = measure(model.run, options.seconds)
    how = f"median of {runs}), batch {len(inputs[0])}, {options.threads} thread(s)"
    say(f"{1e3 * seconds:.3f} ms a run ({how}, {model.place}")
    if options.inputs:
        tell_classes(manifest, options.inputs, outputs)
    return 0


def parse(arguments: Sequence[str] | None, manifest: dict[str, Any]) -> argparse.Namespace:
    """Returns what the command line says."""
    runtime = manifest["runtime"]
    lines = (__doc__ or "").strip().splitlines()
    parser = argparse.ArgumentParser(
        description=lines[0], epilog="\n".join(lines[1:]), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", nargs="*", help="images, .npy files, NAME=FILE.npy, or one .npz; random without")
    parser.add_argument("--batch", type=int, default=1, help="samples of random input")
    parser.add_argument("--threads", type=int, default=int(runtime["threads"]), help="default: %(default)s")
    nearest = {"tensorrt": "onnxruntime-tensorrt"}.get(runtime["name"], runtime["name"])
    known = nearest if nearest in RUNTIMES else "onnxruntime"
    parser.add_argument("--runtime", choices=sorted(RUNTIMES), default=known, help="default: %(default)s")
    device = measured_device(manifest)
    parser.add_argument("--device", type=device_name, default=device, help="cpu or cuda:N; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long to time it, about")
    return parser.parse_args(arguments)


def measured_device(manifest: dict[str, Any]) -> str:
    """Returns the device that the model was measured on, as its own machine calls it: `cpu` or `cuda:N`."""
    name = str(manifest["device"]["name"]).rpartition("/")[2]
    return name if re.fullmatch("cuda:[0-9]+", name) else "cpu"


def device_name(text: str) -> str:
    """Returns a device's name; raises `ArgumentTypeError` where it is none."""
    if not re.fullmatch("cpu|cuda:[0-9]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no device; wanted cpu or cuda:N, such as cuda:0")
    return text


def tell_place(manifest: dict[str, Any], place: str) -> None:
    """Says so where the model runs in another runtime, or on another kind of device, than it was measured with."""
    measured = f"{manifest['runtime']['name']} on {measured_device(manifest)}"
    if place != measured:
        there = manifest["device"]["description"]
        say(f"note: measured with {measured} ({there}), runs with {place}: the time is not that of the report")


def read_manifest(path: Path) -> dict[str, Any]:
    """Returns the manifest."""
    try:
        found = json.loads(path.read_bytes())
        if str(found["schema_version"]).split(".")[0] != "1":
            stop(f"manifest.json has version {found['schema_version']}; this run.py reads 1.x")
        return dict(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        stop(f"manifest.json beside run.py cannot be used: {error!r}")


def check_file(manifest: dict[str, Any], name: str) -> str:
    """Returns the name of a file in this folder after making sure that its bytes are those of the manifest."""
    entry = next((entry for entry in manifest["files"] if entry["filename"] == name), None)
    if entry is None or set(name) & set("/\\:") or name.startswith("."):
        stop(f"manifest.json lists no file {name!r} of this folder")
    digest = hashlib.sha256()
    try:
        with (HERE / name).open("rb") as stream:
            for piece in iter(lambda: stream.read(1 << 20), b""):
                digest.update(piece)
    except OSError as error:
        stop(f"{name} cannot be read: {error.strerror}")
    if digest.hexdigest() != entry["sha256"]:
        stop(f"{name} is not the file that manifest.json speaks of: its SHA-256 is {digest.hexdigest()}")
    return name


def open_onnxruntime(setup: Setup, inputs: list[np.ndarray]) -> Model:
    """Returns the model as ONNX Runtime runs it, with the options that it was measured with."""
    try:
        import onnxruntime
    except ImportError:
        stop("onnxruntime is not installed: pip install onnxruntime, or onnxruntime-gpu for a GPU")
    place, session = start_session(onnxruntime, setup, len(inputs[0]))
    names = [value.name for value in session.get_inputs()]
    feed = dict(zip(names, inputs, strict=True))
    if place.endswith("cpu"):
        return Model(place, lambda: session.run(None, feed), list)
    return bind_on_device(onnxruntime, session, feed, place)


def start_session(library: Any, setup: Setup, batch: int) -> tuple[str, Any]:
    """Returns what the model runs with, and the session: as it was measured, or with what comes next, saying why."""
    why = ""
    for place, providers in list_places(setup, batch):
        if why:
            say(f"note: {why}")
        session, why = try_providers(library, setup, providers)
        if session is not None:
            return place, session
    return stop(why)


def try_providers(library: Any, setup: Setup, providers: list[tuple[str, dict[str, str]]]) -> tuple[Any, str]:
    """Returns a session that runs on the first of these providers; or none, and why."""
    wanted, there = providers[0][0], library.get_available_providers()
    if wanted not in there:
        return None, f"the ONNX Runtime {library.__version__} here has no {wanted}, only {', '.join(there)}"
    if wanted != PROCESSOR and hasattr(library, "preload_dlls"):
        library.preload_dlls()  # CUDA and cuDNN of NVIDIA's Python packages.
    try:
        options = session_options(library, setup.threads)
        # Without the fallback: it would go on with the processor, and nothing would tell.
        session = library.InferenceSession(str(setup.path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # noqa: BLE001  whatever a provider raises, the next one is tried
        return None, f"ONNX Runtime cannot run {setup.path.name} with {wanted}: {first_line(error)}"
    if wanted not in session.get_providers():
        return None, f"ONNX Runtime could not start {wanted}: its libraries, or the device, are not here"
    return session, ""


def session_options(library: Any, threads: int) -> Any:
    """Returns the options of a session, as it was measured."""
    options = library.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def list_places(setup: Setup, batch: int) -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """Yields where the model may run, with ONNX Runtime's providers; as it was measured comes first."""
    processor: tuple[str, dict[str, str]] = (PROCESSOR, {})
    if setup.device != "cpu":
        index = setup.device.partition(":")[2]
        cuda = (CUDA, {"device_id": index, "use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"})
        if setup.runtime == "onnxruntime-tensorrt":
            # No precision is switched on, so that it is the file's. Engines are kept nowhere: it builds one each time.
            tensorrt = (TENSORRT, {"device_id": index, **engine_shapes(setup, batch)})
            yield f"onnxruntime-tensorrt on {setup.device}", [tensorrt, cuda, processor]
        yield f"onnxruntime on {setup.device}", [cuda, processor]
    yield "onnxruntime on cpu", [processor]


def engine_shapes(setup: Setup, batch: int) -> dict[str, str]:
    """Returns TensorRT's smallest, best and largest shapes of inputs with a free batch, as it was measured."""
    free = [spec for spec in setup.inputs if not isinstance(spec["shape"][0], int)]
    if not free or not all(isinstance(size, int) for spec in free for size in spec["shape"][1:]):
        return {}
    batches = {"min": 1, "opt": setup.batch, "max": max(setup.batch, batch, LEAST_LARGEST_BATCH)}
    return {
        f"trt_profile_{kind}_shapes": ",".join(
            f"{spec['name']}:{'x'.join(map(str, (samples, *spec['shape'][1:])))}" for spec in free
        )
        for kind, samples in batches.items()
    }


def bind_on_device(library: Any, session: Any, feed: dict[str, np.ndarray], place: str) -> Model:
    """Returns a model whose inputs lie on the device and whose outputs stay there: the bus is not timed."""
    kind, _, index = place.rpartition(" ")[2].partition(":")
    device = (kind, int(index or 0))
    binding = session.io_binding()
    for name, value in feed.items():
        binding.bind_ortvalue_input(name, library.OrtValue.ortvalue_from_numpy(value, *device))
    for value in session.get_outputs():
        binding.bind_output(value.name, *device)
    binding.synchronize_inputs()

    def run() -> Any:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return binding

    return Model(place, run, lambda bound: list(bound.copy_outputs_to_cpu()))


def open_openvino(setup: Setup, inputs: list[np.ndarray]) -> Model:
    """Returns the model as OpenVINO runs it on the processor, with the options that it was measured with."""
    try:
        import openvino
    except ImportError:
        stop("openvino is not installed: pip install openvino")
    compiled = compile_openvino(openvino.Core(), setup, inputs)
    request, outputs = compiled.create_infer_request(), range(len(compiled.outputs))
    feed = dict(enumerate(inputs))
    return Model(
        "openvino on cpu",
        lambda: request.infer(feed, share_inputs=True),
        lambda found: [np.array(found[index]) for index in outputs],
    )


def compile_openvino(core: Any, setup: Setup, inputs: list[np.ndarray]) -> Any:
    """Returns the model compiled for the shapes of these inputs, to compute in what its file is written in."""
    model = core.read_model(str(setup.path))
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(setup.threads),
        "INFERENCE_PRECISION_HINT": precision_hint(core, model),
    }
    model.reshape({index: list(value.shape) for index, value in enumerate(inputs)})
    return core.compile_model(model, "CPU", config)


def precision_hint(core: Any, model: Any) -> str:
    """Returns the half-precision format that a file is written in, where the processor has it; else float32.

    Without a hint OpenVINO takes bfloat16 where the processor has it, whatever the file says.
    """
    constants = (operator for operator in model.get_ops() if operator.get_type_name() == "Constant")
    formats = {constant.get_element_type().get_type_name() for constant in constants}
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return next((hint for hint, name in HALF.items() if hint in formats and name in able), "f32")


RUNTIMES: dict[str, Callable[[Setup, list[np.ndarray]], Model]] = {
    "onnxruntime": open_onnxruntime,
    "onnxruntime-tensorrt": open_onnxruntime,
    "openvino": open_openvino,
}


def take_inputs(options: argparse.Namespace, manifest: dict[str, Any]) -> list[np.ndarray]:
    """Returns one array per input of the model: from files, or random."""
    specs = manifest["model"]["inputs"]
    if not options.inputs:
        return [random_input(spec, options.batch, seed) for seed, spec in enumerate(specs)]
    if all(name.lower().endswith(IMAGES) for name in options.inputs):
        return [take_images(options.inputs, manifest)]
    arrays = read_arrays(options.inputs, specs)
    missing = [spec["name"] for spec in specs if spec["name"] not in arrays]
    if missing:
        stop(f"the model takes {len(specs)} inputs; there is none for {', '.join(missing)}")
    return [check_array(arrays[spec["name"]], spec) for spec in specs]


def random_input(spec: dict[str, Any], batch: int, seed: int) -> np.ndarray:
    """Returns random values that the input takes; free sizes other than the batch are 1."""
    sizes = [size if isinstance(size, int) else (1 if place else batch) for place, size in enumerate(spec["shape"])]
    generator = np.random.default_rng(seed)
    if np.issubdtype(np.dtype(spec["dtype"]), np.floating):
        return generator.standard_normal(sizes, dtype=np.float32).astype(spec["dtype"])
    return generator.integers(spec.get("low", 0), spec.get("high", 2), sizes).astype(spec["dtype"])


def read_arrays(given: Sequence[str], specs: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Returns the arrays of `.npy` and `.npz` files by the name of their input."""
    arrays: dict[str, np.ndarray] = {}
    for each in given:
        known = [spec["name"] for spec in specs if each.startswith(spec["name"] + "=")]
        name = max(known, key=len) if known else specs[0]["name"]
        file = each[len(name) + 1 :] if known else each
        try:
            found = np.load(file, allow_pickle=False)
        except (OSError, ValueError) as error:
            stop(f"{file} cannot be read as an image, .npy or .npz: {error}")
        arrays.update({key: found[key] for key in found.files} if hasattr(found, "files") else {name: found})
    return arrays


def check_array(values: np.ndarray, spec: dict[str, Any]) -> np.ndarray:
    """Returns an array of the input's element type; stops where it has another shape."""
    wanted = spec["shape"]
    fits = values.ndim == len(wanted) and all(
        not isinstance(size, int) or size == got for size, got in zip(wanted, values.shape, strict=True)
    )
    if not fits:
        stop(f"input {spec['name']} wants shape {tuple(wanted)}, got {values.shape}")
    return np.ascontiguousarray(values, dtype=spec["dtype"])


def take_images(paths: Sequence[str], manifest: dict[str, Any]) -> np.ndarray:
    """Returns images as the model takes them: (images, channels, height, width)."""
    recipe = manifest["preprocessing"] or {}
    if recipe.get("kind") != "image" or recipe.get("color") is None:
        stop(f"this model takes no images (preprocessing: {recipe.get('kind')}); give ready inputs as .npy or .npz")
    try:
        from PIL import Image
    except ImportError:
        stop("reading images needs Pillow: pip install pillow; or give ready inputs as .npy")
    prepared = []
    for path in paths:
        try:
            with Image.open(path, formats=FORMATS) as image:
                prepared.append(prepare(image, recipe))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            stop(f"{path} cannot be read as an image: {error}")
    return np.stack(prepared)


def prepare(image: Any, recipe: dict[str, Any]) -> np.ndarray:
    """Returns one image (Pillow's) as the model takes it: float32 (channels, height, width)."""
    image = with_colors(image, recipe["color"])
    height, width = recipe["size"]
    if not (recipe["keep_exact"] and image.size == (width, height)):
        size = resized_size(image.size, recipe)
        # Pillow's numbers of its filters; NEAREST never averages, the others always do.
        kind = {"nearest": 0, "bilinear": 2, "bicubic": 3}[recipe["interpolation"]]
        image = image if image.size == size else image.resize(size, kind)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image)
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    scaled = planes.astype(np.float32) / np.float32(recipe["divisor"])
    mean, std = (np.asarray(recipe[key], dtype=np.float32)[:, None, None] for key in ("mean", "std"))
    return (scaled - mean) / std


def with_colors(image: Any, color: str) -> Any:
    """Returns the image in gray or colour; 16 bits become 8, transparency goes."""
    from PIL import Image

    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    return image if image.mode == color else image.convert(color)


def resized_size(size: tuple[int, int], recipe: dict[str, Any]) -> tuple[int, int]:
    """Returns width and height after resizing: as stated, or one side so and the other in proportion."""
    (width, height), (goal_height, goal_width) = size, recipe["resize"]
    if not recipe["keep_proportions"]:
        return goal_width, goal_height
    if width * goal_height <= height * goal_width:
        return goal_width, max(goal_height, int(goal_width * height / width))
    return max(goal_width, int(goal_height * width / height)), goal_height


def measure(run: Callable[[], object], seconds: float) -> tuple[float, int]:
    """Returns the median time of a run, and how many runs that is of."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 10_000):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times), len(times)


def tell_classes(manifest: dict[str, Any], given: Sequence[str], outputs: list[np.ndarray]) -> None:
    """Prints the highest classes of every sample, where the model tells classes apart."""
    names = [spec["name"] for spec in manifest["model"]["outputs"]]
    if manifest["model"].get("class_output") not in names:
        return
    scores = outputs[names.index(manifest["model"]["class_output"])]
    labels = manifest["model"].get("labels") or []
    for row, values in enumerate(scores.reshape(len(scores), -1)):
        say(given[row] if len(given) == len(scores) else f"sample {row}")
        for index in np.argsort(-values, kind="stable")[:TOP]:
            label = labels[index] if index < len(labels) else f"class {index}"
            value = float(values[index])
            say(f"  {value:10.4f}  {label}" if math.isfinite(value) else f"  {value}  {label}")


def first_line(error: Exception) -> str:
    """Returns what went wrong, without what follows."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def say(text: str) -> None:
    """Prints a line in which nothing can steer the terminal: labels come from anybody."""
    print("".join(letter if letter.isprintable() else "?" for letter in text))


def stop(why: str) -> NoReturn:
    """Ends the program with a message."""
    sys.exit("run.py: " + "".join(letter if letter.isprintable() else "?" for letter in why))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(main())
