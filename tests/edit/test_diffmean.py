"""DiffMean: the difference of mean residual streams, added after one block, at the positions asked for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from lape.data.texts import Documents
from lape.edit.diffmean import DiffMeanOptions, shifted, vector
from lape.errors import LapeError, ModelError, OptionError, TextError
from lape.recording.record import record
from support.brute import KINDS, MLPS, assert_near, hooks_on, logits_of, model_of, tokenizer_of
from support.made import made_stats
from support.tiny import LAYERS

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70], [1, 200, 33, 44, 55, 66, 77]])
LANGUAGES = ("en", "fr", "zh", "de")
TEXTS = {"en": "the cat sat on the mat", "fr": "le chat dort sur le lit", "de": "mat dog lit"}


@pytest.fixture(scope="module")
def recorded():
    """Statistics with residual sums, by architecture."""
    texts = {language: Documents([text] * 2) for language, text in TEXTS.items()}
    made = {}

    def of(kind):
        if kind not in made:
            made[kind] = record(model_of(kind), tokenizer_of(), texts, residual=True)
        return made[kind]

    return of


# --- what is added ---


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 1), st.floats(-3, 3), st.sampled_from(["source", "others"]))
def test_the_vector_is_the_difference_of_means_over_counted_tokens(seed, layer, strength, minus):
    stats = made_stats(seed, LANGUAGES, sums=True)
    mean = {k: stats[k].sums("residual")[layer] / int(stats[k].tokens.sum()) for k in LANGUAGES}
    base = mean["en"] if minus == "source" else (mean["en"] + mean["zh"] + mean["de"]) / 3
    options = DiffMeanOptions(layer, strength, minus)
    expected = strength * (mean["fr"] - base)
    for source, target in (("en", "fr"), ("eng_Latn", "fra_Latn")):
        torch.testing.assert_close(vector(stats, options, source=source, target=target), expected, rtol=1e-9, atol=1e-9)


def test_the_means_are_those_of_the_residual_stream(recorded):
    """With the mean of one text less that of another, its mean becomes the other's."""
    means = {}
    for language in ("en", "fr"):
        ids = torch.tensor([[1, *tokenizer_of()(TEXTS[language], add_special_tokens=False)["input_ids"]]])
        means[language] = residual("llama", ids, 1)[0, 1:].mean(0)
    found = vector(recorded("llama"), DiffMeanOptions(1), source="en", target="fr")
    assert_near(found, means["fr"] - means["en"])


# --- where ---


def residual(kind, ids, layer):
    """What the block after this one reads."""
    block = MLPS[kind].gate.format(layer + 1)
    block = block[: block.index(f".{layer + 1}.") + len(f".{layer + 1}")]
    seen = []

    def see(_module, args, kwargs):
        seen.append(args[0] if args else kwargs["hidden_states"])

    handle = model_of(kind).get_submodule(block).register_forward_pre_hook(see, with_kwargs=True)
    logits_of(model_of(kind), ids)
    handle.remove()
    return seen[0]


def columns(tokens, first, prompt):
    """The positions the definition names, of a text whose prompt has so many tokens."""
    picks = torch.arange(IDS.shape[1]) - (prompt - 1)
    limited = (picks >= 0) & (picks < (first or 99))
    return {"generated": limited, "prompt": picks < 0, "both": (picks < 0) | limited}[tokens]


WHERE = pytest.mark.parametrize(
    ("tokens", "first"), [("both", None), ("prompt", None), ("generated", None), ("both", 2)]
)


@WHERE
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_added_to_the_stream_after_its_block_at_those_positions(recorded, kind, tokens, first):
    options = DiffMeanOptions(1, 1.5, tokens=tokens, first=first)
    amount = vector(recorded(kind), options, source="en", target="fr")
    before, logits = [residual(kind, IDS, layer) for layer in (0, 1)], logits_of(model_of(kind), IDS)
    with shifted(model_of(kind), recorded(kind), options, source="en", target="fr") as model:
        after = [residual(kind, IDS, layer) for layer in (0, 1)]
        assert model is model_of(kind)
        assert not torch.equal(logits_of(model, IDS), logits)
    assert torch.equal(after[0], before[0])
    assert_near(after[1] - before[1], columns(tokens, first, IDS.shape[1])[:, None] * amount.expand_as(before[1]), 1e-9)
    assert torch.equal(logits_of(model, IDS), logits)
    assert hooks_on(model) == 0


@WHERE
@pytest.mark.parametrize("layer", range(LAYERS))
def test_while_generating_it_is_a_bias_of_the_block_s_last_projection(recorded, layer, tokens, first):
    """A Llama block ends in `stream + down(...)`."""
    model, options = model_of("llama"), DiffMeanOptions(layer, 2.0, tokens=tokens, first=first)
    amount = vector(recorded("llama"), options, source="en", target="fr")
    prompt = IDS[:, :4]
    with shifted(model, recorded("llama"), options, source="en", target="fr"):
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=4,
            min_new_tokens=4,
            do_sample=False,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    where = columns(tokens, first, 4)[:, None]
    handle = model.get_submodule(f"model.layers.{layer}.mlp.down_proj").register_forward_hook(
        lambda _m, _a, down: down + where * amount
    )
    expected = logits_of(model, out.sequences[:, :7])
    handle.remove()
    assert_near(torch.stack(out.logits, 1).double(), expected[:, 3:], 1e-5)


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_an_exception_undoes_it(recorded, error):
    model = model_of("llama")
    before = logits_of(model, IDS)
    options = DiffMeanOptions(0, tokens="generated")
    with pytest.raises(error), shifted(model, recorded("llama"), options, source="en", target="fr"):
        raise error
    assert hooks_on(model) == 0
    assert "generate" not in vars(model)
    assert torch.equal(logits_of(model, IDS), before)


@pytest.mark.slow
def test_a_compiled_model_is_shifted_and_restored(recorded):
    torch.compiler.reset()
    model, options = model_of("llama"), DiffMeanOptions(1)
    compiled = torch.compile(model, backend="eager")
    if Version(torch.__version__).release < (2, 13):
        with (
            pytest.raises(ModelError, match=r"before torch\.compile"),
            shifted(compiled, recorded("llama"), options, source="en", target="fr"),
        ):
            pass
        return
    before = logits_of(compiled, IDS)
    with shifted(compiled, recorded("llama"), options, source="en", target="fr"):
        during, expected = logits_of(compiled, IDS), logits_of(model, IDS)
    assert_near(during, expected)
    assert not torch.equal(during, before)
    assert torch.equal(logits_of(compiled, IDS), before)
    torch.compiler.reset()


# --- what is refused ---


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_that_there_is_not_is_refused(layer):
    with pytest.raises(OptionError, match="Expected 0 to 1"):
        vector(made_stats(sums=True), DiffMeanOptions(layer), source="en", target="fr")


def test_it_needs_residual_sums():
    with pytest.raises(OptionError, match="residual"):
        vector(made_stats(), DiffMeanOptions(0), source="en", target="fr")


@pytest.mark.parametrize("ends", [{"source": "de", "target": "fr"}, {"source": "en", "target": "de"}])
def test_a_language_that_was_not_recorded_is_refused_with_those_that_were(ends):
    with pytest.raises(TextError, match="en, fr, zh"):
        vector(made_stats(sums=True), DiffMeanOptions(0), **ends)


def test_a_language_alone_has_no_others():
    with pytest.raises(OptionError, match="Only fr was recorded"):
        vector(made_stats(languages=["fr"], sums=True), DiffMeanOptions(0, minus="others"), source="fr", target="fr")


@pytest.mark.parametrize("options", [{"minus": "both"}, {"tokens": "all"}, {"first": 0}, {"strength": float("nan")}])
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(LapeError, match="Expected"):
        DiffMeanOptions(0, **options)
