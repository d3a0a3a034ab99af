"""Every exception that DisagFusion raises on purpose.

    DisagfusionError
    ├── InvalidArgumentError      the request is wrong, wherever it is sent
    ├── UnauthenticatedError      no API key, or a wrong one
    ├── PermissionDeniedError     the key is known, the thing is somebody else's
    ├── NotFoundError
    ├── AlreadyExistsError        same client request id, other content
    ├── FailedPreconditionError   right request, wrong state
    ├── AbortedError              somebody else changed it meanwhile: read it again
    ├── ResourceExhaustedError    a queue, disk or quota is full; says when to come back
    ├── UnavailableError          safe to retry
    ├── DeadlineExceededError
    ├── JobCancelledError
    ├── DataLossError             corrupt data
    ├── UnimplementedError
    └── InternalError
        └── JobFailedError        an accepted job ended FAILED

Each carries a `reason`, an upper-case identifier for programs, beside the message for people.
`disagfusion.rpc.errors` holds the one table from these classes to gRPC status codes.
"""

from __future__ import annotations

from collections.abc import Mapping

ERROR_DOMAIN = "disagfusion.dev"


class DisagfusionError(Exception):
    """The root of the tree.

    Args:
        message: One readable sentence for a person.
        reason: Upper-case identifier for programs; the class's default where not given.
        metadata: Small facts a program may want, such as a job id.
    """

    default_reason = "INTERNAL"

    def __init__(
        self, message: str, *, reason: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})


class InvalidArgumentError(DisagfusionError):
    """A field of the request is wrong.

    Args:
        field: The field's name as the user wrote it, such as `height`.
        message: What is wrong with it.
        expected: What would have been right, such as `a multiple of 16`.
    """

    default_reason = "INVALID_ARGUMENT"

    def __init__(
        self,
        field: str,
        message: str,
        *,
        expected: str = "",
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        text = f"{field}: {message}" + (f" (expected {expected})" if expected else "")
        super().__init__(
            text, reason=reason, metadata={"field": field, "expected": expected, **(metadata or {})}
        )
        self.field = field
        self.expected = expected


class UnauthenticatedError(DisagfusionError):
    """No API key was given, or one that is not known."""

    default_reason = "UNAUTHENTICATED"


class PermissionDeniedError(DisagfusionError):
    """The caller is known but may not do this."""

    default_reason = "PERMISSION_DENIED"


class NotFoundError(DisagfusionError):
    """There is no such thing, or none that the caller may see."""

    default_reason = "NOT_FOUND"


class AlreadyExistsError(DisagfusionError):
    """The client request id was used before, with other content."""

    default_reason = "ALREADY_EXISTS"


class FailedPreconditionError(DisagfusionError):
    """The request is right but the thing is in the wrong state for it."""

    default_reason = "FAILED_PRECONDITION"


class AbortedError(DisagfusionError):
    """Somebody else changed the thing meanwhile: what the change rested on must be read again."""

    default_reason = "ABORTED"


class _RetryableError(DisagfusionError):
    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_after = retry_after


class ResourceExhaustedError(_RetryableError):
    """A queue, a disk or a quota is full.

    Args:
        retry_after: Seconds after which it is worth trying again, where known.
    """

    default_reason = "RESOURCE_EXHAUSTED"


class UnavailableError(_RetryableError):
    """The service cannot answer now; the same call is safe to repeat.

    Args:
        retry_after: Seconds after which it is worth trying again, where known.
    """

    default_reason = "UNAVAILABLE"


class DeadlineExceededError(DisagfusionError):
    """The time that was allowed is over."""

    default_reason = "DEADLINE_EXCEEDED"


class JobCancelledError(DisagfusionError):
    """The job was cancelled."""

    default_reason = "CANCELLED"


class DataLossError(DisagfusionError):
    """Data arrived or was read damaged."""

    default_reason = "DATA_LOSS"


class UnimplementedError(DisagfusionError):
    """The protocol has a name for it, this version does not do it."""

    default_reason = "UNIMPLEMENTED"


class InternalError(DisagfusionError):
    """Something failed that the caller could not have avoided."""

    default_reason = "INTERNAL"


class JobFailedError(InternalError):
    """An accepted job ended FAILED."""

    default_reason = "JOB_FAILED"
