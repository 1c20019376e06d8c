"""Answers to many prompts at once are the answers to each alone, greedy, and nothing is printed."""

from __future__ import annotations

import logging
import time
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig, LogitsProcessor

from lape.edit.edit import edited
from lape.errors import OptionError
from lape.measure.answer_loss import ids_of
from lape.measure.generation import GenerationOptions, SamplingOptions, before, generate, padded, stream, write
from support.brute import lively, some_texts, tokenizer_of
from support.by_hand import one_of_each
from support.tiny import tiny_tokenizer

KINDS = ("llama", "gemma3_text", "gpt2", "opt", "falcon", "lfm2")
PROMPTS = some_texts(7, 3)


def model_that_ends(kind="llama", dtype=torch.float32, **changes):
    """A model to which ending is often nearly the best."""
    model = lively(kind, dtype, **changes)
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(300, dtype=dtype))
    with torch.no_grad():
        head.bias[2] = 2.5
    return model


def by_hand(model, tokenizer, prompt, options):
    """What `ids_by_hand` says."""
    return tokenizer.decode(ids_by_hand(model, tokenizer, prompt, options), skip_special_tokens=True)


def ids_by_hand(model, tokenizer, prompt, options):
    """Greedy, token by token, without a cache; tokens of the text so far have their odds divided by the penalty."""
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    while len(ids) < start + options.new_tokens:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double()
        for token in set(ids):
            by = options.repetition_penalty
            logits[token] = logits[token] / by if logits[token] > 0 else logits[token] * by
        ids.append(int(logits.argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return ids[start:]


def unpadding():
    """A tokenizer without a padding token, as many models have: rows are filled with the end of text."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    return tokenizer


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_in_a_batch_are_those_of_each_prompt_alone(kind, penalty):
    model, tokenizer = lively(kind, torch.float32), tokenizer_of()
    for batch in (3, 40):
        options = GenerationOptions(new_tokens=8, repetition_penalty=penalty, batch=batch)
        answers = generate(model, tokenizer, PROMPTS, options)
        assert answers == [by_hand(model, tokenizer, prompt, options) for prompt in PROMPTS]


@pytest.mark.parametrize("tokenizer", [tokenizer_of(), unpadding()], ids=["padding token", "none"])
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_answers_that_end_early_end_as_they_would_alone(tokenizer, penalty):
    model = model_that_ends()
    options = GenerationOptions(new_tokens=12, repetition_penalty=penalty, batch=7)
    answers = generate(model, tokenizer, PROMPTS, options)
    assert answers == [by_hand(model, tokenizer, prompt, options) for prompt in PROMPTS]
    assert len({len(tokenizer(answer)["input_ids"]) for answer in answers}) > 1  # some end early


@pytest.mark.parametrize("tokens", ["both", "prompt", "generated"])
def test_steered_answers_in_a_batch_are_those_of_each_prompt_alone(tokens):
    model, options = lively("llama", torch.float32), GenerationOptions(new_tokens=8)
    with edited(model, one_of_each("llama")[1:5], tokens=tokens):
        together = generate(model, tokenizer_of(), PROMPTS, options)
        assert together == [generate(model, tokenizer_of(), [prompt], options)[0] for prompt in PROMPTS]


SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "typical_p": 0.9}
OTHERS = [
    {},
    SAMPLING,
    {"temperature": 0.7},
    {"num_beams": 3},
    {"max_length": 25},
    {"max_new_tokens": 3},
    {"pad_token_id": None},
]


@pytest.mark.parametrize("config", OTHERS, ids=str)
def test_whatever_the_model_s_own_settings_answers_are_greedy_and_no_advice_is_printed(config, capfd):
    model, options = lively("llama", torch.float32), GenerationOptions(new_tokens=6)
    expected = [by_hand(model, unpadding(), prompt, options) for prompt in PROMPTS]
    model.generation_config = GenerationConfig(**{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **config})
    said: list[str] = []
    logger, listener = logging.getLogger("transformers"), logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(listener)
    try:
        with warnings.catch_warnings(record=True) as warned:
            assert generate(model, unpadding(), PROMPTS, options) == expected
    finally:
        logger.removeHandler(listener)
    assert (said, [str(one.message) for one in warned]) == ([], [])
    assert capfd.readouterr() == ("", "")


class Only(LogitsProcessor):
    def __call__(self, _ids, scores):
        return scores.index_fill(1, torch.tensor([k for k in range(300) if k != 77]), -torch.inf)


def test_processors_take_part():
    answers = generate(lively("llama"), tokenizer_of(), PROMPTS, GenerationOptions(new_tokens=4), processors=[Only()])
    assert answers == [tokenizer_of().decode([77] * 4)] * len(PROMPTS)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_the_pieces_of_a_stream_are_the_answer(penalty):
    model, options = model_that_ends(), GenerationOptions(new_tokens=8, repetition_penalty=penalty)
    for prompt in PROMPTS[:3]:
        pieces = list(stream(model, tokenizer_of(), prompt, options))
        assert "".join(pieces) == generate(model, tokenizer_of(), [prompt], options)[0]


@given(st.lists(st.text("ab\n", max_size=4), max_size=8), st.lists(st.text("ab\n", min_size=1, max_size=3), max_size=3))
def test_a_stream_ends_before_the_first_stop_however_it_is_cut_into_pieces(pieces, stops):
    whole = "".join(pieces)
    ends = [whole.index(stop) for stop in stops if stop in whole]
    shown = list(before(pieces, stops))
    assert "".join(shown) == whole[: min(ends, default=len(whole))]
    assert "" not in shown


def test_a_stream_shows_what_cannot_be_a_stop_at_once():
    assert list(before(["one", " two\n", "Q", "uite\n", "Q:", " three"], ["\nQ:"])) == ["one", " two", "\nQuite"]


def test_nothing_is_generated_after_a_stop():
    model, tokenizer, forwards = model_that_ends(), tokenizer_of(), []
    with torch.no_grad():
        model.lm_head.bias[:] = torch.where(torch.arange(300) == tokenizer("\n")["input_ids"][-1], 3.0, 0.0)
    model.register_forward_pre_hook(lambda *_: forwards.append(time.sleep(0.02)))
    (whole,) = generate(model, tokenizer, PROMPTS[:1], GenerationOptions(new_tokens=40, repetition_penalty=1.3))
    full = len(forwards)
    forwards.clear()
    assert 0 < whole.index("\n") < len(whole) // 2
    assert (
        "".join(stream(model, tokenizer, PROMPTS[0], GenerationOptions(40, 1.3), ["\n"])) == whole[: whole.index("\n")]
    )
    assert len(forwards) < full


def test_what_fails_while_streaming_is_raised_where_the_pieces_are_read():
    model = lively("llama")
    model.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(stream(model, tokenizer_of(), "the cat", GenerationOptions(4, 1.0)))


def test_no_prompts_have_no_answers():
    assert generate(lively("llama"), tokenizer_of(), [], GenerationOptions()) == []


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_its_mode_and_runs_without_dropout(training):
    model, options = lively("gpt2", resid_pdrop=0.5), GenerationOptions(new_tokens=6)
    expected = [by_hand(model.eval(), tokenizer_of(), prompt, options) for prompt in PROMPTS]
    assert generate(model.train(training), tokenizer_of(), PROMPTS, options) == expected
    assert model.training is training


def test_rows_are_padded_on_the_left():
    ids, mask = padded([[5, 6], [7], [8, 9, 10]], 3)
    assert ids.tolist() == [[3, 5, 6], [3, 3, 7], [8, 9, 10]]
    assert mask.tolist() == [[0, 1, 1], [0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize("options", [{"new_tokens": 0}, {"batch": 0}])
def test_numbers_that_cannot_be_are_refused(options):
    with pytest.raises(OptionError, match="1 or more"):
        GenerationOptions(**options)


def test_a_tokenizer_that_ends_texts_does_not_end_prompts():
    """Answers, streamed ones too, and the losses of given answers are those after the prompt, not after an end of text."""
    model, plain, ending = lively("llama", torch.float32), tiny_tokenizer(), tiny_tokenizer(eos=True)
    options = GenerationOptions(new_tokens=8)
    assert generate(model, ending, PROMPTS, options) == generate(model, plain, PROMPTS, options)
    ours, theirs = ("".join(stream(model, one, PROMPTS[0], options)) for one in (ending, plain))
    assert ours == theirs
    assert ids_of(ending, "the cat", " sat") == ids_of(plain, "the cat", " sat")


# --- drawing ---


def drawn(model, seed=0, **options):
    how = SamplingOptions(new_tokens=8, batch=3, temperature=0.9, seed=seed, **options)
    return generate(model, tokenizer_of(), PROMPTS, how)


def test_draws_come_from_their_seed_alone_and_leave_the_others_as_they_were():
    model = lively("llama", torch.float32)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = drawn(model)
    assert torch.equal(torch.rand(3), expected)
    assert drawn(model) == first
    assert drawn(model, seed=1) != first
    greedy = generate(model, tokenizer_of(), PROMPTS, GenerationOptions(new_tokens=8))
    assert first != greedy
    assert drawn(model, top_p=1e-6) == greedy == generate(model, tokenizer_of(), PROMPTS, SamplingOptions(new_tokens=8))


def test_an_answer_is_cut_where_the_model_did_not_end_it():
    model = model_that_ends()
    options = SamplingOptions(new_tokens=12, batch=7)
    written = write(model, unpadding(), PROMPTS, options)
    assert {one.cut for one in written} == {True, False}
    for prompt, one in zip(PROMPTS, written, strict=True):
        ids = ids_by_hand(model, unpadding(), prompt, options)
        assert one.cut == (ids[-1] != unpadding().eos_token_id)
    for prompt, one in zip(PROMPTS, written, strict=True):
        pieces = stream(model, unpadding(), prompt, options)
        assert _last(pieces) is one.cut


def _last(pieces):
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0.0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p is 1.5"),
        ({"top_p": 0.5}, "nothing is drawn"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_draws_that_cannot_be_are_refused(options, words):
    with pytest.raises(OptionError, match=words):
        SamplingOptions(**options)
