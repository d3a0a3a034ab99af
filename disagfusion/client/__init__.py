"""The SDK.

    from disagfusion.client import Client

    with Client("localhost:8000") as client:
        result = client.generate("a handwritten seven in red", seed=7)
    result.save("seven.png")

Exceptions are those of `disagfusion.errors`.
"""

from typing import TYPE_CHECKING, Any

from disagfusion.client.aio import AsyncClient, AsyncJobHandle
from disagfusion.client.mock import MockTransport
from disagfusion.client.result import GenerationResult, OutputFile
from disagfusion.client.retry import RetryPolicy
from disagfusion.client.sync import Client, JobHandle
from disagfusion.client.transport import ClientTransport
from disagfusion.client.types import (
    Generation,
    GenerationOptions,
    ImageInput,
    InputImage,
    Job,
    JobEvent,
    JobPage,
    JobState,
    Output,
    OutputFormat,
    ParameterValue,
    Pipeline,
    Progress,
    Stage,
    StageRecord,
    StageStatus,
    Submission,
)

if TYPE_CHECKING:
    from disagfusion.rpc.tls import TlsSettings

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "Client",
    "ClientTransport",
    "Generation",
    "GenerationOptions",
    "GenerationResult",
    "ImageInput",
    "InputImage",
    "Job",
    "JobEvent",
    "JobHandle",
    "JobPage",
    "JobState",
    "MockTransport",
    "Output",
    "OutputFile",
    "OutputFormat",
    "ParameterValue",
    "Pipeline",
    "Progress",
    "RetryPolicy",
    "Stage",
    "StageRecord",
    "StageStatus",
    "Submission",
    "TlsSettings",
]


def __getattr__(name: str) -> Any:
    if name == "TlsSettings":  # brings gRPC, which a `MockTransport` does without
        from disagfusion.rpc.tls import TlsSettings

        return TlsSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
