"""Asking a server that speaks OpenAI's interface: JSON there and back, no redirect followed, a key from the environment alone.

Nothing that a server sends is trusted: its answer has a limit in seconds and in bytes, and no message repeats the key.
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
from urllib.request import (
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

PAUSE = 1.0
"""Seconds before the second try; twice as long before each further one."""
_LONGEST = 2**23
"""Bytes of the longest answer that is read: a thousand times a long chat answer. Parsed, it takes at most 500 MB."""
_DEEPEST = 64
"""Lists and objects within each other; answers of OpenAI's interface have a tenth of it."""
_SAID = 300
"""Characters of a server's own words that are passed on."""


class Unanswered(Exception):
    """A server gave no usable answer. Whoever asked says it to the user, with what to try."""

    def __init__(self, why: str, status: int | None = None) -> None:
        """`why`: as a sentence goes on; `status`: that of HTTP, None where there was no answer at all."""
        super().__init__(why)
        self.why, self.status = why, status


class _NoRedirect(HTTPRedirectHandler):
    """A redirect is an answer like any other that is no use: what is asked, and the key, go nowhere but to the address that was named."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Endpoint:
    """A server's address, and how it is asked."""

    url: str
    """What paths are put behind, such as http://127.0.0.1:8000."""
    key: str | None = None
    """The environment variable that holds the server's key, where it wants one. The key itself is never written anywhere."""
    tries: int = 1
    """How often a server that is busy or breaks off is asked."""
    seconds: float = 120.0
    """How long a whole answer may take, from the end of the request to the answer's last byte."""

    @property
    def local(self) -> bool:
        """Whether the address is this machine's own."""
        host = urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:
            return False

    def get(self, path: str) -> Any:
        """What the server answers, as JSON. Raises Unanswered."""
        return self._asked(path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What the server answers to JSON, as JSON. Raises Unanswered."""
        return self._asked(path, json.dumps(body).encode())

    def _asked(self, path: str, data: bytes | None) -> Any:
        last = Unanswered("it was not asked")
        for attempt in range(self.tries):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                return self._once(path, data)
            except Unanswered as error:
                last = error
                if error.status is not None and error.status != 429 and error.status < 500:
                    break
        raise last

    def _once(self, path: str, data: bytes | None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = _key(self.key)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            with self._opener().open(
                Request(f"{self.url.rstrip('/')}{path}", data, headers), timeout=self.seconds
            ) as reply:
                text = reply.read(_LONGEST + 1)
        except HTTPError as error:
            with error:
                raise Unanswered(_refusal(error, key), error.code) from None  # its cause may repeat the key
        except (OSError, HTTPException, ValueError) as error:  # a URLError is an OSError
            reason = getattr(error, "reason", error)
            late = isinstance(reason, TimeoutError)
            why = f"no whole answer came within {self.seconds:g} s" if late else str(reason) or type(error).__name__
            raise Unanswered(_without(key, why)) from None
        if len(text) > _LONGEST:
            raise Unanswered(f"its answer is longer than {_LONGEST // 2**20} MiB", 200)
        try:
            return _plain(json.loads(text))
        except (ValueError, RecursionError):
            raise Unanswered("its answer is not JSON", 200) from None

    def _opener(self) -> OpenerDirector:
        """No proxy stands between this machine and itself, whatever the environment says."""
        return build_opener(_NoRedirect, _Http, _Https, *([ProxyHandler({})] if self.local else []))


class _Timed(RawIOBase):
    """The bytes that a socket receives. The socket's timeout is that of all of them together, not of each read."""

    def __init__(self, received: RawIOBase, sock: Any) -> None:
        self._received, self._sock = received, sock
        timeout = sock.gettimeout()
        self._until = None if timeout is None else time.monotonic() + timeout

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
        return self._received.readinto(buffer)

    def close(self) -> None:
        self._received.close()
        super().close()


class _Response(HTTPResponse):
    """An answer that must be whole within the connection's timeout."""

    def __init__(self, sock: Any, *given: Any, **named: Any) -> None:
        super().__init__(sock, *given, **named)
        self.fp = BufferedReader(_Timed(self.fp.detach(), sock))


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


def _key(name: str | None) -> str | None:
    """The key that an environment variable holds, without the line end of the file it came from. Raises Unanswered for what no header can hold."""
    key = os.environ.get(name, "").strip() if name else ""
    if not key.isascii() or not key.isprintable():
        raise Unanswered(f"the key in {name} has characters that a request cannot carry; set it again", 401)
    return key or None


def _without(key: str | None, message: str) -> str:
    """A message in one line, with the key left out of it."""
    for form in {key, quote(key, safe="")} if key else ():
        message = message.replace(form, "…")
    return " ".join(message.split())


def _plain(value: Any, depth: int = 0) -> Any:
    """JSON without halves of characters, which no file can hold. Raises ValueError for what is nested too deeply."""
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_plain(name): _plain(item, depth + 1) for name, item in value.items()}
    return value


def _refusal(error: HTTPError, key: str | None) -> str:
    """The status of a refusal, and what the server says of it. Nothing of the server's is passed on before the key is left out, then it is shortened."""
    where = error.headers.get("Location", "elsewhere")
    parts = [f"it answered {error.code}", _short(error.reason, key)]
    parts += [f"(a redirect to {_short(where, key)}, which is not followed)"] if error.code < 400 else []
    words = _short(_words(error), key)
    return f"{' '.join(part for part in parts if part)}{f': {words}' if words else ''}"


def _words(error: HTTPError) -> str:
    """A server's own words for a refusal: OpenAI's `error.message`, or FastAPI's `detail`; none where they cannot be read."""
    try:
        found = _plain(json.loads(error.read(_LONGEST)))
    except (OSError, HTTPException, ValueError, RecursionError):
        return ""
    for name in ("error", "message", "detail"):
        found = found.get(name, found) if isinstance(found, dict) else found
    return found if isinstance(found, str) else ""


def _short(words: str, key: str | None) -> str:
    plain = _without(key, words)
    return f"{plain[:_SAID]}…" if len(plain) > _SAID else plain
