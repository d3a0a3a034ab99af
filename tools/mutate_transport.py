"""Take out what protects memory and messages, one piece at a time: each time a test must fail.

    python tools/mutate_transport.py

In a copy of the tree; a test that passes although its protection is gone protects nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PARTS = ("disagfusion", "tests", "pyproject.toml")
_BACKENDS = "disagfusion/transport/backends"
_CONTRACT = "tests/contract/transport"
_UNIT = "tests/unit/transport"


@dataclass(frozen=True)
class Mutation:
    """A protection and the test that must miss it.

    Attributes:
        name: What is taken out.
        file: Where it is.
        old: Its text, which occurs once.
        new: What takes its place.
        test: The test.
    """

    name: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = (
    Mutation(
        "the shield: a sender that is cancelled does not wait for UCX",
        f"{_BACKENDS}/dialed.py",
        "            await uninterrupted(self._link.aclose())\n",
        "            asyncio.ensure_future(self._link.aclose())\n",
        f"{_UNIT}/test_endings.py::"
        "test_a_sender_has_its_memory_back_only_when_the_carrier_has_let_go[1]",
    ),
    Mutation(
        "the quarantine: a slot is free before UCX has let go of it",
        f"{_BACKENDS}/accepted.py",
        "        await self._link.aclose()\n        self._connection.close()\n",
        "        asyncio.ensure_future(self._link.aclose())\n        self._connection.close()\n",
        f"{_UNIT}/test_endings.py::test_a_slot_is_free_only_when_the_carrier_has_let_go[peer gone]",
    ),
    Mutation(
        "the incarnation: whoever lives at the address is taken for the one that was meant",
        "disagfusion/transport/session.py",
        "    if hello.expected != incarnation:\n",
        "    if False:\n",
        f"{_UNIT}/test_session.py::test_who_may_not_come_in",
    ),
    Mutation(
        "the ledger: a message is taken as often as it comes",
        "disagfusion/transport/session.py",
        "        if (sender, message_id) in self._seen:\n",
        "        if False:\n",
        f"{_CONTRACT}/test_conformance.py::test_a_message_is_taken_once[tcp]",
    ),
    Mutation(
        "the checksum: what arrived is not compared",
        "disagfusion/transport/inbound.py",
        "        if computed != incoming.announced:\n",
        "        if False:\n",
        f"{_CONTRACT}/test_conformance.py::test_corruption_is_found_and_counted[ucx-9437184]",
    ),
)


def passes(tree: Path, test: str) -> bool:
    """Tell whether a test passes in a tree.

    Raises:
        RuntimeError: It did not run at all.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "60", test],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1) and "segmentation" not in done.stderr.lower():
        raise RuntimeError(f"{test} did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0


def main() -> int:
    """Try all; return how many went unnoticed."""
    unnoticed = 0
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        for part in _PARTS:
            source = ROOT / part
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, tree / part)
        for mutation in MUTATIONS:
            path = tree / mutation.file
            text = path.read_text()
            if text.count(mutation.old) != 1:
                raise SystemExit(f"{mutation.file} has changed: look at tools/mutate_transport.py")
            if not passes(tree, mutation.test):
                raise SystemExit(f"{mutation.test} fails as it is")
            path.write_text(text.replace(mutation.old, mutation.new))
            noticed = not passes(tree, mutation.test)
            path.write_text(text)
            unnoticed += not noticed
            print(f"{'noticed' if noticed else 'NOT NOTICED'}: {mutation.name}")
    return unnoticed


if __name__ == "__main__":
    sys.exit(main())
