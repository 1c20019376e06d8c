"""JSON requests to an OpenAI-compatible server.

A server's answer is limited in seconds and bytes, redirects are not followed, and no message repeats the key.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from io import BufferedReader, RawIOBase
from ipaddress import ip_address
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

PAUSE = 1.0
"""Seconds before the second try; the pause doubles before each further one."""
_MAX_BYTES = 2**23
"""Longest answer that is read: a thousand times a long chat answer."""
_MAX_CHARACTERS = 300
"""Longest part of a server's own message that is passed on."""


class Unanswered(Exception):
    """A server gave no usable answer. The caller reports it to the user, with a remedy."""

    def __init__(self, why: str, status: int | None = None) -> None:
        """`why`: a clause without a full stop; `status`: of HTTP, None if there was no answer at all."""
        super().__init__(why)
        self.why, self.status = why, status


class _NoRedirect(HTTPRedirectHandler):
    """Treat a redirect as a failed answer, so that prompts and key go only to the address that the user named."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Endpoint:
    """A server's address and how to ask it."""

    url: str
    """Paths are appended to it, for example http://127.0.0.1:8000."""
    key: str | None = None
    """The environment variable that holds the server's key. The key itself is never written anywhere."""
    tries: int = 1
    """How often to ask a server that is busy or breaks off."""
    seconds: float = 120.0
    """Limit of one answer."""

    @property
    def local(self) -> bool:
        """True if the address is on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:
            return False

    def get(self, path: str) -> Any:
        """Return the server's JSON answer. Raises Unanswered."""
        return self._request(path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send JSON and return the server's JSON answer. Raises Unanswered."""
        return self._request(path, json.dumps(body).encode())

    def _request(self, path: str, data: bytes | None) -> Any:
        for attempt in range(self.tries):
            try:
                return self._request_once(path, data)
            except Unanswered as error:
                can_retry = error.status is None or error.status == 429 or error.status >= 500
                if attempt + 1 == self.tries or not can_retry:
                    raise
            time.sleep(PAUSE * 2**attempt)
        raise Unanswered("it was not asked")

    def _request_once(self, path: str, data: bytes | None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = _read_key(self.key)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        no_proxy = [ProxyHandler({})] if self.local else []
        try:
            request = Request(f"{self.url.rstrip('/')}{path}", data, headers)
            with build_opener(_NoRedirect, _Http, _Https, *no_proxy).open(request, timeout=self.seconds) as reply:
                body = reply.read(_MAX_BYTES + 1)
        except HTTPError as error:
            with error:
                raise Unanswered(_describe_refusal(error, key), error.code) from None  # its cause may repeat the key
        except (OSError, HTTPException, ValueError) as error:  # a URLError is an OSError
            reason = getattr(error, "reason", error)
            late = isinstance(reason, TimeoutError)
            why = f"no whole answer came within {self.seconds:g} s" if late else str(reason) or type(error).__name__
            raise Unanswered(_hide_key(key, why)) from None
        if len(body) > _MAX_BYTES:
            raise Unanswered(f"its answer is longer than {_MAX_BYTES // 2**20} MiB", 200)
        try:
            return _parse(body)
        except (ValueError, RecursionError):
            raise Unanswered("its answer is not JSON", 200) from None


class _TimedReader(RawIOBase):
    """The bytes of a socket, whose timeout limits all reads together. A socket alone limits each read."""

    def __init__(self, bytes_: RawIOBase, sock: Any) -> None:
        self._bytes, self._sock = bytes_, sock
        self._until = time.monotonic() + sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        seconds = self._until - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        self._sock.settimeout(seconds)
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        self._bytes.close()
        super().close()


class _Response(HTTPResponse):
    """A response, status and headers included, that must be complete within the connection's timeout."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = BufferedReader(_TimedReader(self.fp.detach(), sock))


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _Http(HTTPHandler):
    def http_open(self, req: Request) -> Any:
        return self.do_open(_Connection, req)


class _Https(HTTPSHandler):
    def https_open(self, req: Request) -> Any:
        return self.do_open(_SecureConnection, req)


def _parse(body: bytes) -> Any:
    """Parse JSON, with half characters replaced, which no file can hold. Raises ValueError or RecursionError."""
    text = json.dumps(json.loads(body), ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _read_key(name: str | None) -> str | None:
    """Read the key from an environment variable, without a final line end. Raises Unanswered if no header can hold it."""
    key = os.environ.get(name, "").strip() if name else ""
    if not key.isascii() or not key.isprintable():
        raise Unanswered(f"the key in {name} has characters that a request cannot carry; set it again", 401)
    return key or None


def _hide_key(key: str | None, message: str) -> str:
    """Put a message on one line, and replace the key in it."""
    for form in {key, quote(key, safe="")} if key else ():
        message = message.replace(form, "…")
    return " ".join(message.split())


def _describe_refusal(error: HTTPError, key: str | None) -> str:
    """Give the status of a refusal and the server's own message, without the key and shortened."""
    parts = [f"it answered {error.code}", _shorten(error.reason, key)]
    if error.code < 400:
        parts.append(
            f"(a redirect to {_shorten(error.headers.get('Location', 'elsewhere'), key)}, which is not followed)"
        )
    message = _shorten(_server_message(error), key)
    return f"{' '.join(part for part in parts if part)}{f': {message}' if message else ''}"


def _server_message(error: HTTPError) -> str:
    """Read OpenAI's `error.message` or FastAPI's `detail`; "" if there is neither."""
    try:
        value = _parse(error.read(_MAX_BYTES))
    except (OSError, HTTPException, ValueError, RecursionError):
        return ""
    for name in ("error", "message", "detail"):
        value = value.get(name, value) if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""


def _shorten(text: str, key: str | None) -> str:
    plain = _hide_key(key, text)
    return f"{plain[:_MAX_CHARACTERS]}…" if len(plain) > _MAX_CHARACTERS else plain
