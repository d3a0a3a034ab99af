"""How devices are named. An emulated one is `emulated:POOL`, with a pool of a profile."""

from __future__ import annotations

_EMULATED = "emulated:"


def is_emulated(device: str) -> bool:
    """Whether a device is no accelerator but behaves like one of a profile."""
    return device.startswith(_EMULATED)


def emulated_pool(device: str) -> str:
    """Return the pool of the profile that an emulated device behaves like; empty for others."""
    return device.removeprefix(_EMULATED) if is_emulated(device) else ""


def emulated_device(pool: str) -> str:
    """Return the name of an emulated device."""
    return f"{_EMULATED}{pool}"
