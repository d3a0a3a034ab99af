"""A repository of a model hub.

Of the hub's API, as huggingface_hub 2 uses it: `GET /api/models/NAME/revision/REVISION?blobs=true`
lists the files of a commit, `GET /NAME/resolve/COMMIT/PATH` has their content.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from disagfusion.errors import InvalidArgumentError
from disagfusion.weights.errors import SourceDeniedError, SourceNotFoundError, UnreachableError
from disagfusion.weights.http import HttpClient, host
from disagfusion.weights.listing import Listing, RemoteFile, check_path

DEFAULT_ENDPOINT = "https://huggingface.co"
DEFAULT_REVISION = "main"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,96})?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# As directories use: what the version of a model shows of its commit.
_VERSION_LENGTH = 16


def is_repository(name: str) -> bool:
    """Whether a name can be a repository's."""
    return bool(_REPOSITORY.fullmatch(name)) and ".." not in name


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, which always means the same files."""
    return bool(_COMMIT.fullmatch(revision))


def version_of(commit: str) -> str:
    """Return the version of a model whose repository is at this commit."""
    return commit[:_VERSION_LENGTH]


def find_token(environment: Mapping[str, str], path: Path | None = None) -> str:
    """Return the hub's token, or nothing: from a file, `HF_TOKEN` or the file `HF_TOKEN_PATH`.

    Args:
        environment: Of the process.
        path: A file that must be there; goes before all else.

    Raises:
        InvalidArgumentError: The file cannot be read.
    """
    if path is None:
        if environment.get("HF_TOKEN"):
            return environment["HF_TOKEN"].strip()
        if not environment.get("HF_TOKEN_PATH"):
            return ""
        path = Path(environment["HF_TOKEN_PATH"])
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise InvalidArgumentError("token-file", f"{path} cannot be read: {error}") from error


class HubSource:
    """A repository at a revision.

    Args:
        repository: Such as "black-forest-labs/FLUX.1-schnell".
        revision: A commit, tag or branch.
        endpoint: The hub's address.
        token: Of a user who may read it; empty for nobody's.
        timeout: Seconds without any byte after which an attempt is given up.
    """

    def __init__(
        self,
        repository: str,
        *,
        revision: str = DEFAULT_REVISION,
        endpoint: str = "",
        token: str = "",
        timeout: float = 30.0,
    ) -> None:
        self.name = repository
        self.revision = revision
        self._endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        self._token = token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = HttpClient(timeout, headers)

    def resolve(self) -> Listing:
        """See `Source`."""
        url = (
            f"{self._endpoint}/api/models/{self.name}/revision/"
            f"{quote(self.revision, safe='')}?blobs=true"
        )
        try:
            answer = self._client.document(url)
        except SourceNotFoundError as error:
            raise self._not_found(error.metadata.get("code", "")) from error
        except SourceDeniedError as error:
            raise self._denied(error) from error
        try:
            commit = str(answer["sha"])
            files = tuple(self._file(entry, commit) for entry in answer["siblings"])
        except (KeyError, TypeError, ValueError) as error:
            where = host(self._endpoint)
            raise UnreachableError(f"{where} does not answer as a hub does: {error!r}") from error
        if not is_commit(commit):
            raise UnreachableError(f"{host(self._endpoint)} names no commit, but {commit[:64]!r}")
        return Listing(version_of(commit), commit, files)

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """See `Source`."""
        try:
            yield from self._client.read(file.place, offset)
        except SourceDeniedError as error:
            raise self._denied(error) from error

    def _file(self, entry: Mapping[str, Any], commit: str) -> RemoteFile:
        path = check_path(str(entry["rfilename"]))
        large = entry.get("lfs")
        return RemoteFile(
            path=path,
            size=int((large or entry)["size"]),
            sha256=str(large["sha256"]) if large else "",
            git_sha1="" if large else str(entry.get("blobId") or ""),
            place=f"{self._endpoint}/{self.name}/resolve/{commit}/{quote(path)}",
        )

    def _not_found(self, code: str) -> SourceNotFoundError:
        where = host(self._endpoint)
        if code == "RevisionNotFound":
            return SourceNotFoundError(
                f"model {self.name}: no revision {self.revision!r} on {where}",
                reason="REVISION_NOT_FOUND",
            )
        hint = "" if self._token else ", or it is private and needs a token"
        return SourceNotFoundError(f"model {self.name}: no such repository on {where}{hint}")

    def _denied(self, error: SourceDeniedError) -> SourceDeniedError:
        where = host(self._endpoint)
        if error.metadata.get("code") == "GatedRepo":
            why = "its terms have to be accepted on the hub by the token's owner"
        elif self._token:
            why = "the token is not valid there, or may not read it"
        else:
            why = "it needs a token (HF_TOKEN or --token-file), and there is none"
        return SourceDeniedError(f"model {self.name} is not shown by {where}: {why}")
