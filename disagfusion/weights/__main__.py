"""`python -m disagfusion.weights`: the cache of a node, from the command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from disagfusion import termination
from disagfusion.errors import DisagfusionError, InvalidArgumentError
from disagfusion.pipeline.stages import Stage
from disagfusion.weights.assembly import Fetched, Request
from disagfusion.weights.directory import DIGITS, DirectorySource
from disagfusion.weights.errors import SourceNotFoundError, WeightsError
from disagfusion.weights.fetch import fetch, use_in_place
from disagfusion.weights.hub import DEFAULT_REVISION, HubSource, find_token, is_repository
from disagfusion.weights.listing import Source
from disagfusion.weights.objects import ObjectSource, describe_directory
from disagfusion.weights.report import Report

_USAGE = 2
_STATUS = {"MODEL_NOT_FOUND": SourceNotFoundError.status}
_TERMINATED = 128 + signal.SIGTERM

_SOURCES = (
    "hub:NAME, a repository of the hub (HF_ENDPOINT); https://…, a document that lists files; "
    "dir:PATH, a directory in diffusers' layout; builtin:digits"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the process's status."""
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    report = Report(sys.stdout)
    try:
        status: int = given.run(given, report)
    except DisagfusionError as error:
        report.phase("failed", reason=error.reason, message=error.message)
        termination.fail(f"disagfusion weights: {error.message}")
        status = _status(error)
    return status


def _fetch(given: argparse.Namespace, report: Report) -> int:
    source = _source(given)
    request = Request(
        stage=Stage(given.stage) if given.stage else None,
        workflows=tuple(given.workflows),
        variant=given.variant,
        verify=given.verify,
        offline=given.offline or os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "yes"),
        max_bytes=given.max_bytes,
        owner=given.name,
        delay=given.retry_seconds,
    )
    if isinstance(source, DirectorySource) and not given.copy:
        found = use_in_place(source, request, report)
    else:
        found = fetch(source, given.cache, request, report)
    if given.link is not None:
        _link(given.link, found.path)
    report.phase("ready", path=str(found.path), bytes=found.nbytes, downloaded=found.downloaded)
    if given.report is not None:
        _write_report(given.report, report, found)
    return 0


def _index(given: argparse.Namespace, report: Report) -> int:
    document = describe_directory(given.directory, given.version)
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    return 0


def _source(given: argparse.Namespace) -> Source:
    kind, _, name = given.source.partition(":")
    if kind == "hub" and is_repository(name):
        return HubSource(
            name,
            revision=given.revision or DEFAULT_REVISION,
            token=find_token(os.environ, given.token_file),
            timeout=given.timeout,
        )
    if given.revision:
        raise InvalidArgumentError("revision", "is for repositories of the hub only")
    if kind in ("http", "https"):
        return ObjectSource(given.source, timeout=given.timeout)
    if kind == "dir" and name.startswith("/"):
        return DirectorySource(Path(name))
    if given.source == "builtin:digits":
        return DirectorySource(DIGITS, given.source)
    raise InvalidArgumentError("source", repr(given.source), expected=_SOURCES)


def _link(link: Path, target: Path) -> None:
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        temporary.symlink_to(target)
        temporary.replace(link)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InvalidArgumentError("link", f"{link}: {error.strerror or error}") from error


def _write_report(path: Path, report: Report, found: Fetched) -> None:
    content = {
        "started": report.started,
        "finished": time.time(),
        "path": str(found.path),
        "version": found.version,
        "revision": found.revision,
        "bytes": found.nbytes,
        "downloaded": found.downloaded,
    }
    try:
        path.write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        raise InvalidArgumentError("report", f"{path}: {error.strerror or error}") from error


def _status(error: DisagfusionError) -> int:
    if isinstance(error, WeightsError):
        return error.status
    return _USAGE if isinstance(error, InvalidArgumentError) else _STATUS.get(error.reason, 1)


def _end(number: int, frame: FrameType | None) -> None:
    # What is under way goes on where it was, as after any other death.
    os._exit(_TERMINATED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m disagfusion.weights", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("fetch", help="have what a stage needs in a node's cache")
    command.add_argument("source", help=_SOURCES)
    command.add_argument("--cache", type=Path, default=Path("/var/cache/disagfusion"))
    command.add_argument("--stage", choices=[stage.value for stage in Stage], help="default: all")
    command.add_argument("--revision", default="", help="commit, tag or branch of a repository")
    command.add_argument("--workflows", default=[], type=_names, help="such as text2image,…")
    command.add_argument("--variant", help="of the weights, such as fp16")
    command.add_argument("--token-file", type=Path, help="default: HF_TOKEN, HF_TOKEN_PATH")
    command.add_argument("--copy", action="store_true", help="a directory's files, too")
    command.add_argument("--link", type=Path, help="made to point to the model")
    command.add_argument("--report", type=Path, help="for DISAGFUSION_WEIGHTS_REPORT")
    command.add_argument("--verify", action="store_true", help="read again what is there")
    command.add_argument("--offline", action="store_true", help="ask no source")
    command.add_argument("--max-bytes", type=int, help="of the cache; the least used models go")
    command.add_argument("--timeout", type=float, default=30.0, help="seconds without a byte")
    command.add_argument(
        "--retry-seconds", type=float, default=0.5, help="before the second attempt, then doubled"
    )
    command.add_argument("--name", default=socket.gethostname(), help="for those who wait for us")
    command.set_defaults(run=_fetch)
    command = commands.add_parser("index", help="print the document that lists a directory's files")
    command.add_argument("directory", type=Path)
    command.add_argument("--version", default="", help="default: follows from the files")
    command.set_defaults(run=_index)
    return parser


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


if __name__ == "__main__":
    sys.exit(main())
