"""Workers are found by DNS, and keep one link whatever name they have."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from disagfusion_gateway import links
from disagfusion_gateway.settings import WorkerAddress


class FakeLink:
    """A link that lasts until it is cancelled."""

    made: list[FakeLink]

    def __init__(self, address: str, *rest: Any) -> None:
        self.address = address
        self.connected = True
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
    changed.connected = False
    await names.again()
    # Names are cached: it may be under its new one in a moment.
    assert not changed.ended
    monkeypatch.setattr(links, "_ABSENT_SECONDS", 0.0)
    await names.again()
    assert changed.ended
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
