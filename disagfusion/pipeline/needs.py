"""What some options need beside diffusers: without it a stage would load and then fail its jobs."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping

import diffusers
import torch

from disagfusion.errors import InvalidArgumentError
from disagfusion.pipeline.options import LoadOptions

# By kind of device, as torch's compiler for it looks for it: a variable, or else programs.
_COMPILERS = {"cpu": ("CXX", ("g++",)), "cuda": ("CC", ("gcc", "clang"))}
_BITSANDBYTES = "bitsandbytes"


def check_needs(kinds: Mapping[str, type | None], options: LoadOptions) -> None:
    """Check that what options need is there, before anything large is loaded.

    Args:
        kinds: The classes of the components that the stage loads, by name.
        options: How they are loaded and run.

    Raises:
        InvalidArgumentError: Naming the option, and what it needs.
    """
    if any(_is_compiled(kind, options) for kind in kinds.values()):
        _check_compiler(options.device)
    if any(_is_quantized(name, kind, options) for name, kind in kinds.items()):
        _check_backend(options)


def _is_compiled(kind: type | None, options: LoadOptions) -> bool:
    if options.compile is None or kind is None or not issubclass(kind, diffusers.ModelMixin):
        return False
    return options.compile.scope == "model" or bool(getattr(kind, "_repeated_blocks", None))


def _is_quantized(name: str, kind: type | None, options: LoadOptions) -> bool:
    wanted = options.quantization
    if wanted is None or kind is None or not issubclass(kind, torch.nn.Module):
        return False
    return not wanted.components or name in wanted.components


def _check_compiler(device: str) -> None:
    """Look for the compiler; torch itself does so when the first job comes."""
    known = _COMPILERS.get(device.partition(":")[0])
    if known is None:
        return
    variable, programs = known
    given = os.environ.get(variable)
    if not any(shutil.which(program) for program in ([given] if given else programs)):
        looked_for = f"{given}, of {variable}" if given else " or ".join(programs)
        raise InvalidArgumentError(
            "compile",
            f"needs a C compiler, and there is no {looked_for}",
            expected="an image with one, or no compile option",
        )


def _check_backend(options: LoadOptions) -> None:
    assert options.quantization is not None
    backend = options.quantization.backend
    if backend.startswith(_BITSANDBYTES) and importlib.util.find_spec(_BITSANDBYTES) is None:
        raise InvalidArgumentError(
            "quantization",
            f"{backend} needs the package {_BITSANDBYTES}, which is not installed",
            expected="an image with it, or no quantization",
        )
