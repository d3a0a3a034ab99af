"""A job goes through three processes and comes out as the unsplit pipeline's picture."""

from __future__ import annotations

from stagekit.driver import Driver, generation


async def test_a_picture_goes_through_three_processes(driver: Driver) -> None:
    content = await driver.generate("job-thread", generation())
    assert content.startswith(b"\x89PNG")
