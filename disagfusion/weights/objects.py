"""Files below an address, listed in a document: object stores, and any other server of files.

The document is JSON:

    {"format": 1, "version": "…",
     "files": [{"path": "vae/config.json", "size": 1024, "sha256": "…", "url": "…"}, …]}

`version` may be left out: then it follows from the files. `url` may be left out, too: the default
is `path` below the document's own address; it may be relative, or pre-signed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from disagfusion.weights.errors import CorruptError, SourceDeniedError, SourceNotFoundError
from disagfusion.weights.http import HttpClient, shown
from disagfusion.weights.listing import Listing, RemoteFile, check_path, digest_of, file_sha256

FORMAT = 1
DOCUMENT_NAME = "manifest.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ObjectSource:
    """What a document at an address lists.

    Args:
        url: Of the document; http or https. `manifest.json` where it ends in a slash.
        timeout: Seconds without any byte after which an attempt is given up.
    """

    def __init__(self, url: str, *, timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.path.endswith("/"):
            url = parts._replace(path=f"{parts.path}{DOCUMENT_NAME}").geturl()
        # What is secret in a pre-signed address is no part of the model's name.
        self.name = shown(url)
        self._url = url
        self._client = HttpClient(timeout)

    def resolve(self) -> Listing:
        """See `Source`."""
        try:
            document = self._client.document(self._url)
        except SourceNotFoundError as error:
            raise SourceNotFoundError(f"model {self.name}: there is no such document") from error
        except SourceDeniedError as error:
            raise SourceDeniedError(f"model {self.name}: {error.message}") from error
        try:
            return self._listing(document)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError(
                f"model {self.name}: the document is not a list of files of format {FORMAT}: "
                f"{error!r}"
            ) from error

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """See `Source`."""
        return self._client.read(file.place, offset)

    def _listing(self, document: Any) -> Listing:
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}")
        files = tuple(self._file(entry) for entry in document["files"])
        version = str(document.get("version") or digest_of(files))
        if not _VERSION.fullmatch(version):
            raise ValueError(f"version {version[:80]!r}")
        return Listing(version, version, files)

    def _file(self, entry: Any) -> RemoteFile:
        path = check_path(entry["path"])
        size, sha256 = int(entry["size"]), str(entry["sha256"])
        if size < 0 or not _SHA256.fullmatch(sha256):
            raise ValueError(f"size or sha256 of {path}")
        place = urljoin(self._url, entry.get("url") or quote(path))
        if urlsplit(place).scheme not in ("http", "https"):
            raise ValueError(f"url of {path}")
        return RemoteFile(path=path, size=size, sha256=sha256, place=place)


def describe_directory(directory: Path, version: str = "") -> dict[str, Any]:
    """Return the document for a directory's files.

    Args:
        directory: A model in diffusers' layout.
        version: Its version; where empty, it follows from the files.

    Raises:
        SourceNotFoundError: There is no such directory.
        CorruptError: A name is not portable.
    """
    if not directory.is_dir():
        raise SourceNotFoundError(f"{directory}: no such directory")
    files = [
        {
            "path": check_path(path.relative_to(directory).as_posix()),
            "size": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    ]
    return {"format": FORMAT, **({"version": version} if version else {}), "files": files}
