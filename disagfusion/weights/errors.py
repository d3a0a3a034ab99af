"""What can go wrong with a fetch, and the status with which the command ends then."""

from __future__ import annotations

from disagfusion.errors import DisagfusionError


class WeightsError(DisagfusionError):
    """The weights cannot be had.

    Attributes:
        status: Of the process.
    """

    default_reason = "WEIGHTS_UNUSABLE"
    status = 1


class SourceNotFoundError(WeightsError):
    """There is no such repository, revision, directory or file."""

    default_reason = "MODEL_NOT_FOUND"
    status = 3


class SourceDeniedError(WeightsError):
    """The source wants a token, or another one."""

    default_reason = "MODEL_NOT_ALLOWED"
    status = 4


class NoSpaceError(WeightsError):
    """They do not fit."""

    default_reason = "NO_SPACE"
    status = 5


class CorruptError(WeightsError):
    """What came is not what was promised, or not what was fetched once."""

    default_reason = "WEIGHTS_CORRUPT"
    status = 6


class UnreachableError(WeightsError):
    """The source does not answer, or stops in the middle, again and again."""

    default_reason = "SOURCE_UNREACHABLE"
    status = 7
