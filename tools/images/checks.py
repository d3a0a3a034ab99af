"""Whether a built image keeps its rules, found out by running programs in it as in a pod."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.images.bundles import USER, Container
from tools.images.catalog import Image
from tools.images.containers import Ended, Runner
from tools.images.errors import ImageError
from tools.images.places import Places

PYTHON = "/opt/disagfusion/bin/python"
DIGITS = "/opt/disagfusion/lib/python3.11/site-packages/disagfusion/local/digits"
_INSIDE, _PROFILES = "/mnt", "/media"
_FACT_SECONDS = 60.0
_START_SECONDS = 300.0
_LINES = 8
_WRITABLE = {"/dev/shm", "/tmp", "/var/lib/disagfusion"}
# What each lock brings that others must not have.
_PACKAGES = {
    "gateway": set[str](),
    "operator": {"sklearn"},
    "emulated": {"ucxx"},
    "stage": {"diffusers", "torch", "ucxx"},
}
_STAGES = ("disagfusion_encoder", "disagfusion_dit", "disagfusion_decoder")
_LOCAL = {"DISAGFUSION_LISTEN": "127.0.0.1:0", "DISAGFUSION_METRICS_LISTEN": ""}
_EMULATED = {
    "DISAGFUSION_DEVICE": "emulated:a10",
    "DISAGFUSION_PROFILE": f"{_PROFILES}/wan2.2-i2v-a10.yaml",
    "DISAGFUSION_PIPELINE": "emulated",
    "DISAGFUSION_TIME_SCALE": "0.01",
}


@dataclass(frozen=True)
class Service:
    """A service of an image.

    Attributes:
        module: What is started.
        environment: The settings with which it starts anywhere.
        starts: Whether it comes up with nothing else around it.
    """

    module: str
    environment: Mapping[str, str]
    starts: bool = True


def services(image: Image) -> tuple[Service, ...]:
    """Return what an image is there to run."""
    if image.name == "gateway":
        return (Service("disagfusion_gateway", _LOCAL),)
    if image.name == "operator":
        return (Service("disagfusion_operator", {}, starts=False),)
    if image.name == "emulated":
        return tuple(Service(module, _LOCAL | _EMULATED) for module in _STAGES)
    model = {"DISAGFUSION_MODEL": DIGITS, "DISAGFUSION_PIPELINE": "digits"}
    if image.name == "flex":
        return tuple(Service(module, _LOCAL | model) for module in _STAGES)
    return (Service(f"disagfusion_{image.name}", _LOCAL | model),)


def problems(image: Image, runner: Runner, places: Places) -> Iterator[str]:
    """Yield what is wrong with an image.

    Args:
        image: Which one.
        runner: Runs programs in it.
        places: Of the checkout, for a profile.

    Raises:
        ImageError: A program in it did not end, or could not be started.
    """
    mounts = {
        _INSIDE: places.root / "tools" / "images" / "inside",
        _PROFILES: places.root / "examples" / "profiles",
    }
    ended = runner.run(Container((PYTHON, f"{_INSIDE}/facts.py"), {}, mounts), _FACT_SECONDS)
    yield from judge_facts(_answer(ended), _PACKAGES[image.lock])
    for service in services(image):
        yield from _refusal(service, runner)
        if service.starts:
            command = (PYTHON, f"{_INSIDE}/start.py", service.module, str(_START_SECONDS))
            container = Container(command, service.environment, mounts)
            ended = runner.run(container, _START_SECONDS + _FACT_SECONDS)
            yield from judge_start(service, ended)


def judge_facts(facts: Mapping[str, Any], packages: set[str]) -> Iterator[str]:
    """Yield what a process can do that it should not, or cannot that it should.

    Args:
        facts: What inside/facts.py says.
        packages: The large ones that are expected.
    """
    if facts["user"] != f"{USER}:{USER}" or set(facts["groups"]) - {USER}:
        yield f"runs as {facts['user']} with groups {facts['groups']}, expected {USER}"
    if int(facts["capabilities"], 16):
        yield f"has capabilities {facts['capabilities']}, expected none"
    if set(facts["writable"]) != _WRITABLE:
        yield f"can write to {facts['writable']}, expected {sorted(_WRITABLE)}"
    if left := [*facts["programs"], *facts["modules"]]:
        yield f"has {', '.join(left)}, expected nothing that compiles, installs or fetches"
    if set(facts["packages"]) != packages:
        yield f"has {facts['packages']}, expected {sorted(packages)}"


def _refusal(service: Service, runner: Runner) -> Iterator[str]:
    prefix = "DISAGFUSION_OPERATOR" if service.module.endswith("operator") else "DISAGFUSION"
    wrong = {**service.environment, f"{prefix}_LOG_LEVEL": "loud"}
    command = (PYTHON, "-m", service.module)
    yield from judge_refusal(service, runner.run(Container(command, wrong), _FACT_SECONDS))


def judge_refusal(service: Service, ended: Ended) -> Iterator[str]:
    """Yield what is wrong with the answer to a wrong setting: one line that names it is right."""
    lines = ended.errors.strip().splitlines()
    if ended.status != 1 or len(lines) != 1 or "LOG_LEVEL" not in lines[0]:
        yield (
            f"{service.module}: answered a wrong log level with status {ended.status} and\n"
            f"{_end(ended)}\nexpected status 1 and one line that names the setting"
        )


def judge_start(service: Service, ended: Ended) -> Iterator[str]:
    """Yield what is wrong with how a service started and ended."""
    answer = _answer(ended)
    if not answer["serving"] or answer["status"]:
        yield (
            f"{service.module}: serving is {answer['serving']} after {answer['seconds']} s, "
            f"its exit status {answer['status']}; it wrote\n{_end(ended)}"
        )


def _end(ended: Ended) -> str:
    return "\n".join(ended.errors.strip().splitlines()[-_LINES:])


def _answer(ended: Ended) -> Any:
    lines = ended.output.strip().splitlines()
    if ended.status or not lines:
        raise ImageError(f"a program in the image failed: {_end(ended)}")
    return json.loads(lines[-1])
