"""Workers are found by DNS, and keep one link whatever name they have."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest
from disagfusion_gateway import links
from disagfusion_gateway.link import LinkSettings, WorkerLink
from disagfusion_gateway.sessions import Session, Sessions
from disagfusion_gateway.settings import WorkerAddress
from disagfusion_gateway.worker_messages import connected

from disagfusion.dispatch import events
from disagfusion.errors import UnavailableError
from disagfusion.v1 import stage_pb2


class FakeLink:
    """A link that lasts until it is cancelled."""

    made: list[FakeLink]

    def __init__(self, address: str, *rest: Any) -> None:
        self.address = address
        self.idle = False
        self.ended = False
        self.made.append(self)

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


class Names:
    """What DNS says; look-ups can be waited for."""

    def __init__(self, **behind: set[str]) -> None:
        self.behind = behind
        self.asked = asyncio.Event()

    async def resolve(self, name: str) -> set[str]:
        self.asked.set()
        return set(self.behind[name])

    async def again(self) -> None:
        """Wait until everything has been looked up anew, and what follows has been done."""
        for _ in range(2 * len(self.behind)):
            self.asked.clear()
            await self.asked.wait()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeLink]:
    FakeLink.made = []
    monkeypatch.setattr(links, "WorkerLink", FakeLink)
    return FakeLink.made


async def test_a_worker_that_goes_from_one_name_to_another_keeps_its_link(
    made: list[FakeLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(encoder={"1", "2"}, dit={"3"})
    monkeypatch.setattr(links, "_resolve", names.resolve)
    addresses = [WorkerAddress(name="", address=name, dns=True) for name in names.behind]
    found = links.WorkerLinks(addresses, None, None, print, resolve_interval=0.0)  # type: ignore[arg-type]
    running = asyncio.create_task(found.run())
    await names.again()
    assert sorted(one.address for one in made) == ["1", "2", "3"]
    # For a moment both names may have it, or neither.
    for encoder, dit in (({"1", "2"}, {"2", "3"}), ({"1"}, {"3"}), ({"1"}, {"2", "3"})):
        names.behind |= {"encoder": encoder, "dit": dit}
        await names.again()
    assert len(made) == 3
    names.behind["dit"] = {"3"}
    await names.again()
    (changed,) = (one for one in made if one.address == "2")
    assert not changed.ended
    changed.idle = True
    await names.again()
    # Names are cached: it may be under its new one in a moment.
    assert not changed.ended
    monkeypatch.setattr(links, "_ABSENT_SECONDS", 0.0)
    await names.again()
    assert changed.ended
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


class BrokenLink(WorkerLink):
    """A link whose worker's stream ends at once; afterwards nobody answers."""

    async def _connect(self) -> None:
        if self.address == "":
            raise UnavailableError("nobody is there")
        self.address = ""
        hello = stage_pb2.WorkerHello(worker=stage_pb2.Worker(name="w", incarnation="i", state=1))
        stream = Mock(read=Mock(side_effect=ended), write=Mock(side_effect=ended))
        await self._serve(stream, Session(hello.worker, Mock()), connected(hello))


async def ended(*request: Any) -> None:
    return None


async def test_a_worker_that_no_name_leads_to_any_more_is_lost_and_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    posted: list[events.Event] = []
    broken, lost = asyncio.Event(), asyncio.Event()

    def post(event: events.Event) -> None:
        posted.append(event)
        if isinstance(event, events.WorkerDisconnected):
            broken.set()
        if isinstance(event, events.WorkerLost):
            lost.set()

    async def resolve(name: str) -> set[str]:
        return set() if broken.is_set() else {"1"}

    monkeypatch.setattr(links, "WorkerLink", BrokenLink)
    monkeypatch.setattr(links, "_resolve", resolve)
    monkeypatch.setattr(links, "_ABSENT_SECONDS", 0.0)
    settings = LinkSettings("g", "1", "p", None, ping_interval=9.0, ping_deadline=9.0, grace=0.05)
    found = links.WorkerLinks(
        [WorkerAddress(name="", address="all", dns=True)],
        *(settings, Sessions(Mock()), post),
        resolve_interval=0.0,
    )
    running = asyncio.create_task(found.run())
    async with asyncio.timeout(5.0):
        await lost.wait()
    kinds = [type(event) for event in posted]
    assert kinds == [events.WorkerConnected, events.WorkerDisconnected, events.WorkerLost]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
