"""What the page's server lets in and tells the browser: its page, its assets and its calls, to itself; nothing from or to anywhere else."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
App: TypeAlias = Callable[[Any, Receive, Send], Awaitable[None]]
HOST = "127.0.0.1"
NAMES = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)
"""By what names the page may be asked for: others are another site's that was made to point here."""
_API = "/gradio_api"
JOIN = f"{_API}/queue/join"
"""Where calls are put in the queue."""
READ = re.compile(
    rf"/|/theme\.css|/favicon\.ico|/(assets|static)/[\w./-]+|{_API}/(startup-events|heartbeat/\w+|queue/data)"
)
"""What may be read: the page, what it is made of, and the answers to its calls. `startup-events` is asked by `launch` itself."""
LONGEST = 2**20
"""Bytes of the longest call."""
FIELDS = ("data", "fn_index", "trigger_id", "session_hash")
"""What is passed on of a call."""
SESSION = re.compile(r"\w{1,64}", re.ASCII)
"""What an opened page calls itself."""
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src 'self' blob:; object-src 'none'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""gradio builds its page with inline scripts, which the policy must let run; nothing can be fetched from elsewhere."""


class Refused(Exception):
    """A request that is not answered: the status, and why."""


class Guard:
    """ASGI middleware around all of gradio: passes on what this page asks of its own server, and adds `HEADERS` to every answer.

    gradio serves far more than a page needs (files, addresses that it fetches for the asker, uploads, calls past the queue, answers for pages of
    other ports), so what may be asked is listed, not what may not.
    """

    def __init__(self, app: App, calls: Mapping[int, int]) -> None:
        """`calls`: the number of each call of the page -> how many values it takes."""
        self._app, self._calls = app, calls

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *ours]}
            await send(message)

        try:
            _check(scope)
            if scope["method"] == "POST":
                receive = _again(_flat(await _body(receive), self._calls), receive)
        except Refused as refused:
            status, why = refused.args
            kind = (b"content-type", b"application/json")
            await guarded({"type": "http.response.start", "status": status, "headers": [kind]})
            await guarded({"type": "http.response.body", "body": json.dumps({"detail": why}).encode()})
            return
        await self._app(scope, receive, guarded)


def guarding(calls: Mapping[int, int]) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan that puts a `Guard` around all other middleware: gradio's own answers pages of other ports before middleware that it is given is asked."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        app.middleware_stack = Guard(app.middleware_stack, calls)
        yield

    return lifespan


def _check(scope: Message) -> None:
    """Refuse requests by another name, of another page, or for anything that this page does not use."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    method, path, host = scope["method"], scope["path"], headers.get(b"host", "")
    if not NAMES.fullmatch(host):
        raise Refused(421, "This page answers requests to 127.0.0.1 only.")
    opened = method == "GET" and path == "/" and headers.get(b"sec-fetch-mode") == "navigate"  # a link to the page
    site = "none" if opened else headers.get(b"sec-fetch-site", "none")
    if headers.get(b"origin", f"http://{host}").lower() != f"http://{host}".lower() or site not in (
        "none",
        "same-origin",
    ):
        raise Refused(403, "Requests from other pages are refused.")
    if not (path == JOIN if method == "POST" else method in ("GET", "HEAD") and READ.fullmatch(path)):
        raise Refused(404, "There is no such page.")


async def _body(receive: Receive) -> bytes:
    """All of a request's body."""
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > LONGEST:
            raise Refused(413, f"The request is too long: expected at most {LONGEST:,} bytes. Shorten the prompt.")
        if not message.get("more_body"):
            return body


def _flat(body: bytes, calls: Mapping[int, int]) -> bytes:
    """A call of the page, without what it does not need. gradio looks for files and addresses to fetch in nested values: refused here."""
    try:
        call = json.loads(body)
        data, number = call["data"], call["fn_index"]
        plain = all(one is None or isinstance(one, (str, int, float)) for one in data)
        known = SESSION.fullmatch(call["session_hash"]) and isinstance(call["trigger_id"], int | None)
        if type(number) is int and isinstance(data, list) and calls.get(number) == len(data) and plain and known:
            return json.dumps({name: call[name] for name in FIELDS}).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise Refused(400, "This is not a request that the page makes.")


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` for a body that was read already."""
    given = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def again() -> Message:
        return next(given, None) or await receive()

    return again
