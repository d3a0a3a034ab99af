"""What a front's machine is told once."""

from __future__ import annotations

from dataclasses import dataclass, field

from disagfusion.stage.lifecycle import RestartPolicy


@dataclass(frozen=True, slots=True)
class MachineSettings:
    """What a machine is told once.

    Attributes:
        stage: The number of the stage in the protocol.
        port: The name of the input port, the stage's; empty for the first stage, which has none.
        slots: Input slots, or places in the queue of the first stage.
        slot_bytes: The largest input.
        held_bytes: Memory of held outputs.
        held_seconds: After which an output whose gateway is away is forgotten.
        input_seconds: An assignment's input must be there within this time.
        drain_seconds: How long draining waits for outputs to be released, once the last job has
            ended.
        restart: How engines are started again.
        synchronous: Whether every hand-over is waited for: one job at a time is here, from its
            grant until the next stage has its output. For comparison.
        version_tag: Added to the version of model and software.
    """

    stage: int
    port: str
    slots: int
    slot_bytes: int
    held_bytes: int
    held_seconds: float = 900.0
    input_seconds: float = 60.0
    drain_seconds: float = 25.0
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    synchronous: bool = False
    version_tag: str = ""


def tagged(version: str, tag: str) -> str:
    """Return the version that workers are told apart by; empty until the model has loaded."""
    return f"{version}+{tag}" if version and tag else version


@dataclass(frozen=True, slots=True)
class Role:
    """What a worker is there for.

    Attributes:
        stage: The number of the stage in the protocol.
        port: The name of its input port; empty for the first stage.
    """

    stage: int
    port: str
