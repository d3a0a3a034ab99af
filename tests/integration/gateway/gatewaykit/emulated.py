"""Fronts with emulated engines, each a process, and gateways that share them and a database."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from disagfusion.v1 import generation_pb2 as pb

from . import eventually
from .gateways import ENDED, Api, Process

PROFILE = Path(__file__).parents[2] / "emulation" / "profile.yaml"
PIPELINE = "emulated-profile"
STEPS = 4


class Fleet:
    """An encoder, DiTs and a decoder, and any number of gateways."""

    def __init__(self, directory: Path, fork_server: str, database: str) -> None:
        self.directory = directory
        self.database = database
        self._fork_server = fork_server
        self._processes: list[asyncio.subprocess.Process] = []
        self._gateways: list[Process] = []
        self._apis: list[Api] = []
        self.workers: dict[str, str] = {}

    async def start(self, *, dits: int = 2, time_scale: float = 0.02, **settings: Any) -> None:
        """Start the fronts."""
        self._settings = {"time_scale": time_scale, **settings}
        for name in ("encoder-0", *(f"dit-{n}" for n in range(dits)), "decoder-0"):
            await self._front(name)
        ready = [self.directory / f"{name}.json" for name in self.workers]
        await eventually(lambda: all(path.exists() for path in ready), 60)

    async def _front(self, name: str) -> None:
        stage = name.partition("-")[0]
        self.workers[name] = f"unix:{self.directory}/{name}.sock"
        settings = {
            "listen": self.workers[name],
            "name": name,
            "pipeline": PIPELINE,
            "device": "emulated:quick",
            "profile": PROFILE,
            "transport": "tcp",
            "fork_server": self._fork_server,
            "ready_file": self.directory / f"{name}.json",
            "log_level": "warning",
            **self._settings,
        }
        environment = {f"DISAGFUSION_{key.upper()}": str(value) for key, value in settings.items()}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", f"disagfusion_{stage}"),
            env={**os.environ, **environment},
        )
        self._processes.append(process)

    async def gateway(self, name: str, **settings: Any) -> tuple[Process, Api]:
        """Start a gateway of this name; return it and a client of it."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        values = {
            "name": name,
            "database": self.database,
            "results": self.directory / "results",
            "pipeline": PIPELINE,
            "workers": ",".join(f"{one}={at}" for one, at in self.workers.items()),
            "lease_seconds": 1.0,
            "log_level": "warning",
            **settings,
        }
        process = Process(directory, **values)
        self._gateways.append(process)
        api = Api(await process.start())
        self._apis.append(api)
        await api.pipeline()
        return process, api

    async def stop(self) -> None:
        """End everything."""
        for api in self._apis:
            await api.close()
        for gateway in self._gateways:
            await gateway.kill()
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def submit(api: Api, number: int, *, steps: int = STEPS, **fields: Any) -> pb.Job:
    """Submit the job of this number: its seed."""
    return await api.submit(
        "p", seed=number, num_inference_steps=steps, client_request_id=f"job {number}", **fields
    )


async def ends(api: Api, jobs: list[pb.Job]) -> list[pb.Job]:
    """Ask until all jobs have ended."""
    left = {job.job_id: job for job in jobs}
    async with asyncio.timeout(60):
        while waiting := [one for one in left.values() if one.state not in ENDED]:
            for job in waiting:
                left[job.job_id] = await api.get(job.job_id)
            await asyncio.sleep(0.05)
    return list(left.values())


async def check_results(api: Api, jobs: list[pb.Job]) -> None:
    """All jobs have succeeded, once each, with the picture that is theirs."""
    listed: list[pb.Job] = []
    token = ""
    while True:
        page = await api.list(page_size=100, page_token=token)
        listed += page.jobs
        token = page.next_page_token
        if not token:
            break
    assert sorted(one.job_id for one in listed) == sorted(one.job_id for one in jobs)
    seen = set()
    for job in await ends(api, jobs):
        assert job.state == pb.JOB_STATE_SUCCEEDED, job
        (output,) = job.outputs
        content = await api.fetch(job.job_id)
        assert hashlib.sha256(content).hexdigest() == output.sha256
        seen.add(output.sha256)
        with Image.open(io.BytesIO(content)) as picture:
            lines = str(picture.info["emulated"]).splitlines()
        assert f"job {job.job_id}" in lines
        assert f"seed {job.generation.seed}" in lines
        states = [event.state async for event in api.watch(job.job_id)]
        assert states.count(pb.JOB_STATE_SUCCEEDED) == 1
    assert len(seen) == len(jobs)
