"""A short run of what `make fuzz` runs for long."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "tools" / "fuzz_transport.py"


def test_mutated_frames_are_refused_or_consistent() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--count", "30000", "--seed", "7"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Every depth was reached: the mutations are neither too wild nor too tame.
    for outcome in ("not a frame", "not a message", "read", "refused", "admitted"):
        assert re.search(rf"^\s*[1-9][\d,]* {outcome}$", done.stdout, re.MULTILINE), done.stdout
