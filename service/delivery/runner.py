"""Runs the model in this folder. Needs Python 3.10, numpy and the model's runtime; nothing of Shoal.

    python run.py                        random input: the shapes of the outputs, and the time of a run
    python run.py cat.jpg dog.png        images, prepared as they were when the model was measured (needs Pillow)
    python run.py input.npy              ready input of a model with one input, batch first
    python run.py ids=a.npy mask=b.npy   the same of several inputs, by name; or one .npz with all of them

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
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

Model = Callable[[list[np.ndarray]], list[np.ndarray]]
HERE = Path(_BESIDE)
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
TOP = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the model as the command line says."""
    manifest = read_manifest(HERE / "manifest.json")
    options = parse(arguments, manifest)
    model = HERE / check_file(manifest, manifest["model"]["filename"])
    for name in manifest["model"].get("weights", []):
        check_file(manifest, name)
    run = RUNTIMES[options.runtime](model, options.threads)
    inputs = take_inputs(options, manifest)
    outputs = run(inputs)
    for spec, values in zip(manifest["model"]["inputs"], inputs, strict=True):
        say(f"input {spec['name']}: {values.dtype} {values.shape}")
    for spec, values in zip(manifest["model"]["outputs"], outputs, strict=True):
        say(f"output {spec['name']}: {values.dtype} {values.shape}")
    seconds, runs = measure(run, inputs, options.seconds)
    batch = len(inputs[0])
    say(f"{1e3 * seconds:.3f} ms a run (median of {runs}), batch {batch}, {options.threads} thread(s)")
    if options.inputs:
        tell_classes(manifest, options.inputs, outputs)
    return 0


def parse(arguments: Sequence[str] | None, manifest: dict[str, Any]) -> argparse.Namespace:
    """Returns what the command line says."""
    runtime = manifest["runtime"]
    known = runtime["name"] if runtime["name"] in RUNTIMES else "onnxruntime"
    lines = (__doc__ or "").strip().splitlines()
    parser = argparse.ArgumentParser(
        description=lines[0], epilog="\n".join(lines[1:]), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", nargs="*", help="images, .npy files, NAME=FILE.npy, or one .npz; random without")
    parser.add_argument("--batch", type=int, default=1, help="samples of random input")
    parser.add_argument("--threads", type=int, default=int(runtime["threads"]), help="default: %(default)s")
    parser.add_argument("--runtime", choices=sorted(RUNTIMES), default=known, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long to time it, about")
    return parser.parse_args(arguments)


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


def open_onnxruntime(path: Path, threads: int) -> Model:
    """Returns the model as ONNX Runtime runs it, with the options that it was measured with."""
    try:
        import onnxruntime
    except ImportError:
        stop("onnxruntime is not installed: pip install onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda inputs: list(session.run(None, dict(zip(names, inputs, strict=True))))


def open_openvino(path: Path, threads: int) -> Model:
    """Returns the model as OpenVINO runs it on the processor, with the options that it was measured with."""
    try:
        import openvino
    except ImportError:
        stop("openvino is not installed: pip install openvino")
    config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads)}
    config["INFERENCE_PRECISION_HINT"] = "f32"  # Otherwise bfloat16 where the processor has it.
    compiled = openvino.Core().compile_model(str(path), "CPU", config)
    request, outputs = compiled.create_infer_request(), range(len(compiled.outputs))

    def run(inputs: list[np.ndarray]) -> list[np.ndarray]:
        found = request.infer(dict(enumerate(inputs)))
        return [np.array(found[index]) for index in outputs]

    return run


RUNTIMES: dict[str, Callable[[Path, int], Model]] = {
    "onnxruntime": open_onnxruntime,
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


def measure(run: Model, inputs: list[np.ndarray], seconds: float) -> tuple[float, int]:
    """Returns the median time of a run, and how many runs that is of."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 10_000):
        start = time.perf_counter()
        run(inputs)
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


def say(text: str) -> None:
    """Prints a line in which nothing can steer the terminal: labels come from anybody."""
    print("".join(letter if letter.isprintable() else "?" for letter in text))


def stop(why: str) -> NoReturn:
    """Ends the program with a message."""
    sys.exit("run.py: " + "".join(letter if letter.isprintable() else "?" for letter in why))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(main())
