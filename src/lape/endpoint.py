"""Asking a server that speaks OpenAI's interface: JSON there and back, no redirect followed, a key from the environment alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

PAUSE = 1.0
"""Seconds before the second try; twice as long before each further one."""
_LONGEST = 2**26
"""Bytes of the longest answer that is read."""
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
    """How long an answer is waited for."""

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
        key = os.environ.get(self.key) if self.key else None
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            with self._opener().open(
                Request(f"{self.url.rstrip('/')}{path}", data, headers), timeout=self.seconds
            ) as reply:
                text = reply.read(_LONGEST)
        except HTTPError as error:
            with error:
                raise Unanswered(_refusal(error, key), error.code) from error
        except (OSError, HTTPException, ValueError) as error:  # a URLError is an OSError
            said = " ".join(str(getattr(error, "reason", error)).split())
            raise Unanswered(said or type(error).__name__) from error
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Unanswered("its answer is not JSON", 200) from error

    def _opener(self) -> OpenerDirector:
        """No proxy stands between this machine and itself, whatever the environment says."""
        return build_opener(_NoRedirect, *([ProxyHandler({})] if self.local else []))


def _refusal(error: HTTPError, key: str | None) -> str:
    """The status of a refusal, and what the server says of it; its words may repeat the key, which is left out."""
    to = (
        f", a redirect to {error.headers.get('Location', 'elsewhere')}, which is not followed"
        if error.code < 400
        else ""
    )
    said = _words(error)
    said = said.replace(key, "…") if key else said
    return f"it answered {error.code} {error.reason}{to}{f': {said}' if said else ''}".rstrip()


def _words(error: HTTPError) -> str:
    """A server's own words for a refusal, in one short line: OpenAI's `error.message`, or FastAPI's `detail`."""
    try:
        found = json.loads(error.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return ""
    for name in ("error", "message", "detail"):
        found = found.get(name, found) if isinstance(found, dict) else found
    said = " ".join(found.split()) if isinstance(found, str) else ""
    return f"{said[:_SAID]}…" if len(said) > _SAID else said
