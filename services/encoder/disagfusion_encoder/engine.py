"""The encoder's engine: conditioning, from memory where the same was asked for before."""

from __future__ import annotations

import torch

from disagfusion.pipeline.stage_model import StageModel
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.payload import Payload
from disagfusion.stage.request import request_values
from disagfusion.stage.stage_engine import Result, StageEngine, Task
from disagfusion.v1 import engine_pb2
from disagfusion_encoder.prompt_cache import Encoding, PromptCache, cache_key


class EncoderEngine(StageEngine):
    """Encodes prompts and images, and remembers the encodings of prompts."""

    def __init__(self, model: StageModel, config: EngineConfig) -> None:
        super().__init__(model, config)
        self._cache = PromptCache(config.prompt_cache_bytes)

    def run(self, task: Task) -> Result:
        """Encode, or find the encoding in the cache; the bytes are the same."""
        request = request_values(task.generation)
        key = None
        if self.config.prompt_cache_bytes:
            complete = self.model.spec.complete(request)
            key = cache_key(self.model.spec.version, complete, task.tenant)
        if key is None:
            return Result(Payload.of_tree(self.compute(task, request)))
        found = self._cache.get(key)
        if found is not None:
            return Result(_payload(found), prompt_cache=engine_pb2.PROMPT_CACHE_RESULT_HIT)
        payload = Payload.of_tree(self.compute(task, request))
        self._cache.put(key, _encoding(payload))
        return Result(payload, prompt_cache=engine_pb2.PROMPT_CACHE_RESULT_MISS)


def _encoding(payload: Payload) -> Encoding:
    copy = bytearray(payload.nbytes)
    payload.write(memoryview(copy))
    return Encoding(bytes(copy), payload.tensors, payload.structure)


def _payload(encoding: Encoding) -> Payload:
    parts: tuple[tuple[int, torch.Tensor], ...] = ()
    if encoding.payload:
        whole = torch.frombuffer(bytearray(encoding.payload), dtype=torch.uint8)
        parts = ((0, whole),)
    return Payload(len(encoding.payload), encoding.layout, encoding.structure, parts)
