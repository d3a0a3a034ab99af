"""What a process writes to its log, seen from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PROGRAM = """
import logging, threading
from disagfusion.telemetry import logging as log
log.configure({format!r}, "info", component="dit", pipeline="digits")
logger = log.get_logger("disagfusion.test")
with log.bound(job_id="j1", stage="dit"):
    logger.info("stage started", step=3)
    logging.getLogger("grpc").warning("from a %s", "library")
logger.debug("not written")
thread = threading.Thread(target=logger.warning, args=("from a thread",))
thread.start()
thread.join()
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("it failed", job_id="j2")
"""


def run(format: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(format=format)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr


def test_json_lines_carry_context_from_our_code_libraries_and_threads() -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in run("json").splitlines()]
    assert [line["event"] for line in lines] == [
        "stage started",
        "from a library",
        "from a thread",
        "it failed",
    ]
    for line in lines:
        assert line["component"] == "dit"
        assert line["pipeline"] == "digits"
        assert line["timestamp"].endswith("Z")
    assert lines[0]["job_id"] == lines[1]["job_id"] == "j1"
    assert lines[0]["stage"] == lines[1]["stage"] == "dit"
    assert lines[0]["step"] == 3
    assert lines[0]["level"] == "info"
    assert lines[1]["logger"] == "grpc"
    assert "job_id" not in lines[2]
    assert lines[3]["exception"][0]["exc_type"] == "ZeroDivisionError"


def test_console_lines_are_for_people() -> None:
    text = run("console")
    assert "stage started" in text
    assert "step=3" in text
    assert "ZeroDivisionError" in text
    assert "not written" not in text
