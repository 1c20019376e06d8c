"""A language model's grades: what is asked, what is made of the replies, and what happens when none comes."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from lape import endpoint as module
from lape.errors import OptionError
from lape.experiments.forcing.run import ForcingOptions
from lape.experiments.generation.run import SilencedOptions
from lape.measure.grader import GRADES, KEY, MARKS, TRIES, Grader, prompt


@pytest.fixture
def endpoint(monkeypatch):
    """Starts an endpoint that replies what a function of (request body, headers, number) says: (status, reply)."""
    monkeypatch.setattr(module, "PAUSE", 0.01)
    servers = []

    def start(answer):
        seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.append((self.path, body, dict(self.headers)))
                status, reply = answer(body, len(seen))
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def says(text):
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def asked_about(body):
    return body["messages"][0]["content"]


def test_grades_come_in_the_order_of_the_answers(endpoint):
    url, seen = endpoint(lambda body, _: (200, says(str(asked_about(body).count("good")))))
    answers = [("why?", "good good"), ("why?", "bad"), ("how?", "good")] * 5
    assert Grader(url, "m").grades(answers, "fr") == [2, 0, 1] * 5
    assert {path for path, _, _ in seen} == {"/v1/chat/completions"}
    assert {(body["model"], body["temperature"]) for _, body, _ in seen} == {("m", 0)}


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("2", 2), (" 1\n", 1), ("Grade: 0", 0), ("**2**", 2), ("12", None), ("none", None), ("3", None), ("", None),
        ("1.5", None), ("2.0", 2), ("0.5/2", None),
    ],
)  # fmt: skip
def test_a_grade_is_the_first_number_where_it_is_0_to_2(endpoint, reply, grade):
    url, _ = endpoint(lambda *_: (200, says(reply)))
    assert Grader(url, "m").grades([("q", "a")], "fr") == [grade]


@pytest.mark.parametrize(
    ("reply", "mark"),
    [
        *((str(mark), mark) for mark in range(1, 11)),
        ("10/10", 10), ("8/10.", 8), ("Score: 7", 7), ("７", 7), ("7.0", 7), ("0", None), ("11", None), ("7.5/10", None),
        ("7,5", None), ("0.8/10", None), ("100", None), ("ten", None), ("", None),
    ],
)  # fmt: skip
def test_a_mark_is_the_first_number_where_it_is_1_to_10(endpoint, reply, mark):
    url, _ = endpoint(lambda *_: (200, says(reply)))
    assert Grader(url, "m", MARKS).grades([("q", "a")], "fr") == [mark]


@pytest.mark.parametrize(("scale", "lowest"), [(GRADES, 0), (MARKS, 1)])
def test_an_empty_answer_has_the_lowest_and_is_not_asked_about(endpoint, scale, lowest):
    url, seen = endpoint(lambda *_: (200, says("2")))
    assert Grader(url, "m", scale).grades([("q", " \n"), ("q", "a")], "fr") == [lowest, 2]
    assert len(seen) == 1


def test_each_scale_asks_for_its_own_numbers(endpoint):
    url, seen = endpoint(lambda *_: (200, says("2")))
    for scale in (GRADES, MARKS):
        Grader(url, "m", scale).grades([("why?", "thus")], "fr")
    texts = [asked_about(body) for _, body, _ in seen]
    assert texts == [prompt("why?", "thus", "fr"), prompt("why?", "thus", "fr", MARKS)]
    assert ["from 1 to 10" in text for text in texts] == [False, True]
    for word in ("language", "fluency", "relevance", "number alone"):
        assert word in texts[1]


@pytest.mark.parametrize("scale", [GRADES, MARKS])
def test_the_prompt_holds_question_answer_and_language_as_they_are(scale):
    text = prompt("Why {answer}?", "{question} \\1 {}", "fr", scale)
    assert "<<<Why {answer}?>>>" in text
    assert "<<<{question} \\1 {}>>>" in text
    assert "wanted in French" in text
    assert "{language}" not in text


@pytest.mark.parametrize("key", ["secret", None])
def test_the_key_comes_from_the_environment(endpoint, monkeypatch, key):
    monkeypatch.setenv(KEY, key) if key else monkeypatch.delenv(KEY, raising=False)
    url, seen = endpoint(lambda *_: (200, says("1")))
    Grader(url + "/", "m").grades([("q", "a")], "fr")
    assert seen[0][2].get("Authorization") == (f"Bearer {key}" if key else None)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again(endpoint, status):
    url, seen = endpoint(lambda _, number: (status, {}) if number < TRIES else (200, says("2")))
    assert Grader(url, "m").grades([("q", "a")], "fr") == [2]
    assert len(seen) == TRIES


@pytest.mark.parametrize(
    ("status", "reply", "why", "times"),
    [
        (401, {}, "401", 1),
        (404, {}, "404", 1),
        (500, {}, "500", TRIES),
        (200, {"error": "no"}, "not a chat completion", 1),
    ],
)
def test_an_endpoint_that_refuses_is_said_so(endpoint, status, reply, why, times):
    url, seen = endpoint(lambda *_: (status, reply))
    with pytest.raises(OptionError, match=why) as error:
        Grader(url, "m").grades([("q", "a")], "fr")
    assert url in str(error.value)
    assert "grader_url" in str(error.value)
    assert len(seen) == times


def test_a_redirect_is_not_followed(endpoint, monkeypatch):
    """The key would go along."""
    monkeypatch.setenv(KEY, "secret")
    url, seen = endpoint(lambda *_: (302, {}))
    with pytest.raises(OptionError, match=r"302.*not followed") as error:
        Grader(url, "m").grades([("q", "a")], "fr")
    assert len(seen) == 1
    assert "secret" not in str(error.value)


def test_an_endpoint_that_is_not_there_is_said_so(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    with pytest.raises(OptionError, match=r"127.0.0.1:9/v1 could not be used"):
        Grader("http://127.0.0.1:9/v1", "m").grades([("q", "a")], "fr")


@pytest.mark.parametrize(
    "options",
    [{"grader_url": "http://x/v1"}, {"grader_model": "m"}, {"grader_url": "file:///etc/passwd", "grader_model": "m"}],
)
@pytest.mark.parametrize("kind", [ForcingOptions, SilencedOptions])
def test_half_a_grader_or_another_kind_of_address_is_refused(kind, options):
    with pytest.raises(OptionError, match="grader"):
        kind(**options)
