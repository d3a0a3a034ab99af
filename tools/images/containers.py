"""Running a program in an image, confined as in a pod."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.images.bundles import USER, Container, ImageConfig, describe
from tools.images.commands import run
from tools.images.engines import BuildahEngine, Engine
from tools.images.errors import ImageError


@dataclass(frozen=True)
class Ended:
    """A program that has ended.

    Attributes:
        status: Its exit status.
        output: What it wrote to its standard output.
        errors: What it wrote to its standard error.
    """

    status: int
    output: str
    errors: str


class Runner(ABC):
    """Runs programs in one image."""

    @abstractmethod
    def run(self, container: Container, seconds: float) -> Ended:
        """Run a program until it ends.

        Args:
            container: What is run.
            seconds: After which it is ended.

        Raises:
            ImageError: It took longer, or could not be started.
        """


class ClientRunner(Runner):
    """With docker or podman.

    Args:
        program: Which.
        reference: The image.
    """

    def __init__(self, program: str, reference: str) -> None:
        self._program = program
        self._reference = reference

    def run(self, container: Container, seconds: float) -> Ended:
        """See `Runner`."""
        name = f"disagfusion-check-{secrets.token_hex(6)}"
        command = [self._program, *self._options(container, name)]
        try:
            return _run(command, seconds)
        finally:
            subprocess.run([self._program, "rm", "--force", name], capture_output=True, check=False)

    def _options(self, container: Container, name: str) -> list[str]:
        options = ["run", "--rm", "--name", name, "--read-only", "--cap-drop=ALL"]
        options += ["--security-opt=no-new-privileges", "--network=host", "--tmpfs=/tmp"]
        options += [f"--tmpfs=/var/lib/disagfusion:uid={USER},gid={USER},mode=700"]
        for destination, source in container.mounts.items():
            options += ["--volume", f"{source}:{destination}:ro"]
        for variable, value in container.environment.items():
            options += ["--env", f"{variable}={value}"]
        if container.command:
            options += ["--entrypoint", container.command[0]]
        return [*options, self._reference, *container.command[1:]]


class RuncRunner(Runner):
    """With runc, on an image that buildah keeps.

    Args:
        config: What the image says.
        rootfs: Where its files are mounted.
    """

    def __init__(self, config: ImageConfig, rootfs: Path) -> None:
        self._config = config
        self._rootfs = rootfs

    def run(self, container: Container, seconds: float) -> Ended:
        """See `Runner`."""
        name = f"disagfusion-check-{secrets.token_hex(6)}"
        with tempfile.TemporaryDirectory(prefix="disagfusion-check-") as bundle:
            config = describe(self._config, container, self._rootfs)
            (Path(bundle) / "config.json").write_text(json.dumps(config))
            runc = ["runc", "--root", os.path.join(bundle, "state")]
            try:
                return _run([*runc, "run", "--bundle", bundle, name], seconds)
            finally:
                delete = [*runc, "delete", "--force", name]
                subprocess.run(delete, capture_output=True, check=False)


def _run(command: list[str], seconds: float) -> Ended:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise ImageError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"the program in the image took longer than {seconds:g} s") from error
    return Ended(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def opened(engine: Engine, reference: str) -> Iterator[Runner]:
    """Make an image ready to run programs in.

    Raises:
        ImageError: It is not there.
    """
    if not engine.find(reference):
        raise ImageError(f"{reference} has not been built")
    if not isinstance(engine, BuildahEngine):
        yield ClientRunner(engine.name, reference)
        return
    inspected = json.loads(run([*engine.command, "inspect", "--type", "image", reference]))
    config = ImageConfig.parse(inspected["OCIv1"]["config"])
    container = run([*engine.command, "from", "--pull-never", reference]).strip()
    try:
        rootfs = Path(run([*engine.command, "mount", container]).strip())
        yield RuncRunner(config, rootfs)
    finally:
        run([*engine.command, "rm", container])
