"""The engine's process: `main` in a forked one, `python -m disagfusion.stage.engine` otherwise.

Importing this module is cheap; torch and diffusers come with `preload` or `main`.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disagfusion import failpoints
from disagfusion.stage.channel import EngineChannel
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.framing import FramingError
from disagfusion.stage.process import die_with_parent, provide_home
from disagfusion.telemetry import logging

# What an engine imports sooner or later, the parts included that libraries import when first used.
_MODULES = (
    "torch",
    "torchvision",
    "numpy",
    "PIL.Image",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "PIL.WebPImagePlugin",
    "av",
    "ftfy",
    "safetensors.torch",
    "accelerate",
    "transformers.modeling_utils",
    "diffusers",
    "diffusers.modular_pipelines",
    "disagfusion.stage.runner",
    "disagfusion_encoder.engine",
    "disagfusion_dit.engine",
    "disagfusion_decoder.engine",
)
# Of an engine that computes nothing: no torch.
_EMULATED_MODULES = (
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "PIL.WebPImagePlugin",
    "disagfusion.stage.runner",
    "disagfusion.emulation.engine",
)
_INDEX_NAMES = ("modular_model_index.json", "model_index.json")


def preload(model: str = "") -> None:
    """Import everything heavy, so that processes that are forked from here start fast.

    No torch operation, UCX or CUDA: none of these survives a fork. What emulated engines need, and
    neither torch nor diffusers, where DISAGFUSION_PRELOAD is "emulated".

    Args:
        model: A local directory whose model's classes are imported, too. Taken from
            DISAGFUSION_MODEL when empty.
    """
    emulated = os.environ.get("DISAGFUSION_PRELOAD") == "emulated"
    # Libraries ask for CUDA as they are imported: by NVML, which a fork survives.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    for name in _EMULATED_MODULES if emulated else _MODULES:
        importlib.import_module(name)
    if emulated:
        return
    directory = Path(model or os.environ.get("DISAGFUSION_MODEL", ""))
    for name in _INDEX_NAMES:
        if (directory / name).is_file():
            _import_classes(json.loads((directory / name).read_text()))
            return


def _import_classes(index: Mapping[str, Any]) -> None:
    """Import the classes that a model's index names; both libraries load them lazily."""
    import diffusers
    from diffusers.modular_pipelines.modular_pipeline import MODULAR_PIPELINE_MAPPING

    from disagfusion.pipeline.components import family_key

    for entry in index.values():
        if isinstance(entry, list) and len(entry) >= 2 and all(isinstance(e, str) for e in entry):
            library = importlib.import_module(entry[0])
            getattr(library, entry[1], None)
    name = str(index.get("_class_name", ""))
    family = family_key(name)
    if family in MODULAR_PIPELINE_MAPPING:
        cls = getattr(diffusers, MODULAR_PIPELINE_MAPPING[family](dict(index)))
        getattr(diffusers, cls.default_blocks_name)


def main(sock: socket.socket, config: EngineConfig | Mapping[str, Any]) -> int:
    """Be an engine until the front goes.

    Args:
        sock: The engine's end of the socket pair.
        config: An `EngineConfig`, or its JSON.

    Returns:
        The process's exit status.
    """
    if not isinstance(config, EngineConfig):
        config = EngineConfig.model_validate(config)
    os.environ.update(config.environment)
    provide_home()
    failpoints.configure()
    logging.configure(
        config.log_format,
        config.log_level,
        component="engine",
        stage=config.stage.value,
        worker=config.name,
        pipeline=config.pipeline,
    )
    # An interrupt from the keyboard goes to the whole group; the front decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    channel = EngineChannel(sock)
    try:
        memory = channel.attach()
    except (EOFError, FramingError, OSError, ValueError) as error:
        logging.get_logger(__name__).error("engine not started", problem=str(error))
        return 1
    channel.start()
    from disagfusion.stage.runner import EXIT_LOAD_FAILED, EngineRunner

    runner = EngineRunner(channel, memory, config)
    engine = runner.load()
    if engine is None:
        return EXIT_LOAD_FAILED
    gc.collect()
    gc.freeze()
    runner.serve(engine)


def _command_line() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the socket")
    parser.add_argument("--parent", type=int, required=True, help="process id of the front")
    parser.add_argument("--config", required=True, help="EngineConfig as JSON")
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    return main(socket.socket(fileno=arguments.socket), json.loads(arguments.config))


if __name__ == "__main__":
    sys.exit(_command_line())
