"""Edits of the prompt or of what is generated act on those positions alone, however the model is run."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version
from transformers import LogitsProcessor, StaticCache

from lape.edit import positions as module
from lape.edit.edit import Add, Off, Scale, Set, edited
from lape.edit.positions import Positions, cache_in
from lape.errors import ModelError, OptionError
from lape.model.find import find
from lape.values.neurons import NeuronSet
from support.brute import KINDS, assert_near, hooks_on, lively, logits_of, model_of
from support.by_hand import chosen, edited_where, one_of_each, values
from support.zoo.table import KINDS as ZOO
from support.zoo.written import build

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70]])
LONG = torch.tensor([[1, *range(20, 41)]])
"""Longer than the tiny Gemmas' windows."""
WHERE = [("prompt", None), ("generated", None), ("both", 2)]
WHERE_IDS = ["prompt", "generated", "both, first 2"]
EVERYWHERE = pytest.mark.parametrize("where", WHERE, ids=WHERE_IDS)
SOME = ("llama", "gemma3_text", "opt", "lfm2")
"""Attention, sliding windows, activations of (tokens, width), and a convolution's cache."""
NEW = 7


def is_edited(position, prompt, tokens, first=None):
    """The definition: a position that picks a new token is generated, the last of the prompt included; the rest is prompt."""
    if position < prompt - 1:
        return tokens != "generated"
    return tokens != "prompt" and (first is None or position - (prompt - 1) < first)


def twin(kind, where, prompt):
    """The model with its edits by hand, for forwards that see the whole text."""
    return edited_where(model_of(kind), kind, edits_of(kind), lambda column: is_edited(column, prompt, *where))


def edits_of(kind):
    return one_of_each(kind)[1:5]


def under(kind, where, edits=None):
    return edited(model_of(kind), edits or edits_of(kind), tokens=where[0], first=where[1])


def written(kind, ids=IDS, **options):
    """What `generate` writes after a prompt, with the logits it chose by."""
    torch.manual_seed(3)
    if ids is not None and "attention_mask" not in options:
        options["attention_mask"] = torch.ones_like(ids)
    options = {"do_sample": False, "output_logits": True, "max_new_tokens": NEW, "min_new_tokens": NEW, **options}
    return model_of(kind).generate(ids, pad_token_id=0, return_dict_in_generate=True, **options)


def assert_same(ours, theirs, share=1e-4):
    assert torch.equal(ours.sequences, theirs.sequences)
    if ours.logits is not None:
        assert_near(torch.stack(ours.logits, 1), torch.stack(theirs.logits, 1), share)


# --- generate ---


@EVERYWHERE
@pytest.mark.parametrize("kind", KINDS)
def test_only_those_positions_are_edited(kind, where):
    with under(kind, where):
        ours = written(kind)
    with twin(kind, where, IDS.shape[1]):
        assert_same(ours, written(kind, use_cache=False))


def test_each_choice_of_positions_gives_something_else():
    logits = [torch.stack(written("llama").logits)]
    for where in [*WHERE, ("generated", 1), ("both", None)]:
        with under("llama", where):
            logits.append(torch.stack(written("llama").logits))
    assert all(float((a - b).abs().max()) > 1e-3 for a, b in combinations(logits, 2))


WAYS = {
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "prompt in parts": {"prefill_chunk_size": 3},
    "looked up in the prompt": {"prompt_lookup_num_tokens": 3},
    "own first layers as assistant": {"assistant_early_exit": 1},
}


ASSISTED = WAYS.keys() - {"own first layers as assistant"}


@EVERYWHERE
@pytest.mark.parametrize("ids", [LONG, IDS[:, :1]], ids=["long", "one token"])
@pytest.mark.parametrize(
    ("kind", "way"),
    [(kind, way) for kind in SOME for way in WAYS if way in ASSISTED or kind in ("llama", "gemma3_text")],
)
def test_however_the_cache_is_kept(kind, way, ids, where):
    if kind == "gemma3_text" and way not in ASSISTED and Version(transformers.__version__) < Version("5.21"):
        pytest.skip("this transformers cannot crop a sliding window that is empty, edited or not")
    with under(kind, where):
        ours = written(kind, ids, **WAYS[way])
    with twin(kind, where, ids.shape[1]):
        assert_same(ours, written(kind, ids, use_cache=False))


@EVERYWHERE
@pytest.mark.parametrize(
    "choosing",
    [
        {"do_sample": True, "top_k": 20},
        {"do_sample": True, "num_return_sequences": 3},
        {"num_beams": 3, "num_return_sequences": 2, "output_logits": False, "output_scores": True},
    ],
    ids=["sampling", "several", "beams"],
)
@pytest.mark.parametrize("kind", SOME)
def test_however_tokens_are_chosen(kind, choosing, where):
    with under(kind, where):
        ours = written(kind, **choosing)
    with twin(kind, where, IDS.shape[1]):
        theirs = written(kind, use_cache=False, **choosing)
    assert_same(ours, theirs)
    if "num_beams" in choosing:
        assert_near(ours.sequences_scores, theirs.sequences_scores, 1e-4)


@EVERYWHERE
@pytest.mark.parametrize("given", ["embeddings", "embeddings without a mask", "ids without a mask", "nothing"])
@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_however_the_prompt_is_given(kind, given, where):
    model = model_of(kind)
    ids = torch.tensor([[1]]) if given == "nothing" else IDS
    options = {"attention_mask": torch.ones_like(ids) if given == "embeddings" else None}
    with twin(kind, where, ids.shape[1]):
        theirs = written(kind, ids, use_cache=False)
    with under(kind, where):
        if given.startswith("embeddings"):
            ours = written(kind, None, inputs_embeds=model.get_input_embeddings()(ids), **options)
            ours.sequences = torch.cat([ids, ours.sequences], 1)
        else:
            ours = written(kind, None if given == "nothing" else ids, **options)
    assert_same(ours, theirs)


@EVERYWHERE
@pytest.mark.parametrize("given", ["all", "all, no mask", "new only"])
@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "opt"])
def test_going_on_from_a_filled_cache(kind, given, where):
    """Positions that ran in the first call are what it made of them; its prompt ends where the first call's did."""
    more = torch.tensor([[44, 55, 66, 77]])
    with under(kind, where):
        first = written(kind)
        ids = torch.cat([first.sequences, more], 1)
        kept = cache_in(first).get_seq_length()
        mask = None if given == "all, no mask" else torch.ones_like(ids)
        ours = written(
            kind,
            ids[:, kept:] if given == "new only" else ids,
            attention_mask=mask,
            past_key_values=cache_in(first),
        )

    def either(column):
        return is_edited(column, IDS.shape[1] if column < kept else ids.shape[1], *where)

    with edited_where(model_of(kind), kind, edits_of(kind), either):
        theirs = written(kind, ids, use_cache=False)
    assert_near(torch.stack(ours.logits, 1), torch.stack(theirs.logits, 1), 1e-4)


@pytest.mark.parametrize("where", [("prompt", None), ("generated", None), ("both", 2)], ids=WHERE_IDS)
def test_a_cache_under_a_name_that_is_not_known_is_refused(monkeypatch, where):
    monkeypatch.setattr(module, "_CACHES", ("another name",))
    with under("llama", where), pytest.raises(ModelError, match=r"without a cache that can be seen.*tokens='both'"):
        written("llama")


def test_without_a_cache_there_is_none_to_be_seen(monkeypatch):
    monkeypatch.setattr(module, "_CACHES", ("another name",))
    with under("llama", ("generated", None)):
        ours = written("llama", use_cache=False)
    monkeypatch.undo()
    with under("llama", ("generated", None)):
        assert torch.equal(ours.sequences, written("llama").sequences)


# --- batches ---

PADDED = torch.tensor([[0, 0, 0, 1, 20, 30], [1, 200, 33, 44, 55, 66]])
MASK = (PADDED != 0).long()


@EVERYWHERE
@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "gpt2", "opt", "falcon", "lfm2"])
def test_a_batch_padded_on_the_left_is_its_rows_alone(kind, where):
    model = lively(kind, torch.float32)
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "pad_token_id": 0, "do_sample": False}
    options |= {"output_logits": True, "return_dict_in_generate": True}
    with edited(model, edits_of(kind), tokens=where[0], first=where[1]):
        together = model.generate(PADDED, attention_mask=MASK, **options)
        for row, (ids, mask) in enumerate(zip(PADDED, MASK, strict=True)):
            short = ids[mask == 1][None]
            alone = model.generate(short, attention_mask=torch.ones_like(short), **options)
            assert torch.equal(together.sequences[row, len(ids) :], alone.sequences[0, short.shape[1] :])
            assert_near(torch.stack(together.logits, 1)[row], torch.stack(alone.logits, 1)[0], 1e-3)


@EVERYWHERE
@pytest.mark.parametrize("kind", ["llama", "opt", "lfm2"])
def test_what_stands_in_the_padding_changes_nothing(kind, where):
    other = torch.where(MASK == 1, PADDED, 123)
    with under(kind, where):
        ours, theirs = (written(kind, ids, attention_mask=MASK) for ids in (PADDED, other))
    assert torch.equal(ours.sequences[:, 6:], theirs.sequences[:, 6:])
    assert_near(torch.stack(ours.logits), torch.stack(theirs.logits), 1e-6)


# --- forwards of one's own ---


def in_parts(model, ids, parts, cache=None):
    """Logits of a text that is read in parts of these lengths on one cache."""
    logits, at = [], 0
    with torch.no_grad():
        for part in parts:
            out = model(input_ids=ids[:, at : at + part], past_key_values=cache, use_cache=True)
            cache, at = cache_in(out), at + part
            logits.append(out.logits)
    return torch.cat(logits, 1)


def static(kind):
    return StaticCache(config=model_of(kind).config, max_cache_len=32)


@EVERYWHERE
@pytest.mark.parametrize("parts", [(7,), (4, 1, 2), (1, 5, 1)], ids=str)
@pytest.mark.parametrize("cache", [lambda _: None, static], ids=["dynamic", "static"])
@pytest.mark.parametrize("kind", SOME)
def test_the_first_forward_on_an_empty_cache_reads_the_prompt(kind, cache, parts, where):
    with under(kind, where):
        for _ in range(2):  # a second text begins anew
            ours = in_parts(model_of(kind), IDS, parts, cache(kind))
    with twin(kind, where, parts[0]):
        assert_near(ours, logits_of(model_of(kind), IDS), 1e-4)


@EVERYWHERE
def test_a_forward_of_the_body_alone_is_followed_too(where):
    for kind in ("llama", "opt"):
        model = model_of(kind)
        with under(kind, where), torch.no_grad():
            hidden = model.base_model(input_ids=IDS, use_cache=False).last_hidden_state
        with twin(kind, where, IDS.shape[1]):
            assert_near(model.lm_head(hidden), logits_of(model, IDS))


class Stop(LogitsProcessor):
    def __call__(self, *_):
        raise KeyError


def test_a_generate_that_failed_is_forgotten():
    where = ("generated", None)
    with under("llama", where):
        with pytest.raises(KeyError):
            written("llama", LONG, logits_processor=[Stop()])
        after = logits_of(model_of("llama"), IDS)
    with twin("llama", where, IDS.shape[1]):
        assert_near(after, logits_of(model_of("llama"), IDS))


@pytest.mark.parametrize("shape", [(7, 44), (1, 8, 44), (2, 7, 44)], ids=str)
def test_activations_that_are_not_one_for_each_token(shape):
    """One row of 7 tokens may come flat, but not as another number of them."""
    with Positions(model_of("llama"), "generated").followed() as positions:
        logits_of(model_of("llama"), IDS)
        double = positions.only(lambda a, _rows: a * 2)
        ones = torch.ones(shape)
        if ones.numel() == 7 * 44:
            assert double(ones, None).sum(-1).tolist() == [44.0] * 6 + [88.0]
        else:
            with pytest.raises(ModelError, match=r"1 × 7 tokens.*tokens='both'"):
                double(ones, None)


# --- compiled models ---


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_a_compiled_model_is_edited_at_those_positions(fresh_compiler):
    model, ids, where = torch.compile(lively("llama"), backend="eager"), IDS[:, :5], ("generated", None)
    before = logits_of(model, ids)
    with edited(model, edits_of("llama"), tokens="generated"):
        ours = in_parts(model, ids, (4, 1))
    assert torch.equal(logits_of(model, ids), before)
    with twin("llama", where, 4):
        assert_near(ours, logits_of(model_of("llama"), ids))


def test_a_model_compiled_in_place_generates_with_edits_at_those_positions(fresh_compiler):
    model, where = lively("opt"), ("both", 2)
    model.compile(backend="eager")
    with edited(model, edits_of("opt"), first=2):
        ours = model.generate(IDS, max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0)
    with twin("opt", where, IDS.shape[1]):
        assert torch.equal(ours, written("opt", use_cache=False).sequences[:, :10])


# --- laws ---


def some_edits(kind, seeds):
    made = [
        lambda s: Off(chosen(kind, s)),
        lambda s: Set(chosen(kind, s), values(kind, s)),
        lambda s: Add(chosen(kind, s), 0.5, s - 3),
        lambda s: Scale(chosen(kind, s), s / 3),
    ]
    return [made[s % 4](s) for s in seeds]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(SOME),
    st.lists(st.integers(0, 11), min_size=1, max_size=4),
    st.permutations(["prompt", "generated"]),
    st.sampled_from([1, 3, 7]),
)
def test_prompt_and_generated_together_are_both(kind, seeds, order, prompt):
    edits, model = some_edits(kind, seeds), model_of(kind)
    parts = (prompt, *[1] * (7 - prompt))
    with edited(model, edits):
        both = in_parts(model, IDS, parts)
    with edited(model, edits, tokens=order[0]), edited(model, edits, tokens=order[1]):
        nested = in_parts(model, IDS, parts)
    assert_near(nested, both)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(SOME), st.integers(1, 8), st.integers(1, 8))
def test_the_first_so_many_change_only_what_follows(kind, few, more):
    """Until the smaller number is used up both write the same; with as many as there are it is no limit."""
    logits = []
    for first in (few, more, NEW, None):
        with under(kind, ("generated", first)):
            logits.append(torch.stack(written(kind).logits))
    same = min(few, more, NEW)
    assert torch.equal(logits[0][:same], logits[1][:same])
    assert torch.equal(logits[2], logits[3])


# --- undoing ---


@pytest.mark.parametrize(
    ("kind", "error"), [*((kind, None) for kind in KINDS), ("llama", ValueError), ("opt", KeyboardInterrupt)]
)
def test_on_leaving_the_model_is_what_it_was_bit_for_bit(kind, error):
    model = model_of(kind)
    before, text = logits_of(model, IDS), written(kind).sequences
    try:
        with under(kind, ("prompt", None)), under(kind, ("generated", 2)):
            assert not torch.equal(logits_of(model, IDS), before)
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert hooks_on(model) == 0
    assert "generate" not in vars(model)
    assert torch.equal(logits_of(model, IDS), before)
    assert torch.equal(written(kind).sequences, text)


def test_a_generate_of_one_s_own_is_called_and_given_back():
    model = lively("llama")
    mine = lambda *_args, **_options: "mine"  # noqa: E731
    model.generate = mine
    with edited(model, Off(chosen("llama")), tokens="generated"):
        assert model.generate(IDS) == "mine"
    assert model.generate is mine


def test_an_edit_that_is_refused_leaves_nothing_on():
    model = model_of("llama")
    bad = [Off(chosen("llama")), Set(chosen("llama"), float("nan"))]
    with pytest.raises(OptionError), edited(model, bad, tokens="prompt"):
        pass
    assert hooks_on(model) == 0
    assert "generate" not in vars(model)


# --- models that see other tokens than they were given, and caches of their own ---


def of_zoo(name):
    model = build(name, ZOO[name])
    space = find(model).space
    return model, NeuronSet(space, torch.arange(0, len(space), 3))


@pytest.mark.parametrize("where", [*WHERE, ("both", None)], ids=[*WHERE_IDS, "both"])
def test_layers_that_run_on_the_last_tokens_only_are_edited_as_all_are(where):
    """Gemma 4's last layers, and routed experts there: `generate` asks for the last logits alone."""
    model, neurons = of_zoo("gemma4_text")
    edits = [Off(neurons), Add(neurons, 0.3, 2.0, at="gate")]
    ids = torch.randint(40, 300, (2, 9), generator=torch.Generator().manual_seed(1))
    with edited(model, edits, tokens=where[0], first=where[1]), torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits
        last = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
    assert last.shape[1] == 1
    assert_near(last, whole[:, -1:])


def test_a_recurrent_state_that_counts_its_tokens_is_a_cache():
    """xLSTM's: what is read in two parts is edited as if it were read at once, and `generate` knows its prompt."""
    model, neurons = of_zoo("xlstm")
    ids = IDS.repeat(1, 2)
    with torch.no_grad(), edited(model, Add(neurons, 0.3, 2.0, at="gate")):
        whole = model(input_ids=ids, use_cache=False).logits
        read = model(input_ids=ids[:, :9], use_cache=True)
        rest = model(input_ids=ids[:, 9:], cache=read.cache, use_cache=True).logits
    assert_near(rest, whole[:, 9:], 1e-4)
    options = {
        "max_new_tokens": 3,
        "do_sample": False,
        "pad_token_id": 0,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    ones = {"attention_mask": torch.ones_like(IDS)}
    with edited(model, Off(neurons), tokens="generated", first=1):
        answer = model.generate(IDS, **ones, **options)
    with torch.no_grad(), edited(model, Off(neurons), tokens="generated", first=1):
        assert_near(answer.logits[0], model(input_ids=IDS, use_cache=False).logits[:, -1], 1e-4)


def test_what_is_added_at_the_gate_spares_no_token_of_a_text_that_goes_on():
    """RWKV's state says nothing of how much was read."""
    model, neurons = of_zoo("rwkv")
    edit = Add(neurons, 0.3, 2.0, at="gate")
    with torch.no_grad():
        read = model(input_ids=IDS, use_cache=True)
        before = model(input_ids=IDS[:, :1], state=[part.clone() for part in read.state]).logits
        with edited(model, edit):
            after = model(input_ids=IDS[:, :1], state=[part.clone() for part in read.state]).logits
            first = model(input_ids=IDS[:, :1]).logits
        assert not torch.equal(before, after)
        assert torch.equal(first, model(input_ids=IDS[:, :1]).logits)


@pytest.mark.skipif(Version(transformers.__version__) < Version("5.24"), reason="it calls the cache otherwise")
def test_a_forward_without_a_cache_is_asked_for_it_as_transformers_wants(monkeypatch):
    warned = []
    monkeypatch.setattr(transformers.utils.generic.logger, "warning_once", warned.append)
    model = model_of("llama")
    with edited(model, Off(chosen("llama")), tokens="prompt"), torch.no_grad():
        model(input_ids=IDS, use_cache=False)
    assert warned == []
