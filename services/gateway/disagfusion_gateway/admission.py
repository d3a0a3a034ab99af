"""Whether new jobs are taken."""

from __future__ import annotations

from dataclasses import dataclass

from disagfusion.errors import FailedPreconditionError


@dataclass(slots=True)
class Admission:
    """Open, until somebody closes it.

    Attributes:
        refusal: Why no new jobs are taken; empty: they are.
    """

    refusal: str = ""

    def check(self) -> None:
        """Let a new job pass.

        Raises:
            FailedPreconditionError: None are taken; to repeat the call would not help.
        """
        if self.refusal:
            raise FailedPreconditionError(
                f"no new jobs are taken: {self.refusal}", reason="ADMISSION_CLOSED"
            )
