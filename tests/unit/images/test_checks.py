"""What is found wrong with an image."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tools.images.bundles import Container, ImageConfig, describe
from tools.images.catalog import select
from tools.images.checks import Service, judge_facts, judge_refusal, judge_start, problems, services
from tools.images.containers import Ended, Runner
from tools.images.errors import ImageError
from tools.images.places import Places

RIGHT: dict[str, Any] = {
    "user": "65532:65532",
    "groups": [],
    "capabilities": "0000000000000000",
    "writable": ["/dev/shm", "/tmp", "/var/lib/disagfusion"],
    "programs": [],
    "modules": [],
    "packages": ["ucxx"],
    "python": "3.11.2",
}
SERVICE = Service("disagfusion_dit", {})
CONFIG = ImageConfig.parse(
    {
        "User": "65532:65532",
        "Env": ["PATH=/usr/bin"],
        "Entrypoint": ["/python", "-m"],
        "Cmd": ["disagfusion_dit"],
        "WorkingDir": "/var/lib/disagfusion",
    }
)


def test_an_image_that_is_right() -> None:
    assert list(judge_facts(RIGHT, {"ucxx"})) == []


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"user": "0:0"}, "runs as 0:0"),
        ({"groups": [0]}, r"with groups \[0\]"),
        ({"capabilities": "00000000a80425fb"}, "has capabilities 00000000a80425fb"),
        ({"writable": ["/", "/tmp"]}, "can write to"),
        ({"programs": ["gcc"], "modules": ["pip"]}, "has gcc, pip, expected nothing"),
        ({"packages": ["torch", "ucxx"]}, r"expected \['ucxx'\]"),
    ],
)
def test_what_breaks_a_rule_is_named(wrong: dict[str, Any], found: str) -> None:
    (problem,) = judge_facts({**RIGHT, **wrong}, {"ucxx"})
    assert re.search(found, problem)


@pytest.mark.parametrize(
    ("status", "errors", "right"),
    [
        (1, "disagfusion-dit: DISAGFUSION_LOG_LEVEL: Input should be 'debug'\n", True),
        (0, "disagfusion-dit: DISAGFUSION_LOG_LEVEL: Input should be 'debug'\n", False),
        (1, "Traceback (most recent call last):\nDISAGFUSION_LOG_LEVEL\n", False),
        (1, "", False),
        (1, "No module named disagfusion_dit\n", False),
    ],
)
def test_the_answer_to_a_wrong_setting(status: int, errors: str, right: bool) -> None:
    assert (not list(judge_refusal(SERVICE, Ended(status, "", errors)))) is right


@pytest.mark.parametrize(
    ("serving", "status", "right"), [(True, 0, True), (False, 0, False), (True, -15, False)]
)
def test_how_a_service_starts_and_ends(serving: bool, status: int, right: bool) -> None:
    answer = json.dumps({"serving": serving, "seconds": 2.0, "status": status})
    ended = Ended(0, f"some log\n{answer}\n", "the log")
    assert (not list(judge_start(SERVICE, ended))) is right


class PlayedRunner(Runner):
    """Everything is right in its image; it remembers what was run."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.ran: list[Container] = []

    def run(self, container: Container, seconds: float) -> Ended:
        self.ran.append(container)
        if container.command[1].endswith("facts.py"):
            return Ended(0, json.dumps(self.facts), "")
        if container.command[1].endswith("start.py"):
            return Ended(0, json.dumps({"serving": True, "seconds": 1.0, "status": 0}), "")
        return Ended(1, "", "DISAGFUSION_LOG_LEVEL: wrong\n")


@pytest.mark.parametrize(
    ("name", "packages"), [("emulated", ["ucxx"]), ("flex", ["diffusers", "torch", "ucxx"])]
)
def test_every_stage_of_an_image_of_all_is_started(name: str, packages: list[str]) -> None:
    (image,) = select([name])
    runner = PlayedRunner(RIGHT | {"packages": packages})
    assert list(problems(image, runner, Places())) == []
    started = [c.command[2] for c in runner.ran if c.command[1].endswith("start.py")]
    assert started == ["disagfusion_encoder", "disagfusion_dit", "disagfusion_decoder"]


def test_a_program_that_fails_is_an_error() -> None:
    (image,) = select(["gateway"])

    class Broken(Runner):
        def run(self, container: Container, seconds: float) -> Ended:
            return Ended(127, "", "exec: no such file")

    with pytest.raises(ImageError, match="exec: no such file"):
        list(problems(image, Broken(), Places()))


def test_every_service_is_given_what_it_needs() -> None:
    for image in select([]):
        for service in services(image):
            assert service.module.startswith("disagfusion_")
            assert service.environment or not service.starts


def test_a_container_is_confined() -> None:
    found = describe(CONFIG, Container(environment={"A": "1"}), Path("/rootfs"))
    process = found["process"]
    assert found["root"] == {"path": "/rootfs", "readonly": True}
    assert process["user"] == {"uid": 65532, "gid": 65532}
    assert process["capabilities"] == {}
    assert process["noNewPrivileges"] is True
    assert process["args"] == ["/python", "-m", "disagfusion_dit"]
    assert process["env"] == ["PATH=/usr/bin", "A=1"]
    assert process["cwd"] == "/var/lib/disagfusion"


def test_what_a_container_may_write_is_in_memory_and_mounts_are_read_only() -> None:
    container = Container(["/other"], mounts={"/mnt": Path("/here")})
    found = describe(CONFIG, container, Path("/rootfs"))
    mounts = {mount["destination"]: mount for mount in found["mounts"]}
    for writable in ("/dev/shm", "/tmp", "/var/lib/disagfusion"):
        assert mounts[writable]["type"] == "tmpfs"
    assert mounts["/mnt"]["source"] == "/here"
    assert "ro" in mounts["/mnt"]["options"]
    assert found["process"]["args"] == ["/other"]


def test_an_image_without_a_user_runs_as_root() -> None:
    config = ImageConfig.parse({"Cmd": ["sh"]})
    assert describe(config, Container(), Path("/"))["process"]["user"] == {"uid": 0, "gid": 0}
    assert config.directory == "/"
