"""Every service can be listed, described and called by someone who has no .proto files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from disagfusion.local import LocalRuntime

GRPCURL = Path(__file__).parents[3] / ".tools" / "bin" / "grpcurl"
GENERATION = "disagfusion.v1.GenerationService"
STAGE = "disagfusion.v1.StageService"
HEALTH = "grpc.health.v1.Health"

pytestmark = pytest.mark.timeout(300)


def grpcurl(*arguments: str, code: int = 0) -> str:
    assert GRPCURL.exists(), "run the tests with `make test`, which builds grpcurl"
    done = subprocess.run(
        [GRPCURL, "-plaintext", "-max-time", "60", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def call(address: str, method: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Call a method; return the responses, of which a stream has several."""
    text = grpcurl("-d", json.dumps(request), address, method)
    decoder, found, position = json.JSONDecoder(), [], 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        value, position = decoder.raw_decode(text, position)
        found.append(value)
    return found


def target(address: str) -> str:
    # grpcurl wants a socket's path as a URI.
    return address.replace("unix:", "unix://", 1) if address.startswith("unix:/") else address


@pytest.fixture(scope="module")
def runtime(forked: None) -> Iterator[LocalRuntime]:
    with LocalRuntime() as running:
        yield running


def stages(runtime: LocalRuntime) -> dict[str, str]:
    return {
        process.role: target(process.address)
        for process in runtime.status()
        if process.role in ("encoder", "dit", "decoder")
    }


def test_the_gateway_lists_and_describes_its_services(runtime: LocalRuntime) -> None:
    assert {GENERATION, HEALTH} <= set(grpcurl(runtime.address, "list").split())
    assert f"{GENERATION}.SubmitJob" in grpcurl(runtime.address, "list", GENERATION)
    assert "num_inference_steps" in grpcurl(
        runtime.address, "describe", "disagfusion.v1.Generation"
    )


def test_every_stage_lists_and_answers(runtime: LocalRuntime) -> None:
    found = stages(runtime)
    assert set(found) == {"encoder", "dit", "decoder"}
    for role, address in found.items():
        assert {STAGE, HEALTH} <= set(grpcurl(address, "list").split())
        (described,) = call(address, f"{STAGE}/Describe", {})
        assert described["worker"]["stages"] == [f"STAGE_{role.upper()}"]
        (health,) = call(address, f"{HEALTH}/Check", {})
        assert health["status"] == "SERVING"


def test_a_job_goes_from_submission_to_picture(runtime: LocalRuntime) -> None:
    request = {"generation": {"prompt": "a handwritten seven in red", "seed": "7"}}
    (submitted,) = call(runtime.address, f"{GENERATION}/SubmitJob", request)
    job_id = submitted["job"]["job_id"]
    events = call(runtime.address, f"{GENERATION}/WatchJob", {"job_id": job_id})
    assert events[-1]["event"]["state"] == "JOB_STATE_SUCCEEDED"
    (got,) = call(runtime.address, f"{GENERATION}/GetJob", {"job_id": job_id})
    assert [stage["stage"] for stage in got["job"]["stages"]] == [
        "STAGE_ENCODER",
        "STAGE_DIT",
        "STAGE_DECODER",
    ]
    chunks = call(runtime.address, f"{GENERATION}/FetchOutput", {"job_id": job_id})
    assert chunks[0]["chunk"].startswith("iVBORw0KGgo")  # PNG's signature in base64


def test_an_error_names_field_and_reason(runtime: LocalRuntime) -> None:
    request = json.dumps({"generation": {"prompt": "x", "height": 63}})
    # grpcurl exits with 64 and the status code; INVALID_ARGUMENT is 3.
    text = grpcurl("-d", request, runtime.address, f"{GENERATION}/SubmitJob", code=67)
    assert "InvalidArgument" in text
    assert "height" in text
    assert "disagfusion.dev" in text
