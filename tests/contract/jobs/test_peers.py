"""Several gateways on one PostgreSQL database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest
from postgres_server import PostgresServer
from sqlalchemy import Connection

from disagfusion.errors import (
    AlreadyExistsError,
    DataLossError,
    DisagfusionError,
    FailedPreconditionError,
    InvalidArgumentError,
    UnavailableError,
)
from disagfusion.jobs import sql_queries, sql_thread
from disagfusion.jobs.leases import RESIGNED
from disagfusion.jobs.model import Completion, JobError, JobState, Stage, StageRecord
from disagfusion.jobs.model import StaleTransitionError as Stale
from disagfusion.jobs.peers import Adopted, LeaseLostError, Peers
from disagfusion.jobs.retention import clean_results
from disagfusion.jobs.sql_engine import is_shared
from disagfusion.jobs.sql_store import SqlJobStore

from .storekit import IMAGE, decode, new, step, succeed

Open = Callable[[str], Any]


def peers_of(store: SqlJobStore) -> Peers:
    assert store.peers is not None
    return store.peers


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.database()


@pytest.fixture
async def opened(url: str) -> AsyncIterator[Open]:
    """Opens the store as a gateway of this name."""
    async with AsyncExitStack() as stack:

        async def open_as(name: str) -> SqlJobStore:
            store = SqlJobStore(url, owner=name, pipeline="flux")
            await stack.enter_async_context(store)
            return store

        yield open_as


async def test_gateways_that_start_at_once_make_one_schema(opened: Open) -> None:
    stores = await asyncio.gather(*(opened(f"g{n}") for n in range(6)))
    beats = await peers_of(stores[0]).beat()
    assert sorted(beats) == [f"g{n}" for n in range(6)]


async def test_a_request_id_is_one_job_wherever_it_is_repeated(opened: Open) -> None:
    stores = await asyncio.gather(*(opened(f"g{n}") for n in range(3)))
    made = await asyncio.gather(
        *(
            store.submit(new(f"job-{place}-{n}", client_request_id=f"r{n}"))
            for n in range(20)
            for place, store in enumerate(stores)
        )
    )
    jobs = {one.job.client_request_id: one.job.job_id for one in made if one.created}
    assert len(jobs) == sum(one.created for one in made) == 20
    assert all(jobs[one.job.client_request_id] == one.job.job_id for one in made)
    with pytest.raises(AlreadyExistsError):
        await stores[1].submit(new("other", client_request_id="r0", fingerprint="e" * 64))


async def test_only_the_owner_changes_a_job_and_everybody_reads_it(opened: Open) -> None:
    a, b = await opened("a"), await opened("b")
    await a.submit(new())
    change = step("job-1", JobState.QUEUED, JobState.ENCODING)
    with pytest.raises(Stale, match="belongs to the gateway a"):
        await b.transition(change)
    await a.transition(change)
    assert (await b.get("job-1", tenant="anna")).state is JobState.ENCODING
    assert [event.sequence for event in await b.events("job-1", tenant="anna")] == [1, 2]
    await a.transition(step("job-1", JobState.ENCODING, JobState.DENOISING))
    await a.transition(step("job-1", JobState.DENOISING, JobState.DECODING))
    with pytest.raises(Stale):
        await b.complete(Completion("job-1", 1, 105.0, (IMAGE,)))
    await a.complete(Completion("job-1", 1, 105.0, (IMAGE,)))
    assert (await b.list_jobs(tenant="anna")).jobs[0].outputs == (IMAGE,)


async def test_a_dead_gateways_jobs_are_adopted_once_and_it_changes_nothing_more(
    opened: Open,
) -> None:
    a, b, c = await opened("a"), await opened("b"), await opened("c")
    for n in range(3):
        await a.submit(new(f"job-{n}"))
    await succeed(a, "job-0")
    dead = {"a": (await peers_of(b).beat())["a"]}
    found = await asyncio.gather(peers_of(b).adopt(dead), peers_of(c).adopt(dead))
    (adopted,) = (one for one in found if one != Adopted())
    assert [job.job_id for job in adopted.jobs] == ["job-1", "job-2"]
    assert adopted.owners == {"a"}
    change = step("job-1", JobState.QUEUED, JobState.ENCODING)
    for late in (
        a.transition(change),
        a.submit(new("late")),
        peers_of(a).beat(),
        peers_of(a).adopt({"b": 0}),
        a.delete_jobs(["job-0"]),
    ):
        with pytest.raises(LeaseLostError, match="theirs now"):
            await late
    new_owner = b if found[0] == adopted else c
    assert await peers_of(new_owner).owned() == {"job-1", "job-2"}
    await new_owner.transition(change)
    with pytest.raises(DisagfusionError):
        await b.load("late")


async def test_a_gateway_that_has_beaten_meanwhile_is_not_dead(opened: Open) -> None:
    a, b = await opened("a"), await opened("b")
    await a.submit(new())
    silent = {"a": (await peers_of(b).beat())["a"]}
    await peers_of(a).beat()
    assert await peers_of(b).adopt(silent) == Adopted()
    assert await peers_of(a).owned() == {"job-1"}


async def test_the_servers_clock_is_everybodys(postgres: PostgresServer, opened: Open) -> None:
    a, b = await opened("a"), await opened("b")
    times = [await peers_of(store).now() for store in (a, b, a)]
    (row,) = postgres.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
    assert times == sorted(times)
    assert row[0] - 60 < times[0] < row[0]


async def test_every_commit_is_a_sign_of_life(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_thread, "GROUP_SECONDS", 0.0)
    a, b = await opened("a"), await opened("b")
    silent = {"a": (await peers_of(b).beat())["a"]}
    await asyncio.gather(*(a.submit(new(f"job-{n}")) for n in range(20)))
    assert (await peers_of(b).beat())["a"] >= silent["a"] + 20
    assert await peers_of(b).adopt(silent) == Adopted()


async def test_a_gateway_that_resigns_is_no_more(opened: Open) -> None:
    a, b = await opened("a"), await opened("b")
    await a.submit(new())
    await peers_of(a).resign()
    with pytest.raises(LeaseLostError):
        await a.submit(new("late"))
    beats = await peers_of(b).beat()
    assert beats["a"] == RESIGNED
    adopted = await peers_of(b).adopt({"a": RESIGNED})
    assert ([job.job_id for job in adopted.jobs], adopted.owners) == (["job-1"], {"a"})


async def test_jobs_without_any_gateway_are_adopted(url: str, opened: Open) -> None:
    async with SqlJobStore(url) as alone:
        await alone.submit(new())
        await decode(alone, "job-1")
    b = await opened("b")
    adopted = await peers_of(b).adopt({})
    assert [job.state for job in adopted.jobs] == [JobState.DECODING]
    assert adopted.owners == frozenset()
    assert await peers_of(b).adopt({}) == Adopted()


async def test_a_store_is_one_pipelines(url: str, opened: Open) -> None:
    await opened("a")
    with pytest.raises(FailedPreconditionError, match="pipeline 'flux': 'wan' needs"):
        await SqlJobStore(url, owner="w", pipeline="wan").open()
    schema = f"{url}&options=-csearch_path%3Dwan"
    async with SqlJobStore(url) as any_store:
        await any_store._thread.write(
            lambda connection: connection.exec_driver_sql("CREATE SCHEMA wan"), patient=False
        )
    async with SqlJobStore(schema, owner="w", pipeline="wan") as other:
        assert await other.unfinished() == []


async def test_jobs_that_another_pipeline_has_left_are_not_taken(url: str) -> None:
    async with SqlJobStore(url) as alone:
        await alone.submit(new())
    with pytest.raises(FailedPreconditionError, match="pipeline 'flux'"):
        await SqlJobStore(url, owner="w", pipeline="wan").open()


async def test_cancelling_and_watching_from_elsewhere(opened: Open) -> None:
    a, b = await opened("a"), await opened("b")
    for n in range(3):
        await a.submit(new(f"job-{n}"))
    await peers_of(b).cancel("job-1")
    await peers_of(b).cancel("nobody's")
    assert (await peers_of(b).news(["job-0", "job-1"])).cancelled == ()
    assert (await peers_of(a).news([])).cancelled == ("job-1",)
    cancelled = JobError("CANCELLED", "cancelled by the client")
    await a.transition(step("job-1", JobState.QUEUED, JobState.CANCELLED, error=cancelled))
    assert (await peers_of(a).news([])).cancelled == ()
    events = {event.job_id: event for event in (await peers_of(b).news(["job-0", "job-1"])).events}
    assert events["job-0"].sequence == 1
    assert (events["job-1"].sequence, events["job-1"].state) == (2, JobState.CANCELLED)
    await peers_of(b).cancel("job-1")
    assert (await peers_of(a).news([])).cancelled == (), "it has ended"


async def test_a_tenants_jobs_elsewhere_are_counted(opened: Open) -> None:
    a, b = await opened("a"), await opened("b")
    await a.submit(new("job-1"))
    await a.submit(new("job-2", tenant="bert"))
    await a.submit(new("job-3"))
    await succeed(a, "job-3")
    await b.submit(new("job-4"))
    assert await peers_of(b).count_elsewhere() == {"anna": 1, "bert": 1}
    assert await peers_of(a).count_elsewhere() == {"anna": 1}


async def test_a_gateway_stopped_within_a_transaction_keeps_nobody_waiting_for_long(
    opened: Open,
) -> None:
    a, b = await opened("a"), await opened("b")
    await a.submit(new())
    entered, stopped = threading.Event(), threading.Event()

    def stop(connection: Connection) -> None:
        sql_queries.transition(connection, step("job-1", JobState.QUEUED, JobState.ENCODING), "a")
        entered.set()
        stopped.wait(60)

    pending = asyncio.create_task(a._thread.write(stop, patient=False))
    await asyncio.to_thread(entered.wait)
    dead = {"a": (await peers_of(b).beat())["a"]}
    adopted = Adopted()
    while not adopted.jobs:
        try:
            adopted = await peers_of(b).adopt(dead)
        except UnavailableError:
            continue
    # What it had begun is undone, and it cannot go on.
    assert [job.state for job in adopted.jobs] == [JobState.QUEUED]
    stopped.set()
    with pytest.raises(UnavailableError):
        await pending
    with pytest.raises(LeaseLostError):
        await a.transition(step("job-1", JobState.QUEUED, JobState.ENCODING))


async def test_changes_wait_while_the_server_is_away_and_connections_are_made_anew(
    postgres: PostgresServer, opened: Open
) -> None:
    a = await opened("a")
    await a.submit(new())
    postgres.stop()
    try:
        with pytest.raises(UnavailableError):
            await a.load("job-1")
        waiting = asyncio.create_task(
            a.transition(step("job-1", JobState.QUEUED, JobState.ENCODING))
        )
        with pytest.raises(UnavailableError):
            await a.submit(new("job-2"))
        assert not waiting.done()
    finally:
        postgres.start()
    assert (await waiting).state is JobState.ENCODING
    assert (await a.submit(new("job-2"))).created


async def test_a_server_that_may_only_be_read_is_left_for_its_successor(
    postgres: PostgresServer, url: str, opened: Open
) -> None:
    a = await opened("a")
    await a.submit(new())
    name = url.partition("@/")[2].partition("?")[0]
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    # A server that steps back says so to the connections that it has, too.
    await a._thread.read(
        lambda connection: connection.connection.driver_connection.execute(
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
        )
    )
    waiting = asyncio.create_task(a.transition(step("job-1", JobState.QUEUED, JobState.ENCODING)))
    with pytest.raises(UnavailableError):
        await a.submit(new("job-2"))
    with pytest.raises(UnavailableError, match="read-only"):
        await SqlJobStore(url, owner="b", pipeline="flux").open()
    assert not waiting.done()
    postgres.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert (await waiting).state is JobState.ENCODING
    assert (await a.submit(new("job-2"))).created


async def test_a_commit_that_was_done_without_an_answer_is_not_done_again(
    postgres: PostgresServer, url: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await opened("a")
    await a.submit(new())
    commit = psycopg.Connection.commit
    lost = []

    def unanswered(connection: psycopg.Connection[Any]) -> None:
        commit(connection)
        if len(lost) < 2:
            lost.append(connection)
            connection.close()
            raise psycopg.OperationalError("the connection broke")

    monkeypatch.setattr(psycopg.Connection, "commit", unanswered)
    first = await a.transition(step("job-1", JobState.QUEUED, JobState.ENCODING))
    assert len(lost) == 2
    monkeypatch.undo()
    assert (first.sequence, (await a.load("job-1")).sequence) == (2, 2)
    await a.transition(step("job-1", JobState.ENCODING, JobState.DENOISING, time=102.0))
    await a.transition(step("job-1", JobState.DENOISING, JobState.DECODING, time=103.0))
    lost.clear()
    monkeypatch.setattr(psycopg.Connection, "commit", unanswered)
    await a.complete(Completion("job-1", 1, 105.0, (IMAGE,)))
    assert len(lost) == 2
    assert [event.sequence for event in await a.events("job-1", tenant="anna")] == [1, 2, 3, 4, 5]


async def test_what_postgresql_cannot_hold_harms_nobody_else(opened: Open) -> None:
    a = await opened("a")
    results = await asyncio.gather(
        a.submit(new("job-1")),
        a.submit(new("job-2", client_request_id="with\0NUL")),
        a.submit(new("job-3", priority=2**40)),
        a.submit(new("job-4")),
        return_exceptions=True,
    )
    assert [isinstance(result, DataLossError) for result in results] == [False, True, True, False]
    record = StageRecord(Stage.ENCODER, 1, "w", device="a\0b", compute_seconds=float("nan"))
    change = step("job-1", JobState.QUEUED, JobState.ENCODING, message="x\0y", records=(record,))
    event = await a.transition(change)
    assert event.message == "x�y"
    (stored,) = (await a.load("job-1")).stages
    assert (stored.device, stored.compute_seconds) == ("a�b", 0.0)


async def test_results_of_unfinished_jobs_are_left_to_their_gateway(opened: Open) -> None:
    kept: dict[str, Any] = {}

    class Results:
        async def clean(self, keep: Any, **options: Any) -> int:
            kept.update(options, keep=keep)
            return 0

    a, b = await opened("a"), await opened("b")
    await a.submit(new("job-1"))
    await a.submit(new("job-2"))
    await succeed(a, "job-2")
    await clean_results(b, Results(), 1000.0, shared=True)  # type: ignore[arg-type]
    assert kept["keep_jobs"] == {"job-1"}
    assert [key.job_id for key in kept["keep"]] == ["job-2"]
    assert kept["before"] == 400.0


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("sqlite://", False),
        ("postgresql://host/jobs", True),
        ("postgresql+psycopg://user:secret@host:5432/jobs?sslmode=require", True),
    ],
)
def test_which_databases_are_shared(text: str, shared: bool) -> None:
    assert is_shared(text) is shared


@pytest.mark.parametrize("text", ["nonsense", "mysql://host/jobs", "postgresql+nodriver://h/j"])
def test_databases_that_are_not_supported_are_named(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="database"):
        SqlJobStore(text)


async def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    store = SqlJobStore("postgresql://user:secret@127.0.0.1:1/jobs")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1") as caught:
        await store.open()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
