"""TensorRT's builder. Everything that needs the library and the GPU to build an engine is here, and nothing else.

Written to the API that TensorRT 10.3 to 11 document (`Builder`, `OnnxParser`, `IBuilderConfig`, `ITimingCache`).
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.devices import parse_device
from deploy.engines.failures import classify_failure
from deploy.engines.library import import_tensorrt, make_log
from deploy.engines.settings import Batches, BuildSettings, choose_shapes, choose_workspace
from deploy.engines.timing_cache import cache_path, load_cache, save_cache
from deploy.engines.versions import creation_flags
from deploy.errors import EngineOperatorError, ModelFileError
from deploy.gpu import Gpu, find_gpu
from deploy.runtimes.cuda import Cuda


def build_engine(onnx: Path, to: Path, settings: BuildSettings) -> dict[str, Any]:
    """Builds an engine in this process. `deploy.engines.process.build` is what to call; it starts one for this.

    Args:
        onnx: The file.
        to: Where the engine's bytes go.
        settings: How.

    Returns:
        The fields of `EngineMetadata` but `onnx_sha256`, as plain values.

    Raises:
        DeployError: As `build` says.
    """
    gpu = find_gpu(parse_device(settings.device).index)
    library = import_tensorrt()
    workspace = settings.workspace_bytes or choose_workspace(Cuda(gpu.index).free_bytes(), gpu.shares_memory)
    log, messages = make_log(library)
    builder = library.Builder(log)
    network = builder.create_network(creation_flags(library.NetworkDefinitionCreationFlag))
    # Kept until the engine is built: the network refers to what the parser holds.
    parser = _parse(library, network, log, onnx)
    config = _configure(library, builder, workspace, settings)
    batches = _add_profile(builder, network, config, settings.batches)
    cache = _use_timing_cache(config, settings.timing_cache, gpu, str(library.__version__))
    content = builder.build_serialized_network(network, config)
    del parser
    if content is None:
        raise classify_failure(messages, gpu.shares_memory, workspace)
    if cache is not None:
        _keep_timing_cache(config, cache)
    return _write(bytes(content), to, gpu, (str(library.__version__), batches, workspace, settings.optimization_level))


def _parse(library: Any, network: Any, log: Any, onnx: Path) -> Any:
    parser = library.OnnxParser(network, log)
    # By path, so that weights that lie beside the file are found.
    if parser.parse_from_file(str(onnx)):
        return parser
    first = parser.get_error(0) if parser.num_errors else None
    if first is None:
        msg = f"TensorRT cannot read '{onnx.name}', and says no reason"
        raise ModelFileError(msg)
    if "UNSUPPORTED" in str(first.code()):
        operator, node = str(first.node_operator()), str(first.node_name())
        msg = f"TensorRT does not know the operator {operator} of node '{node}' in '{onnx.name}': {first.desc()}"
        raise EngineOperatorError(msg, operator, node)
    msg = f"TensorRT cannot read '{onnx.name}': node '{first.node_name()}' ({first.node_operator()}): {first.desc()}"
    raise ModelFileError(msg)


def _configure(library: Any, builder: Any, workspace: int, settings: BuildSettings) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, workspace)
    config.builder_optimization_level = settings.optimization_level
    # On by default, and another precision than what the file says: float32 with ten bits of mantissa.
    config.clear_flag(library.BuilderFlag.TF32)
    # So that layers can be told apart when they are timed one by one; it costs nothing when they are not.
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    return config


def _add_profile(builder: Any, network: Any, config: Any, batches: Batches) -> Batches:
    """Adds the optimisation profile, and returns the batches that the engine will take."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    profile = builder.create_optimization_profile()
    open_ = False
    for value in inputs:
        shapes = choose_shapes(value.name, tuple(value.shape), batches)
        if shapes is not None:
            profile.set_shape(value.name, *shapes)
            open_ = True
    if not open_:
        fixed = int(inputs[0].shape[0])
        return Batches(fixed, fixed, fixed)
    config.add_optimization_profile(profile)
    return batches


def _use_timing_cache(config: Any, folder: Path | None, gpu: Gpu, version: str) -> Path | None:
    if folder is None:
        return None
    path = cache_path(folder, gpu, version)
    cache = config.create_timing_cache(load_cache(path))
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        # Damaged, or of another device after all: begin a new one.
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return path


def _keep_timing_cache(config: Any, path: Path) -> None:
    mine = config.get_timing_cache()

    def merge(there: bytes) -> bytes:
        theirs = config.create_timing_cache(there) if there else None
        if theirs is not None:
            mine.combine(theirs, ignore_mismatch=False)
        return bytes(mine.serialize())

    save_cache(path, merge)


def _write(content: bytes, to: Path, gpu: Gpu, how: tuple[str, Batches, int, int]) -> dict[str, Any]:
    version, batches, workspace, level = how
    to.write_bytes(content)
    return {
        "tensorrt": version,
        "cuda": gpu.cuda,
        "driver": gpu.driver,
        "gpu": gpu.name,
        "compute_capability": gpu.compute_capability,
        "shares_memory": gpu.shares_memory,
        "batches": asdict(batches),
        "workspace_bytes": workspace,
        "optimization_level": level,
        "engine_sha256": hashlib.sha256(content).hexdigest(),
    }
