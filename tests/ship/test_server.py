"""Whether a server uses an adapter: each engine's manner, what is honoured, ignored and half honoured, and every way in which it cannot be told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from lape.errors import MismatchError, OptionError
from lape.ship.server import KEY, Answering, ask_server
from support.serving import ADAPTER, BASE, ENGINES, Fake, serving

PROMPTS = ["Why is the sky blue?", "How are you?", "What is bread?", "Who was Ada?"]
Start = Callable[..., Fake]


@pytest.fixture
def start() -> Any:
    """Starts a server that answers as `Fake(…)` says."""
    with ExitStack() as stack:
        yield lambda **how: stack.enter_context(serving(Fake(**how)))


def ask(fake: Fake, adapter: str = ADAPTER, prompts: Any = PROMPTS, **how: Any) -> Any:
    return ask_server(fake.url, adapter, prompts, **how)


def posted(fake: Fake) -> list[dict[str, Any]]:
    return [body for _, body, _ in fake.seen if body]


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_adapter_that_acts_is_seen(engine: str, bare: bool, start: Start) -> None:
    served = ask(start(engine=engine), bare=bare)
    served.check()
    assert (served.base, served.adapter) == (BASE, ADAPTER)
    assert (served.changed, served.noise) == (len(PROMPTS), 0)
    assert [(one.prompt, one.base, one.adapter, one.again) for one in served.answers] == [
        (prompt, f"answer to {prompt}", f"réponse à {prompt}", f"answer to {prompt}") for prompt in PROMPTS
    ]


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ("vllm", "vLLM"), ("sglang", "SGLang"), ("llamacpp", "llama.cpp"), ("transformers", "an OpenAI-compatible server"),
        ("other", "an OpenAI-compatible server"),
    ],
)  # fmt: skip
def test_an_adapter_that_is_ignored_fails(engine: str, name: str, start: Start) -> None:
    fake = start(engine=engine, uses=lambda _: False)
    served = ask(fake)
    assert served.engine.name == name
    with pytest.raises(MismatchError, match="byte for byte, on 4 prompts") as error:
        served.check()
    assert f"{name} does not use {ADAPTER}" in str(error.value)
    assert "What to try" in str(error.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_adapter_that_acts_on_one_prompt_is_counted(engine: str, start: Start) -> None:
    served = ask(start(engine=engine, uses=lambda prompt: "bread" in prompt))
    served.check()
    assert served.changed == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_every_request_is_greedy_and_stands_alone(engine: str, start: Start) -> None:
    fake = start(engine=engine)
    ask(fake, new_tokens=7)
    asked = posted(fake)
    assert len(asked) == 3 * len(PROMPTS)
    for body in asked:
        assert (body["temperature"], body["seed"], body["max_tokens"]) == (0, 0, 7)
        if engine == "llamacpp":  # a cached prompt was computed with whatever adapter came first
            assert body["cache_prompt"] is False
            assert [one["id"] for one in body["lora"]] == [0, 1]
        if engine in ("vllm", "sglang"):  # else a default of the model's
            assert body["repetition_penalty"] == 1.0


def test_sglang_is_asked_for_base_and_adapter(start: Start) -> None:
    """It answers any other name by the base."""
    fake = start(engine="sglang")
    ask(fake, prompts=["x"])
    assert [body["model"] for body in posted(fake)] == [BASE, f"{BASE}:{ADAPTER}", BASE]


@pytest.mark.parametrize("name", ["0", "to-fr", "to-fr.gguf", "adapters/to-fr.gguf"])
def test_llama_cpp_s_adapters_go_by_number_file_and_path(name: str, start: Start) -> None:
    fake = start(engine="llamacpp")
    ask(fake, name, ["x"]).check()
    assert [[one["scale"] for one in body["lora"]] for body in posted(fake)] == [[0, 0], [1, 0], [0, 0]]


def test_llama_cpp_s_adapters_of_one_name_are_told_apart(start: Start) -> None:
    fake = start(engine="llamacpp", loras=("a/x.gguf", "b/x.gguf"))
    with pytest.raises(OptionError, match="names 2 adapters"):
        ask(fake, "x")
    ask(fake, "a/x.gguf").check()


def test_transformers_serve_loads_an_adapter_that_it_does_not_list(start: Start) -> None:
    fake = start(engine="transformers", extra=({"id": "org/other", "object": "model"},))
    with pytest.raises(OptionError, match=r"2 models that may be the one without to-fr.*base=NAME"):
        ask(fake)
    assert not posted(fake), "nothing is guessed"
    ask(fake, base=BASE).check()


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp"])
def test_a_server_without_the_adapter_says_which_it_has(engine: str, start: Start) -> None:
    fake = start(engine=engine)
    with pytest.raises(OptionError, match="has no adapter to-it") as error:
        ask(fake, "to-it")
    assert ADAPTER in str(error.value)
    assert not posted(fake)


def test_a_server_without_any_adapter_says_how_one_is_loaded(start: Start) -> None:
    with pytest.raises(OptionError, match=r"It has none; its models: org/base.*--lora"):
        ask(start(engine="llamacpp", loras=()))


def test_noise_alone_is_no_effect(start: Start) -> None:
    """A server that never answers twice alike differs with the adapter as often as without."""
    noisy = start(uses=lambda _: False, noise=lambda _, number: str(number))
    served = ask(noisy)
    assert (served.changed, served.noise) == (4, 4)
    with pytest.raises(MismatchError, match="without it the server answers 4 in two ways"):
        served.check()


def test_an_answer_that_the_base_gives_the_other_time_is_none_of_the_adapter(start: Start) -> None:
    fake = start(uses=lambda _: False, noise=lambda _, number: "!" if number % 3 else "")
    served = ask(fake)
    assert served.changed == 0
    with pytest.raises(MismatchError, match="byte for byte"):
        served.check()


def test_more_changed_than_noise_is_an_effect(start: Start) -> None:
    fake = start(noise=lambda prompt, number: str(number) if "bread" in prompt else "")
    served = ask(fake)
    assert (served.changed, served.noise) == (4, 1)
    served.check()


def test_empty_answers_are_compared_with_nothing(start: Start) -> None:
    empty = {"/v1/chat/completions": (200, {"choices": [{"message": {"content": None}}]})}
    with pytest.raises(MismatchError, match="All answers are empty"):
        ask(start(replies=empty)).check()


def test_what_a_model_thought_is_an_answer_too(start: Start) -> None:
    thought = {"/v1/chat/completions": (200, {"choices": [{"message": {"content": None, "reasoning_content": "hm"}}]})}
    assert ask(start(replies=thought)).answers[0].base == "hm"


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        ({"/v1/models": (200, {"models": []})}, "does not list models"),
        ({"/v1/models": (200, [1])}, "does not list models"),
        ({"/v1/models": (200, {"data": ["x"]})}, "does not list models"),
        ({"/v1/models": b"HTTP/1.0 200 OK\r\n\r\n<html>"}, "not JSON"),
        ({"/v1/models": b"SSH-2.0-OpenSSH\r\n"}, "could not be used"),
        ({"/v1/models": (404, {"detail": "Not Found"})}, "404 Not Found: Not Found"),
        ({"/v1/models": (401, {"error": "Unauthorized"})}, f"401.*export {KEY}"),
        ({"/v1/models": (302, "http://192.0.2.1/v1/models")}, "302.*192.0.2.1.*not followed"),
        ({"/v1/chat/completions": (307, "http://192.0.2.1/v1")}, "307.*not followed"),
        ({"/v1/chat/completions": (400, {"error": {"message": "no chat template"}})}, "no chat template.*bare=True"),
        ({"/v1/chat/completions": (500, {"error": {"message": "rank 64 > 16"}})}, "rank 64 > 16"),
        ({"/v1/chat/completions": (200, {"choices": []})}, "something else than a completion"),
        ({"/v1/chat/completions": (200, {"choices": [{"text": "x"}]})}, "something else than a completion"),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_used_is_said_so(replies: Any, why: str, start: Start) -> None:
    fake = start(replies=replies)
    with pytest.raises(OptionError, match=why) as error:
        ask(fake)
    assert fake.url in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [5, True, ["a"], {"text": "a"}, [{"type": "image_url", "image_url": {}}], [{"type": "text"}], [{"type": "text", "text": 5}], [[]]],
)  # fmt: skip
@pytest.mark.parametrize("bare", [False, True])
def test_content_that_is_no_text_is_refused_and_not_taken_for_an_answer(content: Any, bare: bool, start: Start) -> None:
    choice = {"message": {"content": content}, "text": content}
    fake = start(replies=dict.fromkeys(("/v1/chat/completions", "/v1/completions"), (200, {"choices": [choice]})))
    with pytest.raises(OptionError, match="Expected text, or a list of parts with text"):
        ask(fake, bare=bare)
    with pytest.raises(OptionError, match="Expected text, or a list of parts with text"):
        Answering.at(fake.url, BASE).answer([{"role": "user", "content": "Hi"}])


def test_an_answer_in_parts_is_their_text_and_half_a_character_is_replaced(start: Start) -> None:
    parts = [{"type": "text", "text": "Le ciel "}, {"type": "text", "text": "est bleu \ud83d"}]
    fake = start(replies={"/v1/chat/completions": (200, {"choices": [{"message": {"content": parts}}]})})
    assert ask(fake, prompts=["Hi"]).answers[0].base == "Le ciel est bleu \ufffd"
    answer, thought, _ = Answering.at(fake.url, BASE).answer([{"role": "user", "content": "Hi"}])
    assert (answer, thought) == ("Le ciel est bleu \ufffd", None)


def test_a_server_that_is_not_there_is_said_so() -> None:
    with pytest.raises(OptionError, match=r"http://127.0.0.1:9 could not be used.*Start it"):
        ask_server("http://127.0.0.1:9", ADAPTER, PROMPTS)


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1:8000", "https://example.org", "http://127.0.0.1.example.org", "http://127.0.0.1@example.org",
        "http://2130706433:80", "http://localhost.example.org", "file:///etc/passwd", "http://", "http://[::1",
        "http://127.0.0.1:8000?x=1", "http://me:secret@127.0.0.1:8000",
    ],
)  # fmt: skip
def test_no_other_machine_is_asked_and_no_other_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lape.endpoint.Endpoint._request_once", lambda *_: pytest.fail("it was asked"))
    with pytest.raises(OptionError) as error:
        ask_server(url, ADAPTER, PROMPTS)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "http://127.9.9.9:1"])
def test_this_machine_goes_by_several_names(url: str) -> None:
    with pytest.raises(OptionError, match="could not be used"):
        ask_server(url, ADAPTER, PROMPTS)


def test_another_machine_is_asked_where_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("lape.endpoint.Endpoint._request_once", lambda self, *_: asked.append(self.url) or {"data": []})
    with pytest.raises(OptionError, match="It serves: none"):
        ask_server("http://192.0.2.1:8000/v1/", ADAPTER, PROMPTS, remote=True)
    assert set(asked) == {"http://192.0.2.1:8000"}


@pytest.mark.parametrize("key", ["secret-key", None])
def test_the_key_comes_from_the_environment_and_is_never_said(
    key: str | None, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, key) if key else monkeypatch.delenv(KEY, raising=False)
    fake = start(replies={"/v1/chat/completions": (403, {"error": {"message": f"bad key: {key}"}})})
    with pytest.raises(OptionError) as error:
        ask(fake)
    assert {headers.get("Authorization") for _, _, headers in fake.seen} == {f"Bearer {key}" if key else None}
    assert "secret-key" not in str(error.value)


def test_no_proxy_stands_before_this_machine(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    ask(start()).check()


def test_an_adapter_of_another_model_is_refused(start: Start) -> None:
    fake = start(extra=({"id": "org/other", "root": "org/other", "owned_by": "vllm"},))
    with pytest.raises(MismatchError, match="as an adapter of org/base, not of org/other"):
        ask(fake, base="org/other")
    ask(fake).check()


def test_a_base_that_is_not_served_is_refused(start: Start) -> None:
    with pytest.raises(OptionError, match=r"has no model org/none\. It serves: org/base"):
        ask(start(), base="org/none")
    with pytest.raises(OptionError, match="base and adapter are both"):
        ask(start(), base=ADAPTER)


def test_no_prompt_is_refused(start: Start) -> None:
    with pytest.raises(OptionError, match="No prompt"):
        ask(start(), prompts=[])


def test_conversations_are_asked_whole(start: Start) -> None:
    fake = start()
    talk = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Why?"},
    ]
    assert ask(fake, prompts=[talk]).answers[0].prompt == "Why?"
    assert all(body["messages"] == talk for body in posted(fake))
