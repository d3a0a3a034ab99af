"""How failures look on the command line.

| exit status | meaning |
|---|---|
| 0 | it worked |
| 1 | the job failed, or something else went wrong |
| 2 | an argument is wrong |
| 3 | the API key is missing, unknown or not enough |
| 4 | what was named is not there, or not in the state for it (a port in use, for one) |
| 5 | the service cannot be reached or is full; the same command may work later |
| 6 | the time that was allowed is over |
| 7 | the job was cancelled |
| 130 | interrupted (Ctrl-C) |
| 143 | asked to end (SIGTERM) |
"""

from __future__ import annotations

from disagfusion.errors import (
    AlreadyExistsError,
    DeadlineExceededError,
    DisagfusionError,
    FailedPreconditionError,
    InvalidArgumentError,
    JobCancelledError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)

_STATUSES: dict[type[DisagfusionError], int] = {
    InvalidArgumentError: 2,
    UnauthenticatedError: 3,
    PermissionDeniedError: 3,
    NotFoundError: 4,
    AlreadyExistsError: 4,
    FailedPreconditionError: 4,
    UnavailableError: 5,
    ResourceExhaustedError: 5,
    DeadlineExceededError: 6,
    JobCancelledError: 7,
}
INTERRUPTED = 130
TERMINATED = 143


def exit_status(error: DisagfusionError) -> int:
    """The exit status of the table above."""
    return next((_STATUSES[cls] for cls in type(error).__mro__ if cls in _STATUSES), 1)


def one_line(error: BaseException) -> str:
    """What a person should read about an error."""
    if isinstance(error, DisagfusionError):
        text = error.message
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = f"{type(error).__name__}: {error} (--debug shows where)"
    return " ".join(text.split())
