"""What a server sends is not trusted: its answer has an end, its text can be saved, and no message repeats the key."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lape.endpoint import Endpoint, Unanswered
from support.serving import Fake, serving

KEY = "SECRET-KEY/12+3"


@contextmanager
def answering(reply: Any) -> Iterator[Endpoint]:
    """A server with one answer, and how it is asked."""
    with serving(Fake(replies={"/x": reply})) as fake:
        yield Endpoint(fake.url, "TEST_KEY", seconds=1.0)


def raw(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


@pytest.mark.parametrize("form", ["{}\n", "{}\r\n", " {} ", "{}"])
def test_a_key_from_a_file_with_a_line_end_is_sent_without_it(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", form.format(KEY))
    with serving(Fake(replies={"/x": (200, [])})) as fake:
        Endpoint(fake.url, "TEST_KEY").get("/x")
    assert fake.seen[0][2]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", [f"{KEY}\nmore", f"{KEY}…", f"{KEY}\x1b", f"a\x7f{KEY}"])
def test_a_key_that_no_header_can_hold_is_refused_unsaid(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", key)
    with answering((200, [])) as endpoint, pytest.raises(Unanswered, match="the key in TEST_KEY") as error:
        endpoint.get("/x")
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    "reply",
    [
        raw(f"401 bad Bearer {KEY}"),
        raw("302 Found", Location=f"http://192.0.2.1/?key={KEY}"),
        raw("302 Found", Location="http://192.0.2.1/?key=SECRET-KEY%2F12%2B3"),
        raw("403 No", json.dumps({"error": {"message": f"no {KEY}"}}).encode()),
        raw("403 No", json.dumps({"detail": "x" * 290 + f" {KEY}"}).encode()),
        f"{KEY} is not HTTP\r\n".encode(),
        f"HTTP/1.1 {KEY}\r\n\r\n".encode(),
        raw(f"500 {KEY}", b"5\r\nab", Transfer_Encoding="chunked"),
    ],
)
def test_no_message_repeats_the_key(reply: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    with answering(reply) as endpoint, pytest.raises(Unanswered) as error:
        endpoint.get("/x")
    for part in (KEY, KEY[:10], "SECRET"):
        assert part not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("status", ["200 OK", "500 Error"])
@pytest.mark.parametrize("body", [b"5\r\nab", b"junk\r\n", b"fffffffffffffffff\r\nx", b""])
def test_a_broken_chunked_body_is_no_answer(status: str, body: bytes) -> None:
    with answering(raw(status, body, Transfer_Encoding="chunked")) as endpoint, pytest.raises(Unanswered) as error:
        endpoint.get("/x")
    assert error.value.status == (500 if status.startswith("500") else None) or body == b""


LATE = "^no whole answer came within 1 s$"


@pytest.mark.parametrize(
    ("begun", "message"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", LATE),
        (b"HTTP/1.1 20", LATE),
        (b"HTTP/1.1 200 OK\r\nX: ", LATE),
        (b"", LATE),
        (b"HTTP/1.1 500 No\r\n\r\n", "^it answered 500 No$"),
    ],
)
def test_an_answer_that_never_ends_is_given_up_in_time(begun: bytes, message: str) -> None:
    with serving(Fake(replies={"/x": begun}, drips=0.1)) as fake:
        started = time.monotonic()
        with pytest.raises(Unanswered, match=message):
            Endpoint(fake.url, seconds=1.0).get("/x")
        assert time.monotonic() - started < 3


def test_a_huge_answer_is_given_up() -> None:
    with (
        answering(raw("200 OK", b"[" + b"[]," * 3_000_000 + b"[]]")) as endpoint,
        pytest.raises(Unanswered, match="longer than 8 MiB"),
    ):
        endpoint.get("/x")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (rb'["bad \ud83d"]', ["bad \ufffd"]),
        (rb'["\ud83d\ude00"]', ["😀"]),
        (b'["\xed\xa0\xbd"]', ["\ufffd"]),
        (rb'{"\udc00": {"a": ["\udfff x"]}}', {"\ufffd": {"a": ["\ufffd x"]}}),
    ],
)
def test_halves_of_characters_are_replaced(body: bytes, found: Any) -> None:
    with answering(raw("200 OK", body)) as endpoint:
        assert endpoint.get("/x") == found


@pytest.mark.parametrize("body", [b"[" * 100_000, b"1" * 5000, b"{", b"", b"\xff\xfe", b"1 2"])
def test_what_is_not_json_is_said_so(body: bytes) -> None:
    with answering(raw("200 OK", body)) as endpoint, pytest.raises(Unanswered, match="not JSON"):
        endpoint.get("/x")
