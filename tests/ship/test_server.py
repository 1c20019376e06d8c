"""Whether a server uses an adapter: each engine's manner, what is honoured, ignored and half honoured, and every way in which it cannot be told."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.errors import LapeWarning, MismatchError, OptionError
from lape.ship.server import FIRST, KEY, Answering, Local, agreement, ask_server
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
        ("vllm", "vLLM"), ("sglang", "SGLang"), ("llamacpp", "llama.cpp"), ("transformers", "transformers serve"),
        ("other", "an OpenAI-compatible server"),
    ],
)  # fmt: skip
def test_an_adapter_that_is_ignored_fails(engine: str, name: str, start: Start) -> None:
    fake = start(engine=engine, uses=lambda _: False)
    served = ask(fake)
    assert served.engine.name == name
    with pytest.raises(MismatchError, match="byte for byte, on all 4 prompts") as error:
        served.check()
    assert f"{name} does not use the adapter" in str(error.value)
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
    assert len(asked) == (5 if engine == "llamacpp" else 3) * len(PROMPTS)
    for number, body in enumerate(asked):
        assert (body["temperature"], body["seed"], body["max_tokens"]) == (0, 0, 7)
        if engine == "llamacpp":  # what is kept of a prompt would be of another adapter; but then it is asked as usual
            assert body.get("cache_prompt") is (False if number < 4 * len(PROMPTS) else None)
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
    assert [[one["scale"] for one in body["lora"]] for body in posted(fake)] == [[0, 0], [1, 0], [0, 0], [1, 0], [0, 0]]


@pytest.mark.parametrize("keeps", [True, False])
def test_a_server_that_goes_on_from_another_adapter_s_prompt_is_told(keeps: bool, start: Start) -> None:
    served = ask(start(engine="llamacpp", keeps=keeps))
    served.check()
    assert served.changed == len(PROMPTS)
    assert served.mixed == (len(PROMPTS) if keeps else 0)


def test_llama_cpp_s_adapters_of_one_name_are_told_apart(start: Start) -> None:
    fake = start(engine="llamacpp", loras=("a/x.gguf", "b/x.gguf"))
    with pytest.raises(OptionError, match="names 2 adapters"):
        ask(fake, "x")
    ask(fake, "a/x.gguf").check()


def test_transformers_serve_loads_an_adapter_that_it_does_not_list(start: Start) -> None:
    fake = start(engine="transformers", extra=({"id": "org/other", "object": "model"},))
    with pytest.raises(OptionError, match=r"2 models, any of which may be the one without to-fr.*base=NAME"):
        ask(fake)
    assert not posted(fake), "nothing is guessed"
    ask(fake, base=BASE).check()


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp", "other"])
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
    with pytest.raises(MismatchError, match="differ from themselves on 4"):
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
        "http://127.0.0.1:8000?x=1",
    ],
)  # fmt: skip
def test_no_other_machine_is_asked_and_no_other_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lape.endpoint.Endpoint._once", lambda *_: pytest.fail("it was asked"))
    with pytest.raises(OptionError):
        ask_server(url, ADAPTER, PROMPTS)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "http://127.9.9.9:1"])
def test_this_machine_goes_by_several_names(url: str) -> None:
    with pytest.raises(OptionError, match="could not be used"):
        ask_server(url, ADAPTER, PROMPTS)


def test_another_machine_is_asked_where_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("lape.endpoint.Endpoint._once", lambda self, *_: asked.append(self.url) or {"data": []})
    with pytest.raises(OptionError, match="has no adapter"):
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


def test_another_name_of_the_base_is_the_base(start: Start) -> None:
    fake = start(extra=({"id": "alias", "root": BASE, "owned_by": "vllm"},))
    assert ask(fake, base="alias").base == "alias"


def test_a_base_that_is_not_served_is_refused(start: Start) -> None:
    with pytest.raises(OptionError, match=r"has no model org/none\. It serves: org/base"):
        ask(start(), base="org/none")
    with pytest.raises(OptionError, match="base and adapter are both"):
        ask(start(), base=ADAPTER)


@pytest.mark.parametrize(("made_for", "warned"), [("elsewhere/base", False), ("org/another", True), ("", False)])
def test_an_adapter_that_names_another_model_is_warned_of(
    made_for: str, warned: bool, start: Start, tmp_path: Any
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": made_for}))
    fake = start(root=str(tmp_path))
    if warned:
        with pytest.warns(LapeWarning, match="says that it is for org/another"):
            ask(fake)
    else:
        ask(fake)


def words(text: str) -> list[int]:
    return [sum(map(ord, word)) for word in text.split()]


def test_the_local_model_s_answers_are_compared_each_with_its_own(start: Start) -> None:
    def answers(prompts: Any) -> tuple[list[str], list[str]]:
        return [f"answer to {one}" for one in prompts], [f"réponse à {one[:-1]} !" for one in prompts]

    served = ask(start(), prompts=["a b ?"], local=Local(answers, words))
    assert (served.unedited.share, served.unedited.whole, served.unedited.of) == (1.0, 1, 1)
    assert (served.edited.share, served.edited.whole) == (0.8, 0)
    assert served.short


def test_without_the_adapter_s_edits_the_unedited_model_alone_is_compared(start: Start) -> None:
    served = ask(start(), local=Local(lambda prompts: (["other"] * len(prompts), None), words))
    assert (served.unedited.share, served.edited, served.short) == (0.0, None, False)


texts = st.lists(st.sampled_from("abc"), max_size=24).map(" ".join)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_agreement_is_the_shared_beginning(pairs: list[tuple[str, str]]) -> None:
    found = agreement(pairs, words)
    shares = []
    for pair in pairs:
        a, b = (words(text)[:FIRST] for text in pair)
        same = 0
        while same < len(a) and same < len(b) and a[same] == b[same]:
            same += 1
        shares.append(1.0 if not a and not b else same / max(len(a), len(b)))
    assert found.share == pytest.approx(sum(shares) / len(shares))
    assert found.whole == sum(share == 1 for share in shares)
    assert agreement([(b, a) for a, b in pairs], words) == found
    assert agreement([(a, f"  {a}\n") for a, _ in pairs], words).share == 1


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
