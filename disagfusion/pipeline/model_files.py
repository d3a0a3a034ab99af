"""A model's files: the index that names its components, and the digest that is its version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError
from disagfusion.pipeline.options import LoadOptions

INDEX_NAME = "model_index.json"
MODULAR_INDEX_NAME = "modular_model_index.json"
PRESET_NAME = "disagfusion.json"
RECORD_NAME = "disagfusion-weights.json"
"""In a directory that has a part of a model's files, says what the whole is; see `weights`."""
_HASHED_WHOLE = {".json", ".txt", ".model", ".jinja"}
_HASHED_BY_SAMPLE = {".safetensors", ".bin", ".pt", ".pth", ".gguf"}
_HASHED_WHOLE_LIMIT = 32 * 1024 * 1024
_SAMPLE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ModelIndex:
    """The index of a model.

    Attributes:
        model: Local directory or hub id, as it was given.
        directory: Where the files are, or None for a hub id.
        modular: Whether it is a modular index.
        content: The index.
        preset: Request parameters that the model's directory declares as its defaults.
        version: Digest over configurations and weights, or the commit of a hub repository.
    """

    model: str
    directory: Path | None
    modular: bool
    content: dict[str, Any]
    preset: dict[str, Any]
    version: str

    @property
    def components(self) -> frozenset[str]:
        """Names of the components that the model has."""
        return frozenset(
            name
            for name, value in self.content.items()
            if isinstance(value, list) and len(value) >= 2 and (self.modular or value[1])
        )


def missing(model: str, why: str) -> FailedPreconditionError:
    """Return the error for a model that is not there."""
    return FailedPreconditionError(f"model {model}: {why}", reason="MODEL_NOT_FOUND")


def damaged(model: str, why: str) -> FailedPreconditionError:
    """Return the error for a model that is there but cannot be used."""
    return FailedPreconditionError(f"model {model}: {why}", reason="MODEL_DAMAGED")


def read_index(model: str, options: LoadOptions) -> ModelIndex:
    """Read a model's index.

    Args:
        model: Local directory in diffusers' layout, or hub id.
        options: `revision` and `local_files_only` apply to a hub id.

    Raises:
        InvalidArgumentError: `model` is empty.
        FailedPreconditionError: Reason MODEL_NOT_FOUND or MODEL_DAMAGED.
    """
    check_there(model)
    directory = Path(model)
    if directory.is_dir():
        return _read_directory(model, directory)
    return _read_hub(model, options)


def check_there(model: str) -> None:
    """Check that a local model has an index, as far as that can be seen at once; a hub id passes.

    Raises:
        InvalidArgumentError: `model` is empty.
        FailedPreconditionError: Reason MODEL_NOT_FOUND.
    """
    if not model:
        raise InvalidArgumentError("model", "is empty", expected="a directory or a hub id")
    directory = Path(model)
    try:
        if directory.is_dir():
            if not any((directory / name).is_file() for name in (MODULAR_INDEX_NAME, INDEX_NAME)):
                raise missing(
                    model, f"the directory has neither {INDEX_NAME} nor {MODULAR_INDEX_NAME}"
                )
        elif model.startswith((".", "/", "~")) or model.count("/") > 1 or directory.exists():
            raise missing(model, "no such directory")
    except OSError as error:
        raise missing(model, f"cannot be read ({error.strerror or error})") from error


def _read_directory(model: str, directory: Path) -> ModelIndex:
    for name in (MODULAR_INDEX_NAME, INDEX_NAME):
        path = directory / name
        if path.is_file():
            content = _read_json(model, path)
            preset_path = directory / PRESET_NAME
            preset = _read_json(model, preset_path) if preset_path.is_file() else {}
            return ModelIndex(
                model=model,
                directory=directory,
                modular=name == MODULAR_INDEX_NAME,
                content=content,
                preset=_preset_defaults(model, preset),
                version=directory_version(directory),
            )
    raise missing(model, f"the directory has neither {INDEX_NAME} nor {MODULAR_INDEX_NAME}")


def _preset_defaults(model: str, preset: dict[str, Any]) -> dict[str, Any]:
    defaults = preset.get("defaults", {})
    if not isinstance(defaults, dict) or not all(
        isinstance(value, (bool, int, float, str)) for value in defaults.values()
    ):
        raise damaged(model, f"{PRESET_NAME}: defaults must be an object of plain values")
    return defaults


def _read_json(model: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(model, f"{path.name} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise damaged(model, f"{path.name} is not an object")
    return content


def _read_hub(model: str, options: LoadOptions) -> ModelIndex:
    # Only here: a local model needs no hub client.
    from huggingface_hub import hf_hub_download, model_info
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    found: Path | None = None
    for name in (MODULAR_INDEX_NAME, INDEX_NAME):
        try:
            found = Path(
                hf_hub_download(
                    model,
                    name,
                    revision=options.revision,
                    local_files_only=options.local_files_only,
                )
            )
            break
        except LocalEntryNotFoundError as error:
            raise missing(model, f"neither a local directory nor reachable ({error})") from error
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise missing(model, f"cannot be fetched from the hub ({error})") from error
    if found is None:
        raise missing(model, f"the repository has neither {INDEX_NAME} nor {MODULAR_INDEX_NAME}")
    # The hub's cache keeps snapshots by commit.
    version = found.parent.name
    if not options.local_files_only and len(version) != 40:
        version = str(model_info(model, revision=options.revision).sha)
    return ModelIndex(
        model=model,
        directory=None,
        modular=found.name == MODULAR_INDEX_NAME,
        content=_read_json(model, found),
        preset={},
        version=version[:16],
    )


def directory_version(directory: Path) -> str:
    """Return the version of the model that a directory has, or of which it has a part.

    Raises:
        FailedPreconditionError: The directory's record cannot be read.
    """
    record = directory / RECORD_NAME
    if not record.is_file():
        return _digest(directory)
    version = _read_json(str(directory), record).get("version")
    if not (isinstance(version, str) and version):
        raise damaged(str(directory), f"{RECORD_NAME} names no version")
    return version


def _digest(directory: Path) -> str:
    # Of weights the size and both ends: fast, and still another digest after another training.
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            continue
        size = path.stat().st_size
        name = path.relative_to(directory).as_posix()
        if path.suffix in _HASHED_WHOLE and size <= _HASHED_WHOLE_LIMIT:
            digest.update(f"{name}\0{size}\0".encode() + path.read_bytes())
        elif path.suffix in _HASHED_BY_SAMPLE or path.suffix in _HASHED_WHOLE:
            digest.update(f"{name}\0{size}\0".encode() + _ends(path, size))
    return digest.hexdigest()[:16]


def _ends(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        head = file.read(_SAMPLE_BYTES)
        file.seek(max(size - _SAMPLE_BYTES, 0))
        return head + file.read(_SAMPLE_BYTES)
