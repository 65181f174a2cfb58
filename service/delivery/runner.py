"""Runs the model in this folder. Needs Python 3.10, numpy and the model's runtime; nothing of Shoal.

    python run.py                        random input: the shapes of the outputs, and the time of a run
    python run.py cat.jpg dog.png        images, prepared as they were when the model was measured (needs Pillow)
    python run.py input.npy              ready input of a model with one input, batch first
    python run.py ids=a.npy mask=b.npy   the same of several inputs, by name; or one .npz with all of them

It runs with the runtime, device and options that the model was measured with. Where those are not here, it says what
it runs with instead, and why.

An engine of TensorRT takes minutes to build. The one in this folder is taken where it fits this device and was built by
this user, or with --trust-engine: engines are programs. Else one is built, once, and kept in engines/ beside this file.

Whatever is particular to the model (names, shapes, classes, preprocessing) is read from manifest.json, as data.
"""

from __future__ import annotations

import os
import sys

_BESIDE = os.path.dirname(os.path.abspath(__file__))
if __name__ == "__main__" and sys.path[:1] == [_BESIDE]:
    del sys.path[0]  # A numpy.py that somebody put beside this file must not be taken for the library.

import argparse
import ctypes
import hashlib
import hmac
import json
import math
import re
import secrets
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
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
KEPT = "engines"  # The folder beside this file that engines are kept in.
DRIVER = "libcuda.so.1"


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
        sha256: Of the model, as in the manifest.
        engine: The file of the engine that was delivered, its metadata beside it; None where there is none.
        trust: Whether that engine may be loaded, whoever built it.
    """

    path: Path
    runtime: str
    device: str
    threads: int
    batch: int
    inputs: list[dict[str, Any]]
    sha256: str = ""
    engine: Path | None = None
    trust: bool = False


@dataclass(frozen=True)
class Model:
    """A model with its inputs in place.

    Attributes:
        place: What runs it, such as `onnxruntime on cpu`.
        run: Runs it once, and returns when the outputs are complete: what is timed.
        read: Returns the outputs, given what `run` returned.
        settle: To be called when nothing is run any more.
    """

    place: str
    run: Callable[[], Any]
    read: Callable[[Any], list[np.ndarray]]
    settle: Callable[[], None] = field(default=lambda: None)


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
    setup = replace(
        setup, sha256=manifest["model"]["sha256"], engine=delivered_engine(manifest), trust=options.trust_engine
    )
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
    model.settle()
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
    known = runtime["name"] if runtime["name"] in RUNTIMES else "onnxruntime"
    parser.add_argument("--runtime", choices=sorted(RUNTIMES), default=known, help="default: %(default)s")
    device = measured_device(manifest)
    parser.add_argument("--device", type=device_name, default=device, help="cpu or cuda:N; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long to time it, about")
    trust = "load the engine in this folder though another user or machine built it: engines are programs"
    parser.add_argument("--trust-engine", action="store_true", help=trust)
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


def delivered_engine(manifest: dict[str, Any]) -> Path | None:
    """Returns the engine in this folder, once its bytes are those of the manifest; None where there is none."""
    entry = next(iter(manifest.get("engines") or []), None)
    if entry is None:
        return None
    check_file(manifest, f"{entry['filename']}.json")
    return HERE / check_file(manifest, entry["filename"])


def open_onnxruntime(setup: Setup, inputs: list[np.ndarray]) -> Model:
    """Returns the model as ONNX Runtime runs it, with the options that it was measured with."""
    try:
        import onnxruntime
    except ImportError:
        stop("onnxruntime is not installed: pip install onnxruntime, or onnxruntime-gpu for a GPU")
    place, session, settle = start_session(onnxruntime, setup, len(inputs[0]))
    names = [value.name for value in session.get_inputs()]
    feed = dict(zip(names, inputs, strict=True))
    if place.endswith("cpu"):
        return Model(place, lambda: session.run(None, feed), list)
    return replace(bind_on_device(onnxruntime, session, feed, place), settle=settle)


def start_session(library: Any, setup: Setup, batch: int) -> tuple[str, Any, Callable[[], None]]:
    """Returns what the model runs with, the session, and what to call at the end.

    That is as it was measured, or with what comes next, saying why.
    """
    why = ""
    for place, providers in list_places(setup, batch):
        if why:
            say(f"note: {why}")
        kept = keep_cache(library, setup, providers)
        session, why = try_providers(library, setup, providers)
        if session is not None:
            return place, session, kept.seal
    return stop(why)


def keep_cache(library: Any, setup: Setup, providers: list[tuple[str, dict[str, str]]]) -> Kept:
    """Returns where ONNX Runtime keeps what TensorRT builds, and tells the provider so."""
    name, options = providers[0]
    if name != TENSORRT or name not in library.get_available_providers():
        return Kept(None)
    try:
        here = Gpu(setup.device).with_runtime(str(library.__version__))
    except GpuError:
        return Kept(None)  # The provider will say what is missing.
    kept = find_kept([setup.sha256, "onnxruntime", astuple(here), options])
    if kept.folder is not None:
        if not kept.whole:
            say(f"building an engine, which takes minutes and is kept in {kept.folder}")
        # The provider believes whatever lies there, so it is sealed like all that is kept.
        options.update({f"trt_{each}_cache_enable": "1" for each in ("engine", "timing")})
        options.update({f"trt_{each}_cache_path": str(kept.folder) for each in ("engine", "timing")})
    return kept


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
            # No precision is switched on, so that it is the file's.
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


class GpuError(Exception):
    """The GPU or TensorRT cannot be used; the message says why."""


@dataclass(frozen=True)
class Here:
    """What decides which engines run on this machine.

    Attributes:
        version: Of TensorRT, or of ONNX Runtime with its own.
        gpu: The GPU's name.
        capability: Its compute capability.
        cuda: Newest version of CUDA that the driver supports, major and minor.
    """

    version: str
    gpu: str
    capability: str
    cuda: tuple[int, int]


class Gpu:
    """One NVIDIA GPU, through the driver's own library (CUDA Driver API), so that nothing else need be installed.

    Args:
        device: `cuda:N`.

    Raises:
        GpuError: It is not here.
    """

    def __init__(self, device: str) -> None:
        try:
            self.driver = ctypes.CDLL(DRIVER)
        except OSError:
            raise GpuError(f"there is no {DRIVER} here, the driver of NVIDIA's GPUs") from None
        self.stream, self.device = ctypes.c_void_p(), ctypes.c_int()
        version, text = ctypes.c_int(), ctypes.create_string_buffer(256)
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(self.device), int(device.partition(":")[2] or 0))
        self.call("cuDeviceGetName", text, len(text), self.device)
        self.call("cuDriverGetVersion", ctypes.byref(version))
        self.name = text.value.decode(errors="replace")
        self.capability = f"{self.attribute(75)}.{self.attribute(76)}"
        self.shares_memory = bool(self.attribute(18))
        self.cuda = (version.value // 1000, version.value % 1000 // 10)

    def with_runtime(self, version: str) -> Here:
        """Returns what decides which engines run on it, with a version of what runs them."""
        return Here(version, self.name, self.capability, self.cuda)

    def attribute(self, which: int) -> int:
        """Returns an attribute by its number in `CUdevice_attribute`."""
        found = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(found), which, self.device)
        return found.value

    def open(self) -> None:
        """Makes the GPU the one that this thread talks to, with a stream of its own."""
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)
        self.call("cuCtxSetCurrent", context)
        self.call("cuStreamCreate", ctypes.byref(self.stream), 0)

    def free_bytes(self) -> int:
        """Returns how much of its memory is free."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def allocate(self, size: int) -> int:
        """Returns the address of `size` bytes on the GPU, which stay there until this program ends."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(1, size)))
        return address.value

    def upload(self, address: int, value: np.ndarray) -> None:
        """Copies an array to the GPU."""
        data = np.ascontiguousarray(value)
        self.call(
            "cuMemcpyHtoD_v2", ctypes.c_uint64(address), ctypes.c_void_p(data.ctypes.data), ctypes.c_size_t(data.nbytes)
        )

    def download(self, address: int, into: np.ndarray) -> np.ndarray:
        """Copies from the GPU into an array, and returns it."""
        self.call(
            "cuMemcpyDtoH_v2", ctypes.c_void_p(into.ctypes.data), ctypes.c_uint64(address), ctypes.c_size_t(into.nbytes)
        )
        return into

    def wait(self) -> None:
        """Waits until everything on the stream is done."""
        self.call("cuStreamSynchronize", self.stream)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls the driver; raises `GpuError` where that fails."""
        status = getattr(self.driver, name)(*arguments)
        if status != 0:
            raise GpuError(f"the driver of NVIDIA's GPUs says {status} to {name}")


def open_tensorrt(setup: Setup, inputs: list[np.ndarray]) -> Model:
    """Returns the model as TensorRT runs it; where it cannot, as ONNX Runtime does, saying why."""
    if setup.device != "cpu":
        try:
            import tensorrt

            return run_engine(tensorrt, Gpu(setup.device), setup, inputs)
        except ImportError:
            say("note: tensorrt is not installed")
        except Exception as error:  # noqa: BLE001  whatever TensorRT raises, the next one is tried
            say(f"note: TensorRT cannot run {setup.path.name}: {first_line(error)}")
    return open_onnxruntime(replace(setup, runtime="onnxruntime-tensorrt"), inputs)


def run_engine(library: Any, gpu: Gpu, setup: Setup, inputs: list[np.ndarray]) -> Model:
    """Returns the model as an engine with its inputs on the GPU, where the outputs stay: the bus is not timed."""
    gpu.open()
    log = library.Logger(library.Logger.ERROR)
    runtime = library.Runtime(log)
    engine = runtime.deserialize_cuda_engine(find_engine(library, gpu, setup, len(inputs[0])))
    context = None if engine is None else engine.create_execution_context()
    if context is None:
        raise GpuError("it refuses the engine, or has no memory to run it in")
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    feed = dict(zip([spec["name"] for spec in setup.inputs], inputs, strict=True))
    for name, value in feed.items():
        if not context.set_input_shape(name, value.shape):
            raise GpuError(f"the engine does not take the shape {value.shape} for {name}")
        address = gpu.allocate(value.nbytes)
        gpu.upload(address, value)
        context.set_tensor_address(name, address)
    outputs: list[tuple[int, np.ndarray]] = []
    for name in (name for name in names if name not in feed):
        into = np.empty(tuple(context.get_tensor_shape(name)), library.nptype(engine.get_tensor_dtype(name)))
        outputs.append((gpu.allocate(into.nbytes), into))
        context.set_tensor_address(name, outputs[-1][0])

    def run() -> Any:
        if not context.execute_async_v3(gpu.stream.value or 0):
            raise GpuError("the engine failed")
        gpu.wait()
        return runtime, engine  # both have to outlive the context

    return Model(f"tensorrt on {setup.device}", run, lambda _: [gpu.download(*each) for each in outputs])


def find_engine(library: Any, gpu: Gpu, setup: Setup, batch: int) -> bytes:
    """Returns the engine that was delivered, or the one that is kept here, or one that is built now and kept."""
    here = gpu.with_runtime(str(library.__version__))
    if setup.engine is not None:
        against = objections(setup, setup.engine, here, batch)
        if not against:
            return setup.engine.read_bytes()
        say(f"note: {setup.engine.name} is not used: {'; '.join(against)}")
    largest = max(setup.batch, batch, LEAST_LARGEST_BATCH)
    kept = find_kept([setup.sha256, "tensorrt", astuple(here), setup.batch, largest])
    if kept.folder is not None and kept.whole:
        return (kept.folder / "engine").read_bytes()
    say(f"building an engine for {gpu.name}, which takes minutes{'' if kept.folder is None else ' and is kept'}")
    content = build_engine(library, gpu, setup, largest)
    if kept.folder is not None:
        try:
            (kept.folder / "engine").write_bytes(content)
        except OSError as error:
            say(f"note: the engine cannot be kept in {kept.folder}: {first_line(error)}")
        else:
            kept.seal()
    return content


def objections(setup: Setup, engine: Path, here: Here, batch: int) -> list[str]:
    """Returns why the engine that was delivered is not loaded here; nothing where it is."""
    try:
        stated = json.loads(engine.with_name(f"{engine.name}.json").read_bytes())
        values, batches = stated["engine"], stated["engine"]["batches"]
        mine = setup.trust or hmac.compare_digest(str(stated["seal"]), seal_of(values))
        cuda = tuple(int(part) for part in str(values["cuda"]).split(".")[:2])
        facts = [
            (
                values["tensorrt"] != here.version,
                f"it was built by TensorRT {values['tensorrt']}, here is {here.version}",
            ),
            (values["gpu"] != here.gpu, f"it was built for '{values['gpu']}', here is '{here.gpu}'"),
            (values["compute_capability"] != here.capability, "it was built for another compute capability"),
            (cuda > here.cuda, f"it was built under CUDA {values['cuda']}, and the driver here is older"),
            (not batches["smallest"] <= batch <= batches["largest"], f"it does not take batches of {batch}"),
            (values["onnx_sha256"] != setup.sha256, "it was built of another model"),
            (values["engine_sha256"] != hashlib.sha256(engine.read_bytes()).hexdigest(), "it was changed"),
            (
                not mine,
                "another user or machine built it, and engines are programs; see --trust-engine",
            ),
        ]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        return [f"what is known of it cannot be read: {first_line(error)}"]
    return [why for wrong, why in facts if wrong]


def build_engine(library: Any, gpu: Gpu, setup: Setup, largest: int) -> bytes:
    """Returns an engine that is built of the model now, in the file's own precisions, as when it was measured."""
    log = library.Logger(library.Logger.ERROR)
    builder = library.Builder(log)
    # TensorRT 11 builds strongly typed networks only, and may have no such flag.
    strong = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strong is None else 1 << int(strong))
    parser = library.OnnxParser(network, log)
    if not parser.parse_from_file(str(setup.path)):
        raise GpuError(
            f"it cannot read the file: {parser.get_error(0).desc() if parser.num_errors else 'no reason given'}"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(
        library.MemoryPoolType.WORKSPACE, choose_workspace(gpu.free_bytes(), gpu.shares_memory)
    )
    config.clear_flag(library.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    free = [spec for spec in setup.inputs if not isinstance(spec["shape"][0], int)]
    for spec in free:
        profile.set_shape(spec["name"], *((samples, *spec["shape"][1:]) for samples in (1, setup.batch, largest)))
    if free:
        config.add_optimization_profile(profile)
    content = builder.build_serialized_network(network, config)
    if content is None:
        raise GpuError("it cannot build an engine; its own words are above")
    return bytes(content)


def choose_workspace(free: int, shared: bool) -> int:
    """Returns how many bytes kernels may use, as when it was measured: less where the processor needs them too."""
    chosen = max(64 << 20, int(free * (0.25 if shared else 0.5)) >> 20 << 20)
    return min(chosen, 1 << 30) if shared else chosen


@dataclass(frozen=True)
class Kept:
    """A folder that engines of one model and device are kept in.

    Attributes:
        folder: None where nothing can be kept.
        whole: Whether what lies there is what this user left there.
    """

    folder: Path | None
    whole: bool = False

    def seal(self) -> None:
        """Writes down what lies there, so that it is believed the next time: engines are programs."""
        if self.folder is None:
            return
        try:
            (self.folder / "seal").write_text(seal_of(list_kept(self.folder)))
        except (OSError, RuntimeError) as error:
            say(f"note: the engine cannot be kept in {self.folder}: {first_line(error)}")


def find_kept(facts: list[Any]) -> Kept:
    """Returns where engines are kept that depend on these facts, made if need be; says so where that cannot be."""
    above = HERE / KEPT
    folder = above / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    try:
        if is_whole(folder):
            return Kept(folder, whole=True)
        read_key()
        # Not the folder of somebody else that a link leads to.
        if above.is_symlink():
            above.unlink()
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700, parents=True)
    except (OSError, RuntimeError) as error:
        say(f"note: engines cannot be kept in {above} and are built at each start: {first_line(error)}")
        return Kept(None)
    return Kept(folder)


def is_whole(folder: Path) -> bool:
    """Returns whether what lies in a folder is what this user left there: anything else is not loaded."""
    try:
        sealed = (folder / "seal").read_bytes()
        return hmac.compare_digest(sealed, seal_of(list_kept(folder)).encode())
    except (OSError, RuntimeError):
        return False


def list_kept(folder: Path) -> dict[str, str]:
    """Returns a folder's name and the hashes of its files; raises `OSError` where one is none."""
    found = {"": folder.name}
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            raise OSError(f"{path.name} is no plain file")
        if path.name != "seal":
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def seal_of(values: Any) -> str:
    """Returns the seal of this user on plain values, as Shoal makes it."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hmac.new(read_key(), text.encode(), hashlib.sha256).hexdigest()


def read_key() -> bytes:
    """Returns the key that this user's engines are sealed with, Shoal's own, made at random the first time.

    Raises:
        OSError: It cannot be read or made, or others may write where it lies.
        RuntimeError: The user has no home.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shoal" / "engines"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022:
        raise OSError(f"others may write to {folder}, where the key to engines lies")
    path, partial = folder / "key", folder / f".key.{os.getpid()}"
    if not path.exists():
        partial.write_bytes(secrets.token_bytes(32))
        partial.chmod(0o600)
        with suppress(FileExistsError):
            os.link(partial, path)
        partial.unlink()
    key = path.read_bytes()
    if len(key) != 32:
        raise OSError(f"{path} is no key to engines")
    return key


RUNTIMES: dict[str, Callable[[Setup, list[np.ndarray]], Model]] = {
    "onnxruntime": open_onnxruntime,
    "onnxruntime-tensorrt": open_onnxruntime,
    "openvino": open_openvino,
    "tensorrt": open_tensorrt,
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
