"""Calls that outlast a lost connection. Everything here is safe to repeat.

Reading is, cancelling is idempotent, and a submission carries a client request id, under which the
service finds the job that an earlier try has made.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from disagfusion.client.retry import RetryPolicy, jitter
from disagfusion.client.transport import ClientTransport
from disagfusion.client.types import JobEvent, Output
from disagfusion.errors import (
    DataLossError,
    DeadlineExceededError,
    DisagfusionError,
    UnavailableError,
)

T = TypeVar("T")


class _Outage:
    """A row of failures without a success between them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.over()

    def over(self) -> None:
        self._began: float | None = None
        self._repetition = 0

    async def wait(self, error: DisagfusionError, tried_at: float) -> None:
        """Wait before the next try, or raise the error if there shall be none."""
        session, now = self._session, time.monotonic()
        # What held for so long was no failure to connect, even if nothing was said.
        if self._began is None or now - tried_at > session.policy.maximum:
            self._began, self._repetition = now, 0
        self._repetition += 1
        delay = session.policy.delay(self._repetition, error, jitter)
        if delay is None or now + delay - self._began > session.timeout:
            raise error
        await asyncio.sleep(delay)


class Session:
    """A transport, made patient.

    Args:
        transport: Tries each call once.
        timeout: Seconds that a call may take, repetitions included, and for which the service may
            be away while a job is followed or a result is fetched.
        policy: When to try again.
    """

    def __init__(
        self, transport: ClientTransport, timeout: float, policy: RetryPolicy | None = None
    ) -> None:
        self.transport = transport
        self.timeout = timeout
        self.policy = policy or RetryPolicy()

    async def call(self, once: Callable[[], Awaitable[T]]) -> T:
        """Make a call until it succeeds, fails for good, or takes too long.

        Args:
            once: Tries it once.
        """
        outage = _Outage(self)
        began = time.monotonic()
        last: DisagfusionError | None = None
        while True:
            tried_at = time.monotonic()
            try:
                return await asyncio.wait_for(once(), max(0.0, began + self.timeout - tried_at))
            except TimeoutError:
                problem = f"no answer within {self.timeout:g} s"
                raise last or DeadlineExceededError(problem, reason="NO_ANSWER") from None
            except DisagfusionError as error:
                last = error
            await outage.wait(last, began)

    async def events(self, job_id: str, after_sequence: int) -> AsyncGenerator[JobEvent, None]:
        """Yield a job's events up to the last, reconnecting where the connection is lost.

        Args:
            job_id: The job.
            after_sequence: The number after which to begin.
        """
        outage = _Outage(self)
        sequence = after_sequence
        while True:
            tried_at = time.monotonic()
            try:
                async with aclosing(self.transport.watch(job_id, sequence)) as events:
                    async for event in events:
                        outage.over()
                        sequence = max(sequence, event.sequence)
                        yield event
                        if event.state.ended:
                            return
                raise UnavailableError(f"the events of job {job_id} ended early")
            except DisagfusionError as error:
                problem = error
            await outage.wait(problem, tried_at)

    async def fetch(self, job_id: str, output: Output) -> bytes:
        """Return an output's bytes, going on where a transfer broke off.

        Raises:
            DataLossError: They are not what the service said they would be.
        """
        outage = _Outage(self)
        content = bytearray()
        while len(content) < output.size_bytes:
            tried_at = time.monotonic()
            try:
                source = self.transport.fetch(job_id, output.index, len(content))
                async with aclosing(source) as chunks:
                    async for chunk in chunks:
                        outage.over()
                        content += chunk
                        if len(content) > output.size_bytes:
                            break
                if len(content) < output.size_bytes:
                    raise UnavailableError(f"output {output.index} of job {job_id} ended early")
            except DisagfusionError as error:
                problem = error
            else:
                break
            await outage.wait(problem, tried_at)
        if hashlib.sha256(content).hexdigest() != output.sha256:
            raise DataLossError(
                f"output {output.index} of job {job_id} arrived damaged",
                metadata={"job_id": job_id},
            )
        return bytes(content)
