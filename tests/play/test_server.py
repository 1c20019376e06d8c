"""What the playground's server answers: its page, to itself, and nothing that a stranger asks."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
import torch

from lape.data import language_id
from lape.data.language_id import Guess
from lape.data.texts import Documents
from lape.errors import OptionError
from lape.play.form import asked_of, values_of
from lape.play.page import Place, serve
from lape.play.session import CHARACTERS, Session
from lape.recording.record import record
from support.browsing import opened
from support.brute import lively, some_texts, tokenizer_of

pytest.importorskip("gradio", reason="gradio is missing: pip install 'lape[play]'")
FORM = ["the cat sat on", "en", "fr", "difference", 10, 1, "off+set", 16, 4, 1.1, False, "target"]
ASK, SHADE = 0, 14  # as the page numbers its calls where it shows no more than six examples


@pytest.fixture(scope="module")
def session():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_id, "lingua", lambda _: lambda texts: [Guess("fr", 0.75) for _ in texts])
        model = lively("llama", torch.float32)
        texts = {language: Documents(some_texts(12, seed)) for seed, language in enumerate(("en", "fr", "zh"))}
        yield Session(model, tokenizer_of(), record(model, tokenizer_of(), texts))


@pytest.fixture(scope="module")
def blocks(session):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = serve(session, Place("a model", "a run"), port)
    yield served
    served.close(verbose=False)


@pytest.fixture(scope="module")
def port(blocks):
    return blocks.server_port


@contextmanager
def elsewhere(body=b"", kind="text/html"):
    """Another server on this machine: its port, and what it was asked."""
    asked = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.server_address[1], asked
    server.shutdown()
    server.server_close()


def sent(port, method, path, body=None, **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
    connection.request(method, path, data, {"content-type": "application/json", **named})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def call(data, number=ASK, **more):
    return {"data": data, "fn_index": number, "session_hash": "abc", "trigger_id": None, **more}


def answered(port, data, number=ASK):
    """All that the page is told in answer to a call."""
    status, _, said = sent(port, "POST", "/gradio_api/queue/join", call(data, number))
    if status != 200:
        return said.decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/gradio_api/queue/data?session_hash=abc")
    told = ""
    for line in connection.getresponse():
        told += line.decode()
        if '"process_completed"' in told and line == b"\n":
            break
    connection.close()
    return told


# --- who may ask ---


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_the_page_answers_by_every_name_of_this_machine(port, name):
    assert sent(port, "GET", "/", host=f"{name}:{port}")[0] == 200
    assert sent(port, "GET", "/", host=f"{name}:{port}", origin=f"http://{name.lower()}:{port}")[0] == 200


@pytest.mark.parametrize(
    "name", ["elsewhere.example", "127.0.0.1.elsewhere.example", "localhost@elsewhere.example", "127.0.0.2", "", "[::1"]
)
def test_a_name_that_was_made_to_point_here_is_refused(port, name):
    assert sent(port, "GET", "/", host=name)[0] == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://127.0.0.1:1"},
        {"origin": "http://localhost:PORT"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:PORT"},
        {"origin": "http://127.0.0.1"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/gradio_api/queue/data"), ("POST", "/gradio_api/queue/join"), ("OPTIONS", "/")],
)
def test_other_pages_are_refused_without_a_word_of_leave(port, method, path, headers):
    named = {name: value.replace("PORT", str(port)) for name, value in headers.items()}
    status, said, _ = sent(port, method, path, access_control_request_method="POST", **named)
    assert status == 403
    assert not [name for name in said if name.lower().startswith("access-control")]


def test_a_link_from_elsewhere_opens_the_page_and_nothing_else(port):
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert sent(port, "GET", "/", **link)[0] == 200
    assert sent(port, "GET", "/theme.css", **link)[0] == 403


def test_a_websocket_is_refused(port):
    upgrade = {"upgrade": "websocket", "connection": "Upgrade", "sec_websocket_version": "13"}
    assert sent(port, "GET", "/queue/join", sec_websocket_key="AAAAAAAAAAAAAAAAAAAAAA==", **upgrade)[0] in (403, 404)


# --- what may be asked ---


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", f"/gradio_api/file=http://{{there}}/{name}") for name in ("x", "x.png")),
        ("HEAD", "/gradio_api/file=http://{there}/x.png"),
        ("GET", "/gradio_api/file%3Dhttp://{there}/x.png"),
        ("GET", "/gradio_api//file=http://{there}/x.png"),
        ("GET", "/assets/../gradio_api/file=http://{there}/x.png"),
        ("GET", "/gradio_api/proxy=http://{there}/x"),
        ("GET", "/gradio_api/file=/etc/hostname"),
        *(("GET", f"/{name}") for name in ("config", "manifest.json", "monitoring", "svelte/x.js", "gradio_api/info")),
        *(("POST", f"/gradio_api/{name}") for name in ("upload", "run/written", "api/written", "call/written")),
        *(("POST", f"/gradio_api/{name}") for name in ("cancel", "reset", "component_server", "process_recording")),
        ("POST", "/login"),
        ("PUT", "/gradio_api/queue/join"),
    ],
)
def test_nothing_but_the_page_and_its_calls_is_there(port, method, path):
    with elsewhere() as (there, asked):
        assert sent(port, method, path.format(there=f"127.0.0.1:{there}"), None if method != "POST" else {})[0] == 404
        assert asked == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[" * 100_000,
        [],
        {},
        call(FORM[:-1]),
        call(FORM, 99),
        call(FORM, "0"),
        call(FORM, True),
        call(dict.fromkeys(map(str, range(12)), 1)),
        call([[], *FORM[1:]]),
        {"data": FORM, "fn_index": 0},
        *(call(FORM, session_hash=name) for name in ("", "../x", "a" * 1000, "\ud800", None, 5, [], {})),
        *(call(FORM, trigger_id=one) for one in ("x", [], {})),
    ],
    ids=repr,
)
def test_what_is_no_call_of_the_page_is_refused_in_words_and_quietly(port, body, capfd):
    status, _, said = sent(port, "POST", "/gradio_api/queue/join", body)
    assert (status, json.loads(said)["detail"]) == (400, "This is not a request that the page makes.")
    assert capfd.readouterr() == ("", "")


def test_an_address_for_a_value_is_not_fetched(port):
    with elsewhere() as (there, asked):
        url = f"http://127.0.0.1:{there}/x.png"
        file = {"path": url, "url": url, "meta": {"_type": "gradio.FileData"}}
        assert sent(port, "POST", "/gradio_api/queue/join", call([file, *FORM[1:]]))[0] == 400
        assert asked == []


def test_a_call_that_is_too_long_is_not_read_to_its_end(port):
    status, _, said = sent(port, "POST", "/gradio_api/queue/join", call(["a" * 2_000_000, *FORM[1:]]))
    assert status == 413
    assert b"Shorten the prompt" in said


# --- what is set ---


def test_the_form_gives_back_what_was_asked(session):
    one = asked_of(FORM[:-1], session.stats.languages)
    assert values_of(one, session.stats) == FORM[:-1]


WRONG = {
    "no prompt": (0, None, "There is no prompt"),
    "half a character": (0, "a\ud800b", "half of a character"),
    "a long prompt": (0, "a" * (CHARACTERS + 1), "32,001 characters. Expected at most 32,000"),
    "a language that is none": (1, "\ud800", "From is '\\\\ud800'. Expected en, fr, zh"),
    "no language": (2, None, "To is None. Expected en, fr, zh"),
    "a method that is none": (3, 5, "Method is 5. Expected"),
    "a rate over all": (4, 1e308, "Rate: neurons chosen, % of all is 1e+308. Expected a number from 0.01 to 10"),
    "strength as text": (5, "1", "Strength is '1'. Expected a number from 0 to 6"),
    "a way that is none": (6, "x", "What is done is 'x'"),
    "positions below 0": (7, -1, "is -1. Expected a number from 0 to 200"),
    "new tokens as text": (8, "many", "New tokens, at most is 'many'"),
    "a number without end": (8, 10**400, "New tokens, at most is 1000"),
    "a penalty that is no number": (9, float("nan"), "is nan. Expected a number from 1 to 2"),
    "a shade that is none": (11, None, "Shade is None. Expected target, source, en, fr, zh"),
}


@pytest.mark.parametrize(("place", "value", "words"), WRONG.values(), ids=list(WRONG))
def test_what_cannot_be_asked_is_one_message_and_no_stack_on_the_console(port, session, capfd, place, value, words):
    told = answered(port, [*FORM[:place], value, *FORM[place + 1 :]])
    assert words.replace("'", "&#39;") in told.replace("\\u0027", "'")
    assert "lape-alert" in told
    assert capfd.readouterr() == ("", "")


def test_a_prompt_is_measured_before_it_is_tokenised(session, monkeypatch):
    monkeypatch.setattr(session, "tokenizer", None)  # whoever asks it fails
    with pytest.raises(OptionError, match="characters"):
        session.answer(asked_of(["a" * 10_000_000, *FORM[1:-1]], session.stats.languages))


@pytest.mark.parametrize("shade", [None, "x", 5])
def test_a_shade_that_is_none_is_said(port, capfd, shade):
    assert "Shade is" in answered(port, [None, shade], SHADE)
    assert capfd.readouterr() == ("", "")


def test_an_answer_is_written_quietly(port, capfd):
    assert "Both answers are written" in answered(port, FORM)
    assert capfd.readouterr() == ("", "")


# --- in a browser ---

STRANGER = """<!doctype html><title>waiting</title>
<img src="http://127.0.0.1:PORT/gradio_api/file=http://127.0.0.1:HERE/x.png"><iframe src="http://127.0.0.1:PORT/"></iframe>
<script>
const there = "http://127.0.0.1:PORT", body = CALL, read = [];
const join = there + "/gradio_api/queue/join", headers = {"content-type": "application/json"};
const ways = [
  () => fetch(there + "/").then(r => r.text()),
  () => fetch(there + "/config").then(r => r.text()),
  () => fetch(join, {method: "POST", headers, body}).then(r => r.text()),
  () => fetch(join, {method: "POST", body, headers: {"content-type": "text/plain"}}).then(r => r.text()),
  () => fetch(join, {method: "POST", body, mode: "no-cors"}).then(r => r.text()),
  () => fetch(there + "/gradio_api/run/written", {method: "POST", headers, body}).then(r => r.text()),
  () => new Promise((resolve, reject) => {
    const source = new EventSource(there + "/gradio_api/queue/data?session_hash=abc");
    source.onmessage = m => resolve(m.data); source.onopen = () => resolve("opened"); source.onerror = reject;
  }),
  () => new Promise((resolve, reject) => {
    const socket = new WebSocket("ws://127.0.0.1:PORT/queue/join");
    socket.onopen = () => resolve("opened"); socket.onerror = reject;
  }),
];
(async () => {
  for (const way of ways) { try { const text = await way(); if (text) read.push(text); } catch {} }
  window.read = read; document.title = "tried";
})();
</script>"""


def test_a_page_of_another_port_can_neither_read_nor_drive_it(port, session, monkeypatch):
    driven = []
    monkeypatch.setattr(session, "answers", lambda asked: driven.append(asked) or iter(()))
    html = STRANGER.replace("PORT", str(port)).replace("CALL", json.dumps(json.dumps(call(FORM))))
    with elsewhere() as (there, asked):
        pages = html.replace("HERE", str(there)).encode()
        with elsewhere(pages) as (here, _), opened(f"http://127.0.0.1:{here}/") as watched:
            watched.page.wait_for_function("document.title == 'tried'", timeout=20_000)
            assert watched.page.evaluate("window.read") == []
            assert watched.page.frames[1].url.startswith("chrome-error:")
        assert asked == []
    assert driven == []


def test_the_page_works_in_a_browser_and_asks_nobody_else(port):
    with opened(f"http://127.0.0.1:{port}/") as watched:
        page = watched.page
        page.get_by_label("Prompt", exact=True).fill("the cat sat on")
        page.get_by_role("button", name="More settings").click()
        page.get_by_label("number input for New tokens, at most").fill("4")
        page.get_by_role("button", name="Ask twice").click()
        page.get_by_text("Both answers are written.").wait_for(timeout=30_000)
        page.get_by_label("Shade tokens by the neurons of").click()
        page.get_by_role("option", name="Chinese (zh)").click()
        page.get_by_text("Chinese neurons that fire on a token").wait_for(timeout=30_000)
        page.get_by_label("Prompt", exact=True).fill("a" * (CHARACTERS + 1))
        page.get_by_role("button", name="Ask twice").click()
        page.get_by_role("alert").get_by_text("32,001 characters").wait_for(timeout=30_000)
        assert watched.said == []
        assert [url for url in watched.asked if not url.startswith((f"http://127.0.0.1:{port}/", "data:"))] == []
        page.get_by_label("Prompt", exact=True).fill("a" * 2**21)
        page.get_by_role("button", name="Ask twice").click()
        page.get_by_text("The request is too long").wait_for(timeout=30_000)
