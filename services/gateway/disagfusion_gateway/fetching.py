"""Bringing encoded results from the decoders to the result store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc

from disagfusion import failpoints
from disagfusion.dispatch import actions, events
from disagfusion.errors import (
    DataLossError,
    DisagfusionError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from disagfusion.jobs.model import Output
from disagfusion.jobs.results import ResultKey, ResultStorageError, ResultStore
from disagfusion.jobs.retention import discard_result
from disagfusion.jobs.store import JobStore
from disagfusion.rpc.errors import from_rpc_error
from disagfusion.telemetry.logging import get_logger
from disagfusion.v1 import stage_pb2
from disagfusion_gateway.sessions import Sessions
from disagfusion_gateway.worker_messages import key_message

_TRIES = 4
_PAUSE_SECONDS = 0.1
_SILENCE_SECONDS = 10.0

_log = get_logger(__name__)

Post = Callable[[events.Event], None]


class ResultFetcher:
    """Fetches what decoders hold, a bounded number at a time.

    Args:
        sessions: The workers.
        store: Knows which results count.
        results: Where they go.
        concurrency: Results that are fetched at a time.
    """

    def __init__(
        self, sessions: Sessions, store: JobStore, results: ResultStore, *, concurrency: int
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._results = results
        self._permits = asyncio.Semaphore(concurrency)
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}

    def fetch(self, action: actions.FetchResult, post: Post) -> None:
        """Begin to fetch the outputs of an attempt; `post` is told what became of it."""
        self._begin((action.output.job_id, action.attempt), self._fetch(action, post))

    def discard(self, action: actions.DiscardResult) -> None:
        """Begin to remove what was stored for an attempt; a fetch that goes on is ended."""
        key = (action.job_id, action.attempt)
        self._begin(key, discard_result(self._store, self._results, *key))

    async def aclose(self) -> None:
        """End all that goes on."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, key: tuple[str, int], work: Coroutine[Any, Any, object]) -> None:
        before = self._tasks.get(key)
        if before is not None:
            before.cancel()
        task = asyncio.create_task(self._after(before, work))
        self._tasks[key] = task

        def ended(_: asyncio.Task[None]) -> None:
            if self._tasks.get(key) is task:
                del self._tasks[key]

        task.add_done_callback(ended)

    async def _after(
        self, before: asyncio.Task[None] | None, work: Coroutine[Any, Any, object]
    ) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            await work
        except DisagfusionError as error:
            # Only removing gets here; what is left over is found by the next cleaning.
            _log.warning("results not removed", problem=error.message)
        finally:
            work.close()

    async def _fetch(self, action: actions.FetchResult, post: Post) -> None:
        job_id, attempt = action.output.job_id, action.attempt
        try:
            async with self._permits:
                for output in action.media:
                    key = ResultKey(job_id, attempt, output.index)
                    await self._results.write(key, output, self._chunks(action, output))
        except (NotFoundError, DataLossError, InvalidArgumentError, FailedPreconditionError) as e:
            failure, message = events.ResultFailure.LOST, e.message
        except (ResourceExhaustedError, ResultStorageError) as error:
            failure, message = events.ResultFailure.STORAGE, error.message
        except DisagfusionError as error:
            failure, message = events.ResultFailure.UNAVAILABLE, error.message
        except Exception as error:  # noqa: BLE001 - without an outcome the job would wait for ever
            _log.exception("result not fetched", job_id=job_id, attempt=attempt)
            failure, message = events.ResultFailure.UNAVAILABLE, f"{type(error).__name__}: {error}"
        else:
            failpoints.reach("gateway.result.stored")
            post(events.ResultStored(job_id, attempt, action.media))
            return
        _log.warning("result not fetched", job_id=job_id, attempt=attempt, problem=message)
        post(events.ResultFailed(job_id, attempt, failure, message))

    async def _chunks(self, action: actions.FetchResult, output: Output) -> AsyncIterator[bytes]:
        """Yield an output's bytes; a transfer that breaks goes on where it was."""
        offset = 0
        tries = 0
        while offset < output.size_bytes:
            try:
                async for chunk in self._transfer(action, output, offset):
                    offset += len(chunk)
                    tries = 0
                    yield chunk
                break
            except UnavailableError:
                tries += 1
                if tries >= _TRIES:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS * tries)

    async def _transfer(
        self, action: actions.FetchResult, output: Output, offset: int
    ) -> AsyncIterator[bytes]:
        session = self._sessions.get(action.worker, action.incarnation)
        if session is None:
            raise UnavailableError(f"{action.worker} is not connected")
        request = stage_pb2.FetchMediaRequest(
            output=key_message(action.output), index=output.index, offset=offset
        )
        call = session.stub.FetchMedia(request)
        try:
            while True:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    message = await call.read()
                if not isinstance(message, stage_pb2.FetchMediaResponse):
                    return
                yield message.chunk
        except TimeoutError:
            raise UnavailableError(f"{action.worker} does not answer") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # A channel that closes cancels its calls.
            raise UnavailableError(f"the connection to {action.worker} broke") from None
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()
