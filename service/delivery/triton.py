"""A delivered folder as a model repository of NVIDIA Triton: `NAME/config.pbtxt`, `NAME/1/model.onnx`.

The configuration is written as protobuf's text format, of the message `inference.ModelConfig`. Everything comes from
the manifest, so that this needs neither onnx nor a runtime.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.engines.settings import choose_batches
from service.delivery.manifest import Manifest, ManifestError, TensorEntry, read_manifest

MAX_BATCH: Final = 8
LABELS: Final = "labels.txt"
MODEL: Final = "model.onnx"

_TYPES: Final = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "float64": "TYPE_FP64",
    "int64": "TYPE_INT64",
    "int32": "TYPE_INT32",
    "int8": "TYPE_INT8",
    "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
}
_BACKENDS: Final = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
_TENSORRT: Final = ("onnxruntime-tensorrt", "tensorrt")


@dataclass(frozen=True)
class TritonSettings:
    """How the repository is written.

    Attributes:
        name: The model's; None for the name of the source.
        max_batch: Largest batch that Triton may make, at least the one that was timed.
        delay_microseconds: How long Triton may wait to put requests into one batch; None for not at all.
    """

    name: str | None = None
    max_batch: int = MAX_BATCH
    delay_microseconds: int | None = None


def write_repository(folder: Path, repository: Path, settings: TritonSettings | None = None) -> Path:
    """Writes a delivered folder's model into a Triton model repository; other models in it stay.

    Args:
        folder: The delivered folder.
        repository: The repository; made if it does not exist.
        settings: How.

    Returns:
        The model's folder in the repository.

    Raises:
        ManifestError: The folder has no manifest that can be used, or its model has a type that Triton does not.
        OSError: Something cannot be written.
    """
    settings, manifest = settings or TritonSettings(), read_manifest(folder)
    name = settings.name or model_name(manifest)
    place = repository / name
    text = config_text(manifest, name, settings)
    (place / "1").mkdir(parents=True, exist_ok=True)
    for file in (manifest.model.filename, *manifest.model.weights):
        shutil.copyfile(folder / file, place / "1" / file, follow_symlinks=False)
    (place / "config.pbtxt").write_text(text, encoding="utf-8")
    if manifest.model.labels:
        lines = (" ".join(label.split()) for label in manifest.model.labels)
        (place / LABELS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    _write_help(repository, name)
    return place


def model_name(manifest: Manifest) -> str:
    """Returns a harmless name for the model, from that of its source."""
    stem = manifest.source.name.rpartition(":")[2].rpartition("/")[2]
    for suffix in (".onnx", ".pt2", ".tar", ".zip"):
        stem = stem.removesuffix(suffix)
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")[:100] or "model"


def config_text(manifest: Manifest, name: str, settings: TritonSettings) -> str:
    """Returns `config.pbtxt`.

    Raises:
        ManifestError: An input or output has a type that Triton does not know.
    """
    return "\n".join(_lines(manifest, name, settings)) + "\n"


def _lines(manifest: Manifest, name: str, settings: TritonSettings) -> Iterator[str]:
    tensors = (*manifest.model.inputs, *manifest.model.outputs)
    batched = all(isinstance(tensor.shape[0], str) for tensor in tensors)
    backend = _BACKENDS.get(manifest.runtime.name, "onnxruntime")
    yield f"name: {quoted(name)}"
    yield f"backend: {quoted(backend)}"
    yield f"default_model_filename: {quoted(manifest.model.filename)}"
    yield f"max_batch_size: {max(settings.max_batch, manifest.budget.batch) if batched else 0}"
    for tensor in manifest.model.inputs:
        yield from ("input {", *_tensor(tensor, batched=batched), "}")
    for tensor in manifest.model.outputs:
        yield from ("output {", *_tensor(tensor, batched=batched))
        if manifest.model.labels and tensor.name == manifest.model.class_output:
            yield f"  label_filename: {quoted(LABELS)}"
        yield "}"
    yield from _placing(manifest.device.local_name)
    if backend == "openvino":
        yield from _openvino(manifest)
    else:
        yield _parameter("intra_op_thread_count", str(manifest.runtime.threads))
    if manifest.device.local_name != "cpu":
        yield from _accelerators(manifest, settings)
    if batched and settings.delay_microseconds is not None:
        yield f"dynamic_batching {{ max_queue_delay_microseconds: {settings.delay_microseconds} }}"


def _placing(device: str) -> Iterator[str]:
    """Yields the device; one instance, as it was timed."""
    # Left open, the processor would do on a machine without a GPU, and a GPU on one with.
    if device == "cpu":
        yield "instance_group { count: 1 kind: KIND_CPU }"
    else:
        yield f"instance_group {{ count: 1 kind: KIND_GPU gpus: [ {device.partition(':')[2]} ] }}"


def _openvino(manifest: Manifest) -> Iterator[str]:
    """Yields what `deploy.runtimes.openvino_cpu` sets, as far as Triton's backend knows it."""
    yield _parameter("INFERENCE_NUM_THREADS", str(manifest.runtime.threads))
    yield _parameter("NUM_STREAMS", "1")
    yield _parameter("PERFORMANCE_HINT", "LATENCY")
    if manifest.model.precision == "bfloat16":
        yield _parameter("HINT_BF16", "YES")
    else:
        yield "# Timed without bfloat16. Triton's backend cannot forbid it: where the processor has it, it may be used."


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {quoted(key)} value {{ string_value: {quoted(value)} }} }}"


def _accelerators(manifest: Manifest, settings: TritonSettings) -> Iterator[str]:
    """Yields ONNX Runtime's providers on a GPU, with the options of `deploy.runtimes`; CUDA for what TensorRT leaves.

    Of jobs that were timed in TensorRT itself too: the file is an ONNX file, and Triton builds the engine.
    """
    yield "optimization { execution_accelerators {"
    if manifest.runtime.name in _TENSORRT:
        # FP32 switches nothing on, so that precisions are the file's; without a parameter the GPU is not passed on.
        yield from _accelerator("tensorrt", {"precision_mode": "FP32", **_engine_shapes(manifest, settings)})
    yield from _accelerator("cuda", {"use_tf32": "0"})
    yield "} }"


def _accelerator(name: str, parameters: Mapping[str, str]) -> Iterator[str]:
    yield f"  gpu_execution_accelerator {{ name: {quoted(name)}"
    for key, value in parameters.items():
        yield f"    parameters {{ key: {quoted(key)} value: {quoted(value)} }}"
    yield "  }"


def _engine_shapes(manifest: Manifest, settings: TritonSettings) -> dict[str, str]:
    """Returns the smallest, best and largest shapes of inputs with a free batch; none where more is free."""
    free = [tensor for tensor in manifest.model.inputs if isinstance(tensor.shape[0], str)]
    if not free or any(isinstance(size, str) for tensor in free for size in tensor.shape[1:]):
        return {}
    chosen = choose_batches(manifest.budget.batch)
    batches = {"min": chosen.smallest, "opt": chosen.best, "max": max(chosen.largest, settings.max_batch)}
    return {
        f"trt_profile_{kind}_shapes": ",".join(
            f"{tensor.name}:{'x'.join(map(str, (batch, *tensor.shape[1:])))}" for tensor in free
        )
        for kind, batch in batches.items()
    }


def _tensor(tensor: TensorEntry, *, batched: bool) -> Sequence[str]:
    if tensor.dtype not in _TYPES:
        raise ManifestError(f"{tensor.name} has the element type {tensor.dtype}; Triton knows {', '.join(_TYPES)}")
    sizes = [size if isinstance(size, int) else -1 for size in tensor.shape]
    # Triton puts the batch in front itself; a sample that is one number is a vector of one to it.
    sizes = (sizes[1:] if batched else sizes) or [1]
    lines = [f"  name: {quoted(tensor.name)}", f"  data_type: {_TYPES[tensor.dtype]}"]
    lines.append(f"  dims: [ {', '.join(map(str, sizes))} ]")
    if batched and len(tensor.shape) == 1:
        lines.append("  reshape { shape: [ ] }")
    return lines


def quoted(text: str) -> str:
    """Returns a string of protobuf's text format: whatever is in it, it ends where it should."""
    plain = {ord(" "), *range(0x21, 0x7F)} - {ord('"'), ord("\\"), ord("'")}
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'


def _write_help(repository: Path, name: str) -> None:
    """Tells beside the repository's models how to start Triton; Triton passes over files there."""
    text = (
        "A model repository of NVIDIA Triton. With `TAG` a release of Triton's container:\n\n"
        '    docker run --rm -p 8000:8000 -p 8001:8001 -p 8002:8002 -v "$PWD":/models '
        "nvcr.io/nvidia/tritonserver:TAG-py3 tritonserver --model-repository=/models\n\n"
        "Models that were timed on a GPU want one: `docker run --gpus all ...`.\n\n"
        f"Then `curl localhost:8000/v2/models/{name}/config` shows the model as Triton sees it.\n"
    )
    (repository / "README.md").write_text(text, encoding="utf-8")
