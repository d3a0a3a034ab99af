import os
import stat
import subprocess
import sys
from pathlib import Path

from disagfusion.local import directories


def test_only_the_owner_may_enter(tmp_path: Path) -> None:
    directory, lock = directories.create_private(tmp_path)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    os.close(lock)


def test_a_sweep_takes_what_belongs_to_nobody_only(tmp_path: Path) -> None:
    held, lock = directories.create_private(tmp_path)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from disagfusion.local import directories\n"
        "directory, _ = directories.create_private(Path(sys.argv[1]))\n"
        "print(directory, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, check=False
    )
    orphan = Path(died.stdout.decode().strip())
    (orphan / "data").mkdir()
    other = tmp_path / "disagfusion-without-a-lock"
    other.mkdir()
    assert died.returncode == -9
    assert orphan.is_dir()

    assert directories.sweep(tmp_path) == [orphan]
    assert not orphan.exists()
    assert held.is_dir()
    assert other.is_dir()
    os.close(lock)
    assert directories.sweep(tmp_path) == [held]


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    first = directories.try_lock(tmp_path / "lock", create=True)
    assert first is not None
    assert directories.try_lock(tmp_path / "lock") is None
    os.close(first)
