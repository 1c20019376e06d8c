"""The playground's session: both answers are what plain generation gives, what fires is what the definition says, one at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import socket
from html.parser import HTMLParser
from itertools import pairwise
from threading import Thread
from types import SimpleNamespace

import pytest
import torch

import lape
from lape.cli import run as lape_command
from lape.data import language_id
from lape.data.language_id import Guess
from lape.data.texts import Documents
from lape.edit.steer import SteerOptions, steer, steering
from lape.errors import MismatchError, OptionError, TextError
from lape.measure.generation import GenerationOptions, generate
from lape.measure.prompts import ask, cut
from lape.model.load import ModelOptions
from lape.play import session as module
from lape.play.asking import METHODS, Asked, usual_rate
from lape.play.code import snippet
from lape.play.firing import Read
from lape.play.presets import PRESETS, presets_for
from lape.play.session import Answer, Answers, Session
from lape.play.shading import alert, page, status
from lape.play.writing import Token, Written
from lape.recording.record import record
from lape.values.neurons import NeuronSet
from support.brute import hooks_on, lively, logits_of, some_texts, tokenizer_of
from support.by_hand import apply
from support.tiny import LAYERS
from support.told import without_steps

KINDS = ("llama", "gemma3_text", "gpt2", "phi3", "lfm2")
PROMPT = "the cat sat on"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> ${7*7} {{7*7}} & \"quoted\" 'single'"


@pytest.fixture(scope="module", autouse=True)
def told_by_letter():
    """The real identifier takes seconds to load and has nothing to say of random text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_id, "lingua", lambda _: lambda texts: [Guess("fr", 0.75) for _ in texts])
        yield


def model_of(kind):
    return lively(kind, torch.float32)


def stats_of(model):
    texts = {language: Documents(some_texts(12, seed)) for seed, language in enumerate(("en", "fr", "zh"))}
    return record(model, tokenizer_of(), texts)


@pytest.fixture(scope="module")
def sessions():
    """Sessions by architecture, each made when it is first asked for."""
    made = {}

    def session(kind="llama"):
        if kind not in made:
            model = model_of(kind)
            made[kind] = Session(model, tokenizer_of(), stats_of(model))
        return made[kind]

    return session


def asked(prompt=PROMPT, source="en", target="fr", *, rate=0.2, new_tokens=8, **more):
    return Asked(prompt, source, target, rate=rate, new_tokens=new_tokens, **more)


def steered_or_not(session, one, *, steered):
    """The context in which a session answers."""
    if not steered:
        return contextlib.nullcontext()
    neurons = session.neurons(one)
    return steer(session.model, neurons, stats=session.stats, source=one.source, to=one.target, **vars(one.steer))


def plainly(session, one, *, steered):
    """The answer as `generate` gives it, without anything that watches."""
    text = one.prompt if one.bare else ask(tokenizer_of(), one.prompt, source=one.source, target=one.target)
    how = GenerationOptions(new_tokens=one.new_tokens, repetition_penalty=one.repetition_penalty)
    with steered_or_not(session, one, steered=steered):
        (answer,) = generate(session.model, tokenizer_of(), [text], how)
    return answer if one.bare else cut(answer, target=one.target)


def state(session):
    """What would differ if an edit, or anything that watches, were left behind."""
    ids = torch.tensor([[1, 5, 9, 33, 8]])
    return logits_of(session.model, ids), hooks_on(session.model), "generate" in session.model.__dict__


def assert_as_before(session, before):
    logits, hooks, wrapped = state(session)
    assert torch.equal(logits, before[0])
    assert (hooks, wrapped) == before[1:]


# --- answers ---


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_both_answers_are_those_of_plain_generation_and_the_model_is_left_as_it_was(sessions, kind, bare):
    session, one = sessions(kind), asked(bare=bare)
    before = state(session)
    answers = session.answer(one)
    assert answers.unsteered.text == plainly(session, one, steered=False)
    assert answers.steered.text == plainly(session, one, steered=True)
    assert answers.steered.text != answers.unsteered.text
    assert answers.done
    assert_as_before(session, before)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["off+set", "off+add", "scale"])
def test_every_method_answers_as_it_would_without_the_page(sessions, method, how):
    session, one = sessions(), asked(method=method, steer=SteerOptions(how=how, strength=3))
    answers = session.answer(one)
    assert answers.steered.text == plainly(session, one, steered=True)


def test_answers_grow_token_by_token_and_only_the_last_is_whole(sessions):
    seen = list(sessions().answers(asked()))
    assert [one.done for one in seen] == [False] * (len(seen) - 1) + [True]
    for side in ("unsteered", "steered"):
        texts = [getattr(one, side).text for one in seen]
        assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert all(not one.steered.tokens for one in seen if one.unsteered.language is None)
    assert (seen[-1].unsteered.language, seen[-1].unsteered.certainty) == ("fr", 0.75)


def test_as_many_tokens_are_shown_as_were_asked_for(sessions):
    for count in (1, 5):
        answers = sessions().answer(asked(new_tokens=count, bare=True))
        assert len(answers.unsteered.tokens) == count


def test_an_answer_ends_where_the_model_asks_itself_another_question(sessions, monkeypatch):
    session, one = sessions(), asked(new_tokens=12)
    whole = session.answer(one).unsteered.text
    stop = whole[3:5]
    monkeypatch.setattr(module, "stops", lambda _target: [stop])
    tokens = session.answer(one).unsteered.tokens
    assert "".join(token.text for token in tokens) == whole[: whole.index(stop)]
    assert len(tokens) < 12


def test_what_fails_while_an_answer_is_written_is_raised_and_leaves_the_model_unedited(sessions):
    session = sessions()
    before, forwards = state(session), []

    def fail(*_):
        forwards.append(1)
        if len(forwards) > 14:  # in the middle of the steered answer
            raise ZeroDivisionError

    handle = session.model.register_forward_pre_hook(fail)
    try:
        with pytest.raises(ZeroDivisionError):
            session.answer(asked())
    finally:
        handle.remove()
    assert len(forwards) == 15
    assert_as_before(session, before)
    assert session.answer(asked()).done


def test_an_asker_who_goes_away_leaves_the_model_unedited(sessions):
    session = sessions()
    before = state(session)
    answers = session.answers(asked(new_tokens=40))
    while not next(answers).steered.tokens:
        pass
    answers.close()
    assert_as_before(session, before)
    assert session.answer(asked()).done


@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_several_at_once_get_what_each_would_get_alone(sessions, kind):
    session = sessions(kind)
    wanted = [asked(prompt, target=target) for prompt in some_texts(3, 5) for target in ("fr", "zh")]
    alone = [session.answer(one) for one in wanted]
    found: dict[int, Answers] = {}
    threads = [
        Thread(target=lambda k=k, one=one: found.update({k: session.answer(one)})) for k, one in enumerate(wanted)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[k] for k in range(len(wanted))] == alone


def test_a_slow_asker_keeps_nobody_waiting(sessions):
    """Both answers of one person are written while another's is in the middle of the steered one."""
    session = sessions()
    wanted, other = asked(new_tokens=40), asked("another question", target="zh")
    alone = [session.answer(one) for one in (wanted, other)]
    slow = session.answers(wanted)
    while not (now := next(slow)).steered.tokens:
        pass
    assert session.answer(other) == alone[1]
    *_, now = slow
    assert now == alone[0]


# --- what fires ---


@contextlib.contextmanager
def edited_where(model, kind, edits, weight, seen):
    """The MLPs by hand, edited in each column by its weight; `seen` gets the activations before the edit, layer by layer."""
    from support.brute import rewritten, width_of

    def change(layer, a):
        before = a.reshape(-1, a.shape[-1])
        seen[layer] = before.clone()
        after = before.clone()
        for one in edits:
            apply(one, layer, after, width_of(kind))
        weights = torch.tensor([weight(column) for column in range(len(before))], dtype=a.dtype)[:, None]
        return torch.lerp(before, after, weights).reshape(a.shape)

    with rewritten(model, kind, change):
        yield


@pytest.mark.parametrize("kind", ["llama", "gpt2", "phi3"])
@pytest.mark.parametrize(
    "steered_by",
    [None, SteerOptions(), SteerOptions(first=None, fade=1.0), SteerOptions(first=3, tokens="both")],
)
def test_shares_are_those_of_the_model_written_out_by_hand(kind, steered_by):
    """In float64, over the whole text at once, without a cache: the prompt's last position is the first that is edited."""
    model = lively(kind)
    session = Session(model, tokenizer_of(), stats_of(model))
    one = asked(bare=True, steer=steered_by or SteerOptions())
    answers, neurons = session.answer(one), session.neurons(one)
    answer = answers.steered if steered_by else answers.unsteered
    prompt = tokenizer_of()(PROMPT)["input_ids"]
    how = GenerationOptions(new_tokens=one.new_tokens)
    ids = prompt + ids_of(session, one, steered=steered_by is not None)

    def weight(column):
        at = column - (len(prompt) - 1)
        if steered_by is None or (at < 0 and steered_by.tokens == "generated"):
            return 0.0
        if steered_by.first is not None and at >= steered_by.first:
            return 0.0
        return steered_by.fade ** max(at, 0)

    edits = steering(neurons, session.stats, one.steer, source="en", to="fr")
    seen = [torch.empty(0)] * LAYERS
    with torch.no_grad(), edited_where(model, kind, edits, weight, seen):
        model(input_ids=torch.tensor([ids]), use_cache=False)
    fires = torch.cat(seen, 1)[len(prompt) :] > 0
    assert len(answer.tokens) == len(fires) == how.new_tokens
    for k, language in enumerate(answers.languages):
        flat = neurons[language].flat
        expected = [sum(bool(row[j]) for j in flat) / len(flat) for row in fires]
        assert [token.shares[k] for token in answer.tokens] == pytest.approx(expected)
        assert answer.mean(k) == pytest.approx(sum(expected) / len(expected))
        assert all(0 <= token.shares[k] <= 1 for token in answer.tokens)
    assert len({token.shares for token in answer.tokens}) > 1


def ids_of(session, one, *, steered):
    """The ids of an answer to a bare prompt."""
    model, prompt = session.model, tokenizer_of()(one.prompt, return_tensors="pt")
    with steered_or_not(session, one, steered=steered):
        out = model.generate(**prompt, max_new_tokens=one.new_tokens, do_sample=False, repetition_penalty=1.1)
    return out[0, prompt["input_ids"].shape[1] :].tolist()


def test_what_is_usual_is_the_mean_probability_in_the_language_s_own_text(sessions):
    session, one = sessions(), asked()
    answers, neurons = session.answer(one), session.neurons(one)
    for k, language in enumerate(answers.languages):
        counted = session.stats[language]
        of = [int(counted.fires.sum(0)[j]) / int(counted.tokens.sum()) for j in neurons[language]]
        assert answers.usual[k] == pytest.approx(sum(of) / len(of))
        assert answers.sizes[k] == len(of)


def test_a_model_that_reads_everything_again_for_each_token_gives_the_same(sessions):
    session, one = sessions(), asked(bare=True)
    expected = session.answer(one)
    session.model.generation_config.use_cache = False
    try:
        found = session.answer(one)
    finally:
        session.model.generation_config.use_cache = True
    assert found.unsteered == expected.unsteered


def test_languages_without_neurons_are_left_out(sessions, monkeypatch):
    session = sessions()
    full = session.neurons(asked())
    empty = NeuronSet(full.space, torch.empty(0, dtype=torch.int64))
    monkeypatch.setattr(session, "neurons", lambda _: dataclasses.replace(full, sets={**full.sets, "zh": empty}))
    answers = session.answer(asked())
    assert answers.languages == ("en", "fr")
    assert {len(token.shares) for token in answers.steered.tokens} == {2}
    with pytest.raises(OptionError, match=r"^zh "):
        session.answer(asked(target="zh"))
    assert "no Chinese neurons" in page(answers, "zh")


# --- text ---


def test_tokens_add_up_to_the_text_though_characters_are_cut_into_bytes():
    tokenizer = tokenizer_of()
    text = "le chat 猫坐 été 😀!"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    read = [Read(one, (k / 100,)) for k, one in enumerate(ids)]
    written = Written(tokenizer, [])
    for k in range(len(read) + 1):
        so_far = "".join(token.text for token in written.so_far(read[:k]))
        assert text.startswith(so_far)
        assert "\ufffd" not in so_far
    whole = written.whole(read)
    assert "".join(token.text for token in whole) == text
    assert [token.shares for token in whole] == [one.shares for one in read]
    assert sum(token.text == "" for token in whole) > 8  # bytes of 猫 and others


def test_bytes_that_are_no_character_stand_on_the_last_token():
    tokenizer = tokenizer_of()
    ids = tokenizer("a猫", add_special_tokens=False)["input_ids"][:-1]
    whole = Written(tokenizer, []).whole([Read(one, ()) for one in ids])
    assert "".join(token.text for token in whole) == tokenizer.decode(ids)
    assert whole[0].text == "a"


def test_a_tokenizer_that_goes_back_over_its_text_loses_nothing():
    back = SimpleNamespace(decode=lambda ids, **_: {1: "a .", 2: "a.b", 3: "a.b c"}[len(ids)])
    assert "".join(token.text for token in Written(back, []).whole([Read(k, ()) for k in range(3)])) == "a.b c"


def test_nothing_written_is_nothing_shown():
    assert Written(tokenizer_of(), ["x"]).whole([]) == ()


# --- what cannot be asked ---


def test_what_cannot_be_asked_is_refused_before_anything_is_written(sessions):
    session = sessions()
    forwards = []
    handle = session.model.register_forward_pre_hook(lambda *_: forwards.append(1))
    try:
        for one, kind, words in (
            (asked(" \n "), OptionError, "no prompt"),
            (asked(target="en"), OptionError, "both en"),
            (asked(target="de"), TextError, "de"),
            (asked("the cat " * 3000), OptionError, "Expected at most 1,000"),
            (asked("the cat " * 30, new_tokens=1000), OptionError, "tokens. Expected at most 23"),
        ):
            with pytest.raises(kind, match=words):
                session.answer(one)
    finally:
        handle.remove()
    assert not forwards


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": 0.0}, "rate is 0.0"),
        ({"method": "magic"}, "magic.*Expected .*difference"),
        ({"new_tokens": 0}, "1 or more"),
        ({"repetition_penalty": 0}, "above 0"),
        ({"repetition_penalty": float("nan")}, "above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, words):
    with pytest.raises(OptionError, match=words):
        asked(**changes)


def test_statistics_of_another_model_are_refused(sessions):
    other = lively("llama", torch.float32, seed=1)
    with pytest.raises(MismatchError, match="Record this model"):
        Session(other, tokenizer_of(), sessions().stats)


def test_the_rate_is_shared_out_among_the_languages(sessions):
    stats = sessions().stats
    neurons = len(stats.space)
    assert Asked("", "en", "fr", rate=0.1).amount(stats) == ("per_language", round(0.1 * neurons / 3))
    assert Asked("", "en", "fr", rate=0.1, method="lape").amount(stats) == ("rate", 0.1)
    assert 0 < usual_rate(stats) <= 0.1


def test_without_the_identifier_no_language_is_told(sessions, monkeypatch):
    def missing(_):
        raise OptionError("missing")

    monkeypatch.setattr(language_id, "lingua", missing)
    session = sessions()
    answers = Session(session.model, session.tokenizer, session.stats).answer(asked())
    assert (answers.steered.language, answers.steered.certainty) == (None, 0.0)
    assert "language not identified" in page(answers)


# --- the same in Python ---


ALL = SteerOptions(how="set", strength=4.5, first=None, fade=1.0)
PROGRAMS = {
    "as usual": asked(),
    "hostile text": asked(HOSTILE + "\n\\ '''"),
    "all positions": asked(bare=True, method="lape", steer=ALL),
    "other settings": asked(target="zh", method="lave", repetition_penalty=1.3),
}


@pytest.mark.parametrize("one", PROGRAMS.values(), ids=list(PROGRAMS))
def test_the_program_gives_the_page_s_steered_answer(sessions, tmp_path, one):
    session = sessions()
    session.model.save_pretrained(tmp_path / "a model's")
    tokenizer_of().save_pretrained(tmp_path / "a model's")
    (tmp_path / "run's").mkdir()
    session.stats.save(tmp_path / "run's" / "stats.safetensors")
    loading = ModelOptions(device="cpu")
    program = snippet(one, session.stats, str(tmp_path / "a model's"), str(tmp_path / "run's"), loading)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(program, "page", "exec"), {})
    assert said.getvalue() == session.answer(one).steered.text + "\n"
    assert "device='cpu'" in program


# --- HTML ---


class Seen(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.attributes = set(), "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def answers_of(texts, prompt="a prompt", shares=((0.25, 0.75),), **more):
    tokens = tuple(Token(text, shares[k % len(shares)]) for k, text in enumerate(texts))
    one = Answer(tokens, "fr", 0.9)
    return Answers(asked(prompt), ("en", "fr"), (10, 12), (0.8, 0.9), one, one, done=True, **more)


def test_hostile_text_stays_text():
    seen = Seen(page(answers_of([HOSTILE, "</div>", "\u202e"], HOSTILE)))
    assert not seen.tags & {"script", "img"}
    assert not any(name.startswith("on") for name, _ in seen.attributes)
    assert seen.text.count(HOSTILE) == 3  # the prompt, and each side
    assert seen.text.count("</div>") >= 2
    for made in (alert(HOSTILE), status(HOSTILE)):
        assert Seen(made).tags == {"div"}
        assert Seen(made).text == HOSTILE


def test_tokens_are_shaded_by_their_share():
    html = page(answers_of([" le", " chat"], shares=((0.25, 0.75), (0.5, 1.0))), "target")
    assert (
        re.findall(r'--share:([\d.]+)" title="(\d+%)">(.*?)<', html)
        == [("0.750", "75%", "le"), ("1.000", "100%", " chat")] * 2
    )
    assert "--share:0.250" in page(answers_of([" le"]), "source")
    assert "--share:0.250" in page(answers_of([" le"]), "en")


def test_charts_hold_every_share():
    html = page(answers_of(["a", "b"], shares=((0.25, 0.75), (0.5, 1.0))))
    lines = re.findall(r'class="lape-line lape-(\w+)" points="([^"]*)"', html)
    assert lines == [("source", "25.00,75.00 75.00,50.00"), ("target", "25.00,25.00 75.00,0.00")] * 2
    assert (
        re.findall(r'class="lape-usual lape-(\w+)".*?y1="([\d.]+)"', html)
        == [("source", "20.00"), ("target", "10.00")] * 2
    )
    assert "means: English 38%, French 88%" in html


@pytest.mark.parametrize(
    ("steer", "expected"),
    [
        (SteerOptions(first=3, fade=0.5), [0.5, 0.25]),
        (SteerOptions(first=None, fade=1.0), [1.0] * 5),
        (SteerOptions(first=1), []),
        (SteerOptions(tokens="prompt"), []),
    ],
)
def test_grey_is_where_the_model_is_edited(steer, expected):
    answers = answers_of("abcde")
    answers = Answers(**{**vars(answers), "asked": asked(steer=steer)})
    bands = re.findall(r'class="lape-band" x="([\d.]+)".*?opacity="([\d.]+)"', page(answers))
    assert bands == [(f"{20 * k:.2f}", f"{value:.2f}") for k, value in enumerate(expected)]


@pytest.mark.parametrize("count", [0, 1])
def test_short_answers_can_be_shown(count):
    assert "nan" not in page(answers_of(["a"] * count)).lower().replace("answers", "")


# --- examples ---


def test_examples_are_shown_where_their_languages_were_recorded():
    assert presets_for(["en", "zh", "fr", "es", "vi", "id", "ja"]) == list(PRESETS)
    assert presets_for(["en", "de"]) == []
    assert len({preset.name for preset in PRESETS}) == len(PRESETS) >= 5


# --- a system prompt ---


def test_a_system_prompt_goes_before_every_question_and_stands_in_the_program(sessions):
    session = sessions()
    told = Session(session.model, session.tokenizer, session.stats, system="Be brief.")
    text = ask(tokenizer_of(), PROMPT, source="en", target="fr", system="Be brief.")
    assert told.answer(asked()).unsteered.tokens == session.answer(asked(text, bare=True)).unsteered.tokens
    assert "system='Be brief.'" in snippet(asked(), session.stats, "m", "r", None, told.system)
    assert "system" not in snippet(asked(), session.stats, "m", "r", None, session.system)


# --- the command ---


def refused(capsys, *arguments):
    assert lape_command(["play", *map(str, arguments)]) == 2
    said = without_steps(capsys.readouterr().err).strip()
    assert said.startswith("error: ")
    return " ".join(said.split())


@pytest.fixture
def run(sessions, tmp_path):
    (tmp_path / "run").mkdir()
    sessions().stats.save(tmp_path / "run" / "stats.safetensors")
    return tmp_path / "run"


def test_the_command_says_what_to_type(capsys, tmp_path, monkeypatch, run):
    pytest.importorskip("gradio")
    monkeypatch.chdir(tmp_path)
    assert "lape demo" in refused(capsys)
    assert "lape record MODEL" in refused(capsys, "some/model")
    assert "nowhere" in refused(capsys, "--run", "nowhere")
    assert "Two runs" in refused(capsys, run, "--run", run)
    assert "--model other names another" in refused(capsys, "some/model", "--model", "other")
    assert "Expected 1 to 65535" in refused(capsys, run, "--port", 70000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"Port {port} is taken" in refused(capsys, run, "--port", port)


def test_a_run_that_does_not_name_its_model_is_refused(capsys, tmp_path):
    pytest.importorskip("gradio")
    lape.ActivationStats.from_counts(["en", "fr"], [9, 9], torch.ones(2, 3, 4, dtype=torch.int64)).save(
        tmp_path / "stats.safetensors"
    )
    assert "--model MODEL" in refused(capsys, tmp_path)


def test_without_gradio_the_extra_is_named(capsys, monkeypatch, run):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert 'pip install ".[play]"' in refused(capsys, run)
