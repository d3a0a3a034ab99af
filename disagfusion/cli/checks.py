"""What `disagfusion doctor` looks at."""

from __future__ import annotations

import enum
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from disagfusion.local.deployment import DIGITS

_DEVICES = """
import json, torch
found = [f"cpu, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"]
for index in range(torch.cuda.device_count()):
    memory = torch.cuda.get_device_properties(index).total_memory / 2**30
    found.append(f"cuda:{index}, {torch.cuda.get_device_name(index)}, {memory:.0f} GiB")
print(json.dumps(found))
"""
_SHM = "/dev/shm"  # noqa: S108 -- what is there is the question; nothing is written
_SHM_BYTES = 1 << 30


class Level(enum.StrEnum):
    """How good a finding is."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        level: How good.
        detail: What was found.
        remedy: What to do about it; empty where nothing needs to be done.
    """

    name: str
    level: Level
    detail: str
    remedy: str = ""


def run_checks() -> list[Check]:
    """Look at everything; takes some seconds, most of them torch's."""
    return [
        _system(),
        *_packages(),
        _cores(),
        _memory(),
        _shared_memory(),
        _temporary_directory(),
        _model(),
        *_devices(),
        *_transports(),
    ]


def _system() -> Check:
    detail = f"Python {platform.python_version()}, {platform.system()} {platform.release()}"
    if not hasattr(os, "pidfd_open"):
        remedy = "the embedded system needs Linux 5.3 or later"
        return Check("system", Level.MISSING, detail, remedy)
    return Check("system", Level.OK, detail)


_PACKAGES = (
    ("grpcio", "", True),
    ("sqlalchemy", "gateway", True),
    ("torch", "stage", True),
    ("diffusers", "stage", True),
    ("transformers", "stage", True),
    ("safetensors", "stage", True),
    ("xxhash", "stage", True),
    ("ucxx-cu13", "stage", False),
    ("av", "stage", False),
    ("opentelemetry-sdk", "stage", False),
)
_WITHOUT = {"ucxx-cu13": "only TCP carries tensors", "av": "no videos"}


def _packages() -> list[Check]:
    checks = []
    for name, extra, needed in _PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            level = Level.MISSING if needed else Level.WARNING
            wanted = f"disagfusion[{extra}]" if extra else "disagfusion"
            detail = "not installed" + (f": {_WITHOUT[name]}" if name in _WITHOUT else "")
            checks.append(Check(name, level, detail, f"pip install '{wanted}'"))
        else:
            checks.append(Check(name, Level.OK, version))
    return checks


def _cores() -> Check:
    usable, all_cores = len(os.sched_getaffinity(0)), os.cpu_count()
    return Check("cores", Level.OK, f"{usable} usable of {all_cores}")


def _memory() -> Check:
    with open("/proc/meminfo") as file:
        sizes = dict(line.split(":") for line in file)
    available, total = (int(sizes[name].split()[0]) / 2**20 for name in _MEMORY)
    detail = f"{available:.1f} GiB available of {total:.1f}"
    if available < 2:
        return Check(
            "memory", Level.WARNING, detail, "three stages need about 2 GiB plus the model"
        )
    return Check("memory", Level.OK, detail)


_MEMORY = ("MemAvailable", "MemTotal")


def _shared_memory() -> Check:
    try:
        usage = shutil.disk_usage(_SHM)
    except OSError as error:
        return Check(_SHM, Level.WARNING, str(error.strerror), "use --transport tcp")
    detail = f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.1f}"
    if usage.free < _SHM_BYTES:
        remedy = "UCX needs room there; containers: --shm-size=2g"
        return Check(_SHM, Level.WARNING, detail, remedy)
    return Check(_SHM, Level.OK, detail)


def _temporary_directory() -> Check:
    path = tempfile.gettempdir()
    free = shutil.disk_usage(path).free / 2**30
    detail = f"{path}, {free:.1f} GiB free"
    # Sockets live in PATH/disagfusion-xxxxxxxx/NAME.sock and may have 107 bytes.
    if len(os.fsencode(path)) > 70:
        remedy = "set TMPDIR to a shorter path: unix sockets have at most 107 bytes"
        return Check("temporary directory", Level.MISSING, detail, remedy)
    return Check("temporary directory", Level.OK, detail)


def _model() -> Check:
    weights = sum(file.stat().st_size for file in DIGITS.rglob("*.safetensors"))
    if not (DIGITS / "model_index.json").is_file() or not weights:
        return Check(
            "digits model", Level.WARNING, f"not in {DIGITS}", "name another one with --model"
        )
    return Check("digits model", Level.OK, f"{weights / 2**20:.1f} MiB")


def _devices() -> list[Check]:
    if importlib.util.find_spec("torch") is None:
        return []
    # In a process of its own: it takes seconds, and a broken driver may take the process along.
    try:
        done = subprocess.run(  # noqa: S603 -- our own interpreter
            [sys.executable, "-c", _DEVICES],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [Check("device", Level.MISSING, "torch did not answer within 120 s")]
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        return [Check("device", Level.MISSING, f"torch does not start: {last}")]
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return [Check("device", Level.OK, device) for device in found]


def _transports() -> list[Check]:
    from disagfusion.transport import probe

    checks = []
    for found in probe():
        if found.available:
            listed = f": {', '.join(found.transports)}" if found.transports else ""
            checks.append(Check(f"transport {found.backend}", Level.OK, found.detail + listed))
        else:
            level = Level.MISSING if found.backend == "tcp" else Level.WARNING
            remedy = "use --transport tcp meanwhile" if found.backend == "ucx" else ""
            checks.append(Check(f"transport {found.backend}", level, found.detail, remedy))
    return checks
