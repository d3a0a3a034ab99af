"""What the machine wants done, and the values that pass through it."""

from __future__ import annotations

from dataclasses import dataclass

from disagfusion.transport.api import MessageHeader, TensorInfo
from disagfusion.v1 import generation_pb2, stage_pb2


@dataclass(frozen=True, slots=True)
class OutputKey:
    """Names what one stage produced for one attempt of a job."""

    job_id: str
    stage: int
    attempt: int

    @classmethod
    def of(cls, message: stage_pb2.OutputKey) -> OutputKey:
        """From the wire."""
        return cls(message.job_id, message.stage, message.attempt)

    def to_message(self) -> stage_pb2.OutputKey:
        """To the wire."""
        return stage_pb2.OutputKey(
            job_id=self.job_id,
            stage=generation_pb2.Stage.ValueType(self.stage),
            attempt=self.attempt,
        )


@dataclass(frozen=True, slots=True)
class Product:
    """What an engine made of a run.

    Attributes:
        nbytes: Length of the payload in the memory that was given.
        tensors: The tensors in it.
        structure: The values that are not tensors.
        media: A decoder's encoded results, one after the other in the payload.
        compute_seconds: In the model alone.
        steps: Denoising steps.
        prompt_cache: "hit", "miss" or "".
    """

    nbytes: int
    tensors: tuple[TensorInfo, ...] = ()
    structure: bytes = b""
    media: tuple[generation_pb2.Output, ...] = ()
    compute_seconds: float = 0.0
    steps: int = 0
    prompt_cache: str = ""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a loaded engine says of itself."""

    spec_json: str = ""
    version: str = ""
    device: str = ""
    accelerators: int = 1
    threads: int = 0
    load_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message to a connected gateway."""

    gateway: str
    message: stage_pb2.WorkResponse


@dataclass(frozen=True, slots=True)
class EndSession:
    """End a stream: its gateway has opened another."""

    session: str


@dataclass(frozen=True, slots=True)
class RunOnEngine:
    """Have the engine compute; the input lies at `offset`, described by `header`."""

    run_id: int
    assignment: stage_pb2.Assignment
    offset: int = 0
    header: MessageHeader | None = None


@dataclass(frozen=True, slots=True)
class CancelOnEngine:
    """Have the engine stop a run at its next step."""

    run_id: int


@dataclass(frozen=True, slots=True)
class GiveSpace:
    """Give an engine memory for an output; a negative offset means that there will be none."""

    run_id: int
    offset: int
    reason: str = ""
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class StartEngine:
    """Start an engine."""


@dataclass(frozen=True, slots=True)
class SendOutput:
    """Hand a held output over; it stays where it is until `sent` or `send_failed`."""

    send_id: int
    key: OutputKey
    offset: int
    nbytes: int
    tensors: tuple[TensorInfo, ...]
    structure: bytes
    request: stage_pb2.SendOutput


@dataclass(frozen=True, slots=True)
class StageEnded:
    """An assignment came to its end; for metrics, traces and the log."""

    assignment: stage_pb2.Assignment
    record: generation_pb2.StageRecord
    kind: int = 0
    message: str = ""
    prompt_cache: str = ""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The worker's state is another."""

    state: int
    reason: str


@dataclass(frozen=True, slots=True)
class TakeStage:
    """Let the engine make way for one of another stage; nothing is computed meanwhile."""

    stage: int


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing is left; the service may end."""


Action = (
    Tell
    | EndSession
    | RunOnEngine
    | CancelOnEngine
    | GiveSpace
    | StartEngine
    | SendOutput
    | StageEnded
    | StateChanged
    | TakeStage
    | Drained
)
