"""Models of the transformers library, from a folder or a name: the library's own classes, and configs as data.

No code of a model's author ever runs: classes come from the library's registry of architectures, settings that could
bring in others (custom code, other attention kernels, backbones to download) are refused or dropped.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressors.errors import ModelError, OptionError, UnsupportedModelError
from compressors.sources import hub, transformers_inputs
from compressors.sources.configs import check_size, read_config
from compressors.sources.source import ModelSource
from compressors.sources.trace import Traced, fixed_seed, trace
from compressors.sources.weights import Weights, read_folder_weights, read_weights, refuse_misfits

TASKS: Mapping[str, str] = {
    "feature-extraction": "MODEL_MAPPING_NAMES",
    "text-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "token-classification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "question-answering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "masked-lm": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "seq2seq-lm": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "image-classification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "semantic-segmentation": "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
    "object-detection": "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",
    "depth-estimation": "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES",
    "audio-classification": "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
    "ctc": "MODEL_FOR_CTC_MAPPING_NAMES",
}
"""Heads by task, and the library's table of classes for each."""

_DROPPED = re.compile(
    r"_?attn_implementation(_\w+)?|_?experts_implementation|(torch_)?dtype|_name_or_path|transformers_version"
)
"""Settings that do not describe the model: how it was saved, and with which kernels it ran."""
_REFUSED_TYPES = {"timm_wrapper": "timm:NAME", "timm_backbone": "timm:NAME"}
_FIXED = {"use_cache": False, "return_dict": True, "output_attentions": False, "output_hidden_states": False}
"""Settings of every call: logits only, no caches."""
_IGNORED_BUFFERS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|num_batches_tracked|relative_position_index|masked_bias|bias_mask)$"
)


def read_named(source: ModelSource, name: str) -> Traced:
    """Returns a model type in the library's default configuration (`bert`), or a published model (`owner/model`).

    Raises:
        ModelError: The name is not known, the weights do not fit, or nothing can be downloaded.
        OptionError: The task is not one of the model's.
    """
    types = _library(str(source.name)).CONFIG_MAPPING_NAMES
    weights: Weights | None = None
    if name in types:
        settings: dict[str, Any] = {"model_type": name}
    elif hub.is_repository(name) and ("/" in name or "-" in name):
        folder = hub.download(name, weights=bool(source.options.get("pretrained")))
        settings = read_config(folder / "config.json", name)
        weights = read_folder_weights(folder, name) if source.options.get("pretrained") else None
    else:
        close = difflib.get_close_matches(name, list(types), n=3)
        hint = f"; did you mean {' or '.join(f'transformers:{match}' for match in close)}?" if close else ""
        raise ModelError(f"transformers has no model type {name!r}{hint}")
    if source.weights is not None:
        weights = read_weights(source.weights)
    if weights is None and not source.options.get("random_weights"):
        raise ModelError(f"{source.name} needs weights: give a safetensors file or a state dict, or the model's folder")
    return read_config_and_weights(settings, weights, source, str(source.name))


def read_folder(folder: Path, source: ModelSource, where: str) -> Traced:
    """Returns the model in a folder that `save_pretrained` wrote; see `read_config_and_weights`."""
    settings = read_config(folder / "config.json", where)
    weights = None if source.options.get("random_weights") else read_folder_weights(folder, where)
    return read_config_and_weights(settings, weights, source, where)


def read_config_and_weights(
    settings: dict[str, Any], weights: Weights | None, source: ModelSource, where: str
) -> Traced:
    """Returns the model that a config describes as a program.

    Args:
        settings: The checked content of `config.json`.
        weights: By name; random where there are none.
        source: What the user asked for: task, classes, shapes.
        where: The model's name for messages.

    Raises:
        UnsupportedModelError: The library has no such architecture, or it cannot be traced.
        ModelError: Config or weights do not fit.
        OptionError: The task is not one of the model's.
    """
    library = _library(where)
    with _quiet():
        config = _config(library, settings, source, where)
        chosen = _class(library, config, settings, source)
        model = build(chosen, config, weights, where)
        inputs = transformers_inputs.inputs(model, config, source)
        return trace(model.eval(), inputs, where)


def build(chosen: Any, config: Any, weights: Weights | None, where: str) -> nn.Module:
    """Returns the model with its weights, in float32.

    Args:
        chosen: One of the library's classes.
        config: Its configuration.
        weights: By the library's names, today's or older ones; random where there are none.
        where: The model's name for messages.

    Raises:
        ModelError: The config describes no model, or not the weights'.
    """
    try:
        with torch.device("meta"):
            skeleton = chosen(config)
        check_size(skeleton, weights, where)
        if weights is None:
            with fixed_seed():
                return chosen(config)  # type: ignore[no-any-return]
        del skeleton
        model, found = chosen.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except ModelError:
        raise
    except Exception as exc:  # the library checks configs with whatever exception is at hand
        reason = next((line for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
        raise ModelError(f"{where}: the config describes no {chosen.__name__} ({reason[:200]})") from exc
    _check_fit(model, found, where)
    return model  # type: ignore[no-any-return]


def _check_fit(model: nn.Module, found: Mapping[str, Any], where: str) -> None:
    """Refuses what would leave a part of the model random, or a part of the file that should have been used."""
    mismatched = sorted(found["mismatched_keys"])
    surplus = [key for key in sorted(found["unexpected_keys"]) if _belongs(key, model)]
    refuse_misfits(
        where,
        {
            "missing": [key for key in sorted(found["missing_keys"]) if not _IGNORED_BUFFERS.search(key)],
            "unexpected": surplus,
            "of another shape": [f"{key}: {tuple(a)} in the file, {tuple(b)} in the model" for key, a, b in mismatched],
        },
    )


def _belongs(key: str, model: nn.Module) -> bool:
    """Says whether a surplus weight lies inside the model: one layer more, or one more weight of a layer.

    What lies beside it belongs to another head of the same network, which published files often hold too.
    """
    if _IGNORED_BUFFERS.search(key):
        return False
    parts = key.split(".")
    modules = dict(model.named_modules())
    for length in range(len(parts) - 1, 0, -1):
        parent = modules.get(".".join(parts[:length]))
        if parent is not None:
            return isinstance(parent, nn.ModuleList) or not list(parent.children())
    return False


def _library(where: str) -> Any:
    """Returns the library's registry of architectures."""
    try:
        from transformers.models.auto import modeling_auto
    except ImportError as exc:
        raise ModelError(
            f"{where} needs transformers; install Shoal with its extra: pip install 'shoal[huggingface]'"
        ) from exc
    return modeling_auto


def _config(library: Any, settings: Mapping[str, Any], source: ModelSource, where: str) -> Any:
    """Returns the library's configuration object."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = str(settings.get("model_type") or _type_of(library, settings))
    if kind in _REFUSED_TYPES:
        raise UnsupportedModelError(f"{where} wraps a model of another library; use {_REFUSED_TYPES[kind]}")
    if kind not in library.CONFIG_MAPPING_NAMES:
        import transformers

        raise UnsupportedModelError(
            f"{where} has the model type {kind!r}, which transformers {transformers.__version__} does not have"
        )
    clean = {**_without_dropped(settings), **_FIXED}
    clean.pop("model_type", None)
    if source.num_classes is not None:
        clean.update(num_labels=source.num_classes)
        clean.pop("id2label", None), clean.pop("label2id", None)
    try:
        return CONFIG_MAPPING[kind](**clean)
    except Exception as exc:  # the library checks configs with whatever exception is at hand
        reason = next((line for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
        raise ModelError(f"{where}: the config describes no {kind!r} ({reason[:200]})") from exc


def _without_dropped(value: Any) -> Any:
    """Returns settings, at any depth, without those that do not describe the model."""
    if isinstance(value, Mapping):
        return {k: _without_dropped(v) for k, v in value.items() if not _DROPPED.fullmatch(str(k))}
    return value


def _type_of(library: Any, settings: Mapping[str, Any]) -> str | None:
    """Returns the model type that an old config states by its class only."""
    names = _architectures(settings)
    for table in TASKS.values():
        for kind, classes in getattr(library, table).items():
            if any(name in names for name in _names(classes)):
                return str(kind)
    return None


def _class(library: Any, config: Any, settings: Mapping[str, Any], source: ModelSource) -> Any:
    """Returns the class: that of the user's task, else the config's own, else what the type is best known for."""
    import transformers

    kind = config.model_type
    tables = {task: getattr(library, table) for task, table in TASKS.items()}
    heads = {task: _names(table[kind])[0] for task, table in tables.items() if kind in table}
    task = source.options.get("task")
    if task is not None and task not in heads:
        raise OptionError("source.options.task", f"{kind} has no head for {task!r}; it has {', '.join(heads)}")
    if task is None and _architectures(settings):
        name = _architectures(settings)[0]
        if name not in _registered(library):
            raise UnsupportedModelError(f"the config names the architecture {name!r}, which transformers does not have")
        chosen = getattr(transformers, name)
        if chosen.config_class is not type(config):
            raise ModelError(f"the config names the architecture {name!r}, but is one of a {kind!r} model")
        return chosen
    if task is None:
        task = _usual_task(heads, kind)
    return getattr(transformers, heads[str(task)])


def _usual_task(heads: Mapping[str, str], kind: str) -> str:
    """Returns the task of a model that states none."""
    usual = ["image-classification", "audio-classification"]
    usual += ["feature-extraction"] if "masked-lm" in heads else ["causal-lm", "feature-extraction"]
    found = next((task for task in usual if task in heads), next(iter(heads), None))
    if found is None:
        raise UnsupportedModelError(f"transformers has no head for {kind!r} that Shoal knows")
    return found


def _registered(library: Any) -> set[str]:
    """Returns the names of all classes in the library's registry."""
    tables = [getattr(library, name) for name in dir(library) if re.fullmatch(r"MODEL_\w*MAPPING_NAMES", name)]
    return {name for table in tables for value in table.values() for name in _names(value)}


def _names(classes: Any) -> list[str]:
    """Returns the class names in one entry of a table."""
    return [classes] if isinstance(classes, str) else [str(name) for name in classes]


def _architectures(settings: Mapping[str, Any]) -> list[str]:
    names = settings.get("architectures")
    return [str(name) for name in names] if isinstance(names, list) else []


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the library's advice and progress bars from our user."""
    from transformers.utils import logging as advice

    library_log: Any = advice
    log = logging.getLogger("transformers")
    level, bars = log.level, library_log.is_progress_bar_enabled()
    log.setLevel(logging.CRITICAL)
    library_log.disable_progress_bar()
    try:
        yield
    finally:
        log.setLevel(level)
        if bars:
            library_log.enable_progress_bar()
