"""What people see: bars, tables, states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from disagfusion.client import Job, JobEvent, StageRecord
    from disagfusion.local import ProcessStatus

STAGE_FIELDS = (
    "stage",
    "attempt",
    "pid",
    "device",
    "threads",
    "queue_seconds",
    "compute_seconds",
    "receive_seconds",
    "send_seconds",
    "bytes_out",
    "transport",
)
_STATES = {"ENCODING": "encoder", "DENOISING": "dit", "DECODING": "decoder"}
_STYLES = {
    "SUCCEEDED": "green", "ready": "green", "FAILED": "red", "failed": "red", "silent": "red",
}  # fmt: skip
_TROUBLES = ("backoff", "failed", "silent")


def output_console() -> Console:
    """Standard output; where that is no terminal, lines are as long as they need to be."""
    console = Console()
    return console if console.is_terminal else Console(width=1000)


def stage_dict(record: StageRecord) -> dict[str, Any]:
    """One stage of one attempt, for JSON. What carried nothing has no transport."""
    values = {field: getattr(record, field) for field in STAGE_FIELDS}
    return {**values, "stage": record.stage.value, "transport": record.transport or None}


def stage_table(records: Sequence[StageRecord]) -> Table:
    """All stages of all attempts."""
    table = Table("stage", "pid", "device", box=None, pad_edge=False, header_style="bold")
    retried = any(record.attempt > 1 for record in records)
    for name in (["attempt"] if retried else []) + ["queue", "compute", "receive", "send"]:
        table.add_column(name, justify="right")
    table.add_column("bytes", justify="right")
    table.add_column("transport")
    for record in records:
        seconds = (
            record.queue_seconds,
            record.compute_seconds,
            record.receive_seconds,
            record.send_seconds,
        )
        name = record.stage.value
        if record.outcome != "done":
            name += f" ({record.outcome})"
        table.add_row(
            name,
            str(record.pid),
            f"{record.device} × {record.threads}" if record.threads else record.device,
            *([str(record.attempt)] if retried else []),
            *(f"{value:.3f} s" for value in seconds),
            f"{record.bytes_out:,}",
            record.transport or "–",
        )
    return table


class JobProgress:
    """Bars by stage and, for the DiT, by step.

    Args:
        console: Where they are drawn; nothing is drawn unless it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:8}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {
            stage: self._progress.add_task(stage, total=1, start=False, note="")
            for stage in _STATES.values()
        }

    def __enter__(self) -> JobProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, event: JobEvent) -> None:
        """Show an event."""
        current = _STATES.get(event.state)
        order = list(self._tasks)
        reached = order.index(current) if current else -1
        if event.state == "SUCCEEDED":
            reached = len(order)
        for index, (stage, task) in enumerate(self._tasks.items()):
            if index < reached:
                self._progress.update(task, completed=1, total=1, note="")
            elif index > reached:
                self._progress.reset(task, start=False, completed=0, total=1, note="")
            else:
                self._begin(stage, event)

    def _begin(self, stage: str, event: JobEvent) -> None:
        task = self._tasks[stage]
        self._progress.start_task(task)
        status = event.stage_status.lower() if event.stage_status else ""
        attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
        steps = event.progress if stage == "dit" else None
        if steps is None:
            self._progress.update(task, note=status + attempt)
            return
        self._progress.update(
            task,
            completed=steps.step,
            total=steps.num_inference_steps,
            note=f"{steps.step}/{steps.num_inference_steps}{attempt}",
        )


def state_text(state: str) -> Text:
    """A state in its colour."""
    return Text(state, style=_STYLES.get(state, ""))


def job_table(jobs: Iterable[Job]) -> Table:
    """Jobs, one per line."""
    table = Table(box=None, pad_edge=False)
    for name in ("id", "state", "submitted", "seconds"):
        table.add_column(name, no_wrap=True, overflow="fold")
    table.add_column("prompt", no_wrap=True, overflow="ellipsis")
    for job in jobs:
        prompt = Text(" ".join(job.generation.prompt.split()))
        table.add_row(
            job.id, state_text(job.state), _moment(job.submitted_at), _duration(job), prompt
        )
    return table


def job_dict(job: Job) -> dict[str, Any]:
    """A job, for JSON."""
    generation = job.generation
    return {
        "id": job.id,
        "state": job.state.value,
        "stage_status": job.stage_status,
        "attempt": job.attempt,
        "prompt": generation.prompt,
        "seed": generation.seed,
        "client_request_id": job.client_request_id,
        "tenant": job.tenant,
        "priority": job.priority,
        "submitted_at": _iso(job.submitted_at),
        "started_at": _iso(job.started_at),
        "ended_at": _iso(job.ended_at),
        "deadline": _iso(job.deadline),
        "outputs": [
            {
                "index": output.index,
                "content_type": output.content_type,
                "size_bytes": output.size_bytes,
                "sha256": output.sha256,
            }
            for output in job.outputs
        ],
        "error": {"reason": job.error.reason, "message": job.error.message} if job.error else None,
        "stages": [stage_dict(record) for record in job.stages],
        "accelerator_seconds": job.accelerator_seconds,
    }


def process_table(processes: Iterable[ProcessStatus]) -> Table:
    """The processes of an embedded system."""
    columns = ("process", "stage", "state", "pid", "restarts", "last")
    table = Table(*columns, box=None, pad_edge=False)
    for process in processes:
        detail = process.detail.splitlines()
        table.add_row(
            process.name,
            _stage_of(process) or "–",
            state_text(process.state),
            str(process.pid or "–"),
            str(process.restarts),
            detail[0] if detail else "",
        )
    return table


def process_line(process: ProcessStatus, before: ProcessStatus | None) -> str:
    """What has become of a process of an embedded system, for a log.

    Args:
        process: What it does.
        before: What it did when it was last spoken of; None where that is new.
    """
    stage, name = _stage_of(process), process.name
    pid = f", process {process.pid}" if process.pid else ""
    last = process.detail.splitlines()[0] if process.detail else ""
    same = before is not None and before.pid == process.pid and process.pid != 0
    was = before.state if same and before is not None else ""
    if process.state in _TROUBLES:
        return f"{name} is {process.state}{pid}{f': {last}' if last else ''}"
    told = not process.pid or not last or bool(was)
    one_before = "" if told else f" (the one before {last})"
    if process.state != "ready":
        return f"{name} is {process.state}{pid}{one_before}"
    if was == "ready" and before is not None and before.role != process.role:
        return f"{name} changes to {stage}{pid}"
    again = " again" if was == "silent" else ""
    return f"{name} is ready{again}{f' as {stage}' if stage else ''}{pid}{one_before}"


def _stage_of(process: ProcessStatus) -> str:
    return process.role if process.role in _STATES.values() else ""


def _moment(value: datetime | None) -> str:
    return value.astimezone().strftime("%Y-%m-%d %H:%M:%S") if value else "–"


def _iso(value: datetime | None) -> str | None:
    return value.isoformat() if value else None


def _duration(job: Job) -> str:
    if job.submitted_at is None or job.ended_at is None:
        return "–"
    return f"{(job.ended_at - job.submitted_at).total_seconds():.2f}"
