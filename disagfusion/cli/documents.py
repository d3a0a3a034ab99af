"""Reading the files that plans and simulations are made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from disagfusion.scheduling.document import Document

D = TypeVar("D", bound="Document")


def read(kind: type[D], path: Path) -> D:
    """Read a document from a file.

    Raises:
        NotFoundError: There is no such file.
        FailedPreconditionError: It cannot be read.
        InvalidArgumentError: It is not what it should be; names the field.
    """
    from disagfusion.scheduling.document import parse

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(str(path), "no text", expected="YAML in UTF-8") from error
    except OSError as error:
        raise FailedPreconditionError(f"{path}: {error.strerror or error}") from error
    return parse(kind, text, name=str(path))


def require_planner() -> None:
    """See whether what planning needs is installed.

    Raises:
        FailedPreconditionError: It is not; says what to install.
    """
    from importlib.util import find_spec

    missing = [name for name in ("highspy", "numpy", "scipy", "sklearn") if find_spec(name) is None]
    if missing:
        raise FailedPreconditionError(
            f"{', '.join(missing)} not installed: pip install 'disagfusion[planner]'",
            reason="NOT_INSTALLED",
        )
