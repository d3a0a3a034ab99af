"""A process that has everything imported and forks a child for each call.

Importing torch, diffusers and the families' classes takes half a minute; a fork takes
milliseconds. Nothing of ours is imported here, and no torch operation runs, so a child is as
clean as a fresh interpreter. A call is one connection to a Unix socket: a line of JSON in, JSON
out, then the child ends.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import socket
import sys
import traceback

PR_SET_PDEATHSIG = 1
SECONDS = 110


def preload() -> None:
    import diffusers
    import transformers
    from diffusers.modular_pipelines.modular_pipeline import MODULAR_PIPELINE_MAPPING

    for name in (
        *(choose() for choose in MODULAR_PIPELINE_MAPPING.values()),
        "FluxPipeline FluxImg2ImgPipeline FluxKontextPipeline Flux2Pipeline Flux2KleinPipeline",
        "StableDiffusion3Pipeline StableDiffusion3Img2ImgPipeline StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline StableDiffusionXLInpaintPipeline ZImagePipeline",
        "QwenImagePipeline QwenImageImg2ImgPipeline QwenImageEditPipeline WanPipeline",
        "WanImageToVideoPipeline HunyuanVideo15Pipeline LTXPipeline LTXImageToVideoPipeline",
        "Cosmos3OmniPipeline ErnieImagePipeline Krea2Pipeline HeliosPipeline",
    ):
        for part in name.split():
            cls = getattr(diffusers, part)
            blocks = getattr(cls, "default_blocks_name", None)
            if blocks:
                getattr(diffusers, blocks)
    for name in (
        "CLIPTextModel CLIPVisionModel T5EncoderModel UMT5EncoderModel Qwen3Model CLIPTokenizer",
        "Qwen2_5_VLForConditionalGeneration Mistral3ForConditionalGeneration T5Tokenizer",
        "Qwen2Tokenizer Qwen2VLProcessor CLIPImageProcessor ByT5Tokenizer AutoTokenizer",
    ):
        for part in name.split():
            getattr(transformers, part)
    for module in ("diffusers.pipelines.auto_pipeline", "diffusers.guiders", "pydantic"):
        importlib.import_module(module)
    importlib.import_module("familykit.workers")
    importlib.import_module("familykit.models")


def answer(connection: socket.socket) -> None:
    with connection, connection.makefile("rw", encoding="utf-8") as file:
        call = json.loads(file.readline())
        try:
            worker = getattr(importlib.import_module("familykit.workers"), call["function"])
            result = {"result": worker(**call["arguments"]), "pid": os.getpid()}
        except Exception as error:  # noqa: BLE001 - told to the test, which raises it
            result = {"error": f"{type(error).__name__}: {error}\n{traceback.format_exc()}"}
        json.dump(result, file)


def main(path: str) -> None:
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                # A child ends with the server, and when nobody can be waiting any more.
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                signal.alarm(SECONDS)
                listener.close()
                answer(connection)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
            connection.close()


if __name__ == "__main__":
    main(sys.argv[1])
