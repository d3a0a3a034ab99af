"""Which of a model's files a stage needs. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from disagfusion.errors import FailedPreconditionError
from disagfusion.pipeline.model_files import (
    INDEX_NAME,
    MODULAR_INDEX_NAME,
    PRESET_NAME,
    ModelIndex,
    damaged,
)
from disagfusion.weights.listing import RemoteFile, suffix

_ROOT_FILES = (INDEX_NAME, MODULAR_INDEX_NAME, PRESET_NAME)
# Weights that are nothing but numbers; those that may be code; and of other frameworks.
_SAFE = ".safetensors"
_PICKLED = frozenset({".bin", ".pt", ".pth", ".ckpt"})
_FOREIGN = frozenset({".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".pb", ".tflite", ".xml"})
_PICTURES = frozenset({".gif", ".jpeg", ".jpg", ".md", ".mp4", ".pdf", ".png", ".webp"})
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def index_files(files: Iterable[RemoteFile]) -> dict[str, RemoteFile]:
    """Return the files at the root that say what the model is, by name."""
    return {file.path: file for file in files if file.path in _ROOT_FILES}


def select(
    files: Collection[RemoteFile],
    index: ModelIndex,
    components: Collection[str],
    variant: str | None = None,
) -> tuple[RemoteFile, ...]:
    """Return the files that a stage needs, sorted by path.

    These are the index; the configurations of all components, for a stage reads something of
    components that others own; and all files of its own components, but of the weights only one
    form.

    Args:
        files: All of the model's.
        index: The model's.
        components: The stage's own.
        variant: Of the weights, such as "fp16"; a component that has none of it comes without.

    Raises:
        FailedPreconditionError: A component has no files, or its weights are pickles.
    """
    chosen = dict(index_files(files))
    folders = _folders(index)
    for component in components:
        folder = folders[component]
        own = [file for file in files if file.path.startswith(f"{folder}/")]
        if not own:
            raise damaged(index.model, f"component {component} has no files in {folder}/")
        weights = [file for file in own if _is_weight(file.path)]
        safe = [file for file in weights if suffix(file.path) == _SAFE]
        if weights and not safe:
            raise FailedPreconditionError(
                f"model {index.model}: the weights of component {component} are pickles "
                f"({weights[0].path}), which may hold code; convert them to safetensors",
                reason="WEIGHTS_PICKLED",
            )
        chosen |= {file.path: file for file in (*_one_form(safe, variant), *_rest(own))}
    for folder in folders.values():
        chosen |= {file.path: file for file in files if _is_configuration(file.path, folder)}
    return tuple(chosen[path] for path in sorted(chosen))


def _folders(index: ModelIndex) -> Mapping[str, str]:
    folders = {}
    for name in index.components:
        entry = index.content[name]
        details = entry[2] if index.modular and len(entry) > 2 else {}
        elsewhere = details.get("pretrained_model_name_or_path") if details else None
        if elsewhere and elsewhere != index.model:
            raise FailedPreconditionError(
                f"model {index.model}: component {name} is in another repository, {elsewhere}; "
                "such models are fetched by the stages themselves",
                reason="MODEL_SCATTERED",
            )
        folders[name] = (details.get("subfolder") if details else None) or name
    return folders


def _is_configuration(path: str, folder: str) -> bool:
    name = PurePosixPath(path).name
    return (
        path.startswith(f"{folder}/")
        and suffix(path) == ".json"
        and "config" in name
        and not name.endswith(".index.json")
    )


def _one_form(weights: Collection[RemoteFile], variant: str | None) -> list[RemoteFile]:
    wanted = [file for file in weights if variant and _variant(file.path) == variant]
    return wanted or [file for file in weights if not _variant(file.path)] or list(weights)


def _rest(files: Iterable[RemoteFile]) -> Iterator[RemoteFile]:
    for file in files:
        if not _is_weight(file.path) and suffix(file.path) not in _FOREIGN | _PICTURES:
            yield file


def _is_weight(path: str) -> bool:
    return suffix(path) in {_SAFE} | _PICKLED


def _variant(path: str) -> str:
    """Return "fp16" for "model.fp16.safetensors" and "model.fp16-00001-of-00002.safetensors"."""
    stem = PurePosixPath(path).name.rpartition(".")[0]
    return _SHARD.sub("", stem).partition(".")[2]
