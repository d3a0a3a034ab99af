"""HTTP as fetching needs it: redirects that keep secrets, ranges, and clear errors.

The standard library's client, so that fetching starts within a tenth of a second and works in
every image. It uses the proxies and the authorities that the environment names.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from disagfusion.version import __version__
from disagfusion.weights.errors import SourceDeniedError, SourceNotFoundError, UnreachableError

_CHUNK_BYTES = 1 << 20
_MAX_DOCUMENT = 64 << 20
_SECRETS = frozenset({"authorization", "cookie"})


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but hands a token to the host only that it is meant for."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and _origin(newurl) != _origin(req.full_url):
            for name in list(request.headers):
                if name.lower() in _SECRETS:
                    request.remove_header(name)
        return request


class HttpClient:
    """Reads documents and files.

    Args:
        timeout: Seconds without any byte after which an attempt is given up.
        headers: Of every request, for their own hosts only.
    """

    def __init__(self, timeout: float = 30.0, headers: Mapping[str, str] | None = None) -> None:
        self._timeout = timeout
        self._headers = {"User-Agent": f"disagfusion/{__version__}", **(headers or {})}
        self._opener = urllib.request.build_opener(_Redirects())

    def document(self, url: str) -> Any:
        """Return a JSON document.

        Raises:
            SourceNotFoundError: There is none at this address.
            SourceDeniedError: It is not shown to us.
            UnreachableError: It is no JSON, or too large.
            OSError: Not now; another attempt may do.
        """
        with self._open(url, {"Accept": "application/json"}) as response:
            content = response.read(_MAX_DOCUMENT + 1)
        try:
            if len(content) <= _MAX_DOCUMENT:
                return json.loads(content)
        except ValueError:
            pass
        raise UnreachableError(f"{shown(url)} answers something else than a document in JSON")

    def read(self, url: str, offset: int) -> Iterator[bytes]:
        """Yield a file's content from an offset on.

        Raises:
            SourceNotFoundError: There is none at this address.
            SourceDeniedError: It is not shown to us.
            OSError: Not now; another attempt may do.
        """
        # Compressed content would have another size than the one that is promised.
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with self._open(url, headers) as response:
            skip = 0 if response.status == http.HTTPStatus.PARTIAL_CONTENT else offset
            try:
                while chunk := response.read(_CHUNK_BYTES):
                    if skip >= len(chunk):
                        skip -= len(chunk)
                    else:
                        yield chunk[skip:]
                        skip = 0
            except http.client.HTTPException as error:
                raise OSError(f"the answer ends in the middle: {error!r}") from error

    def _open(self, url: str, headers: Mapping[str, str]) -> Any:
        request = urllib.request.Request(url, headers={**self._headers, **headers})  # noqa: S310
        try:
            return self._opener.open(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            with error:
                _explain(url, error)
        except urllib.error.URLError as error:
            raise OSError(f"{host(url)} cannot be reached: {error.reason}") from error
        except http.client.HTTPException as error:
            raise OSError(f"{host(url)} does not speak HTTP: {error!r}") from error


def _explain(url: str, error: urllib.error.HTTPError) -> None:
    # What the hub says beside the number; for a stranger a private repository does not exist.
    code = str(error.headers.get("X-Error-Code") or "")
    said = str(error.headers.get("X-Error-Message") or error.reason)
    what = f"{shown(url)} answers {error.code} {said}".strip()
    if error.code in (404, 410) or code in ("RepoNotFound", "RevisionNotFound", "EntryNotFound"):
        raise SourceNotFoundError(what, metadata={"code": code}) from error
    if error.code in (401, 403):
        raise SourceDeniedError(what, metadata={"code": code}) from error
    if error.code in (408, 425, 429) or error.code >= 500:
        raise OSError(what) from error
    raise UnreachableError(what) from error


def host(url: str) -> str:
    """Return an address's host and port."""
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]


def shown(url: str) -> str:
    """Return an address without what may be secret in it."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{host(url)}{parts.path}"


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc
