"""Losses with neurons off: measured once, kept, paired over languages by number, and never a number that is none."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from lape.data.corpus import TextOptions
from lape.data.texts import Documents
from lape.edit.edit import Off, edited
from lape.errors import MismatchError, ModelError, OptionError, TextError
from lape.measure import ablation
from lape.measure.ablation import Ablations, digest
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from support.brute import down_squares, hooks_on, lively, model_of, some_texts, sums_of, tokenizer_of
from support.tiny import LAYERS

SPACE = NeuronSpace.dense(LAYERS, 44)
OPTIONS = TextOptions(row_tokens=64, batch_tokens=128)
SOME = NeuronSet(SPACE, torch.tensor([0, 3, 50, 51, 100]))
TEXTS = {language: Documents(some_texts(7, seed)) for seed, language in enumerate(("en", "fr"))}


def work_of(texts=None, kind="llama", *, bos=True, folder=None, options=OPTIONS, model=None):
    work = Ablations(model or model_of(kind), tokenizer_of(bos), texts or TEXTS, options, folder=folder)
    work.base()
    return work


@cache
def shared():
    return work_of()


def hand_loss(text, bos=True):
    """Summed nats and scored tokens of one document, from the model's own logits."""
    ids = torch.tensor([[1] * bos + tokenizer_of()(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        logs = model_of("llama")(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    scored = logs[:-1].gather(1, ids[0, 1:, None])[:, 0][ids[0, 1:] > 2]
    return -float(scored.sum()), len(scored)


def counted(monkeypatch):
    """The languages of every run of the model from now on."""
    runs, real = [], ablation.line_loss

    def count(model, head, corpus, *rest):
        runs.append(corpus.language)
        return real(model, head, corpus, *rest)

    monkeypatch.setattr(ablation, "line_loss", count)
    return runs


# --- losses ---


@pytest.mark.parametrize("language", ["en", "fr"])
def test_losses_are_those_of_the_edited_model_line_by_line(language):
    for loss, edits in ((shared().unedited(language), []), (shared().off(SOME, language), Off(SOME))):
        with edited(model_of("llama"), edits):
            expected = [hand_loss(text) for text in TEXTS[language].texts]
        np.testing.assert_allclose(loss.nll, [nats for nats, _ in expected], rtol=2e-6, atol=2e-5)
        assert loss.tokens.tolist() == [tokens for _, tokens in expected]


def test_no_neurons_off_is_the_unedited_model_itself():
    nothing = NeuronSet(SPACE, torch.empty(0))
    assert shared().off(nothing, "fr") is shared().unedited("fr")
    assert shared().passes(nothing, "fr") == 0


def test_measuring_leaves_no_hook_behind():
    shared().off(SOME, "en")
    assert hooks_on(model_of("llama")) == 0


# --- energy ---


@pytest.mark.parametrize("bos", [True, False], ids=["bos", "no bos"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_energy_is_the_mean_square_over_counted_tokens_times_the_down_column_s(kind, bos):
    """A text that spells out special tokens has fewer counted tokens than tokens."""
    texts = ["the cat</s> sat on<s> the mat", "le chat</s></s></s> dort", *some_texts(5)]
    work = work_of({"en": Documents(texts)}, kind, bos=bos)
    sums = sums_of(model_of(kind), kind, texts, tokenizer_of(bos), bos)
    assert sums["tokens"] < sum(len(tokenizer_of()(text, add_special_tokens=False)["input_ids"]) for text in texts)
    norms = down_squares(kind)
    for of, name in (("gate", "square"), ("written", "written_square")):
        expected = sums[name] / sums["tokens"] * norms
        torch.testing.assert_close(work.energy("en", of), expected, rtol=1e-9, atol=0)
    assert torch.equal(work.energy("en"), work.energy("en", "written"))


def test_what_a_value_changes_is_the_mean_square_of_the_activation_s_distance_from_it():
    texts = some_texts(5)
    work = work_of({"en": Documents(texts)}, "llama")
    sums = sums_of(model_of("llama"), "llama", texts, tokenizer_of())
    tokens, mean = sums["tokens"], sums["sum"] / sums["tokens"]
    norms = down_squares("llama")
    variance = sums["square"] / tokens - mean.square()
    for value in (torch.zeros(len(SPACE)), mean, mean + 0.3, torch.linspace(-1, 1, len(SPACE))):
        expected = (variance + (mean - value).square()) * norms
        torch.testing.assert_close(work.moved("en", value), expected.double(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(work.moved("en", torch.zeros(len(SPACE))), work.energy("en", "gate"))


def test_the_leading_neurons_are_those_furthest_above_the_other_languages_in_mean_activation():
    texts = {language: some_texts(9, seed) for seed, language in enumerate(("en", "fr", "zh"))}
    means = []
    for some in texts.values():
        sums = sums_of(model_of("llama"), "llama", some, tokenizer_of())
        means.append(sums["sum"] / sums["tokens"])
    count, expected = round(0.05 * len(SPACE)), set()
    for k, mean in enumerate(means):
        lead = mean - sum(one for n, one in enumerate(means) if n != k) / 2
        expected |= set(lead.argsort(descending=True)[:count].tolist())
    work = work_of({language: Documents(some) for language, some in texts.items()})
    assert set(work.leading(0.05).flat.tolist()) == expected


def test_a_single_language_leads_nowhere():
    assert len(work_of({"en": TEXTS["en"]}).leading()) == 0


def test_energies_are_refused_before_the_unedited_model_has_run():
    work = Ablations(model_of("llama"), tokenizer_of(), TEXTS, OPTIONS)
    for ask in (lambda: work.energy("fr"), lambda: work.moved("fr", torch.zeros(len(SPACE))), work.leading):
        with pytest.raises(OptionError, match="base"):
            ask()


# --- what is kept ---


def test_nothing_is_measured_twice(monkeypatch):
    work = Ablations(model_of("llama"), tokenizer_of(), TEXTS, OPTIONS)
    runs = counted(monkeypatch)
    work.base()
    work.base()
    first = work.off(SOME, "fr")
    again = work.off(NeuronSet(SPACE, SOME.flat.flip(0)), "fr")
    assert runs == ["en", "fr", "fr"]
    assert again is first
    assert work.passes(SOME, "fr") == 0
    assert work.passes(SOME, "en") == len(work.corpora["en"].tokens)


def test_what_a_folder_holds_is_the_same_and_not_measured_again(tmp_path, monkeypatch):
    first = work_of(folder=tmp_path)
    before, after, energy = first.unedited("fr"), first.off(SOME, "fr"), first.energy("fr")
    runs = counted(monkeypatch)
    again = work_of(folder=tmp_path)
    assert again.passes(SOME, "fr") == 0
    for kept, loss in ((again.unedited("fr"), before), (again.off(SOME, "fr"), after)):
        np.testing.assert_array_equal(kept.nll, loss.nll)
        np.testing.assert_array_equal(kept.tokens, loss.tokens)
    assert torch.equal(again.energy("fr"), energy)
    assert again.leading() == first.leading()
    assert runs == []


def test_a_set_s_name_is_its_neurons_and_nothing_else():
    assert digest(SOME) == digest(NeuronSet(SPACE, SOME.flat.flip(0)))
    names = {digest(NeuronSet(SPACE, torch.tensor(flat))) for flat in ([0], [1], [0, 1], [0, 100], [])}
    assert len(names) == 5


# --- units ---


def units_of(texts, **options):
    work = Ablations(model_of("llama"), tokenizer_of(), texts, TextOptions(**{"row_tokens": 64, **options}))
    return {language: work.unit(language).tolist() for language in work.languages}


def test_each_document_is_a_unit_and_one_document_has_blocks_of_8_lines():
    assert units_of(TEXTS) == {"en": list(range(7)), "fr": list(range(7))}
    one = {"en": Documents(["\n".join(some_texts(20, 3))])}
    assert units_of(one) == {"en": [line // 8 for line in range(20)]}


def test_documents_that_say_their_units_have_those():
    lines = some_texts(6, 3)
    texts = {k: Documents(lines, [4, 4, 4, 7, 9, 9]) for k in ("en", "fra_Latn")}
    assert units_of(texts) == {k: [0, 0, 0, 1, 2, 2] for k in ("en", "fr")}
    holed = {"en": texts["en"], "fr": Documents(["", *lines[1:3], "", *lines[4:]], [4, 4, 4, 7, 9, 9])}
    assert units_of(holed) == {"en": [0, 0, 0, 1, 2, 2], "fr": [0, 0, 2, 2]}


def test_a_blank_line_in_one_language_leaves_its_place_empty():
    lines = some_texts(20, 3)
    holed = [*lines[:2], "", "   ", *lines[4:]]
    found = units_of({"en": Documents(["\n".join(lines)]), "fr": Documents(["\n".join(holed)])})
    assert found["en"] == [line // 8 for line in range(20)]
    assert found["fr"] == [line // 8 for line in range(20) if line not in (2, 3)]


def test_a_line_that_is_blank_in_every_language_is_none():
    text = Documents(["\n\n".join(some_texts(20, 3))])
    assert units_of({"en": text, "fr": text}) == {k: [line // 8 for line in range(20)] for k in ("en", "fr")}


@pytest.mark.parametrize("source", ["documents", "lines of a file"])
def test_an_empty_document_in_one_language_leaves_its_place_empty(source, tmp_path):
    texts = {"en": some_texts(6, 1), "fr": [*some_texts(2, 2), "", *some_texts(3, 3)]}
    if source == "documents":
        found = units_of({language: Documents(lines) for language, lines in texts.items()})
    else:
        for language, lines in texts.items():
            (tmp_path / f"{language}.txt").write_text("\n".join(lines), encoding="utf-8")
        found = units_of({language: tmp_path / f"{language}.txt" for language in texts}, document="line")
    assert found == {"en": [0, 1, 2, 3, 4, 5], "fr": [0, 1, 3, 4, 5]}


def test_units_are_those_of_a_language_alone_where_nothing_is_empty():
    assert units_of({"fr": TEXTS["fr"]})["fr"] == units_of(TEXTS)["fr"]


def test_text_that_pairs_passes():
    shared().check_paired(["en", "fr"])


def test_one_document_beside_several_cannot_be_paired():
    work = Ablations(model_of("llama"), tokenizer_of(), {**TEXTS, "zh": Documents(["the cat\nsat"])}, OPTIONS)
    with pytest.raises(TextError, match=r"zh is one document, that for en has 7.*document='line'"):
        work.check_paired(["en", "zh"])
    work.check_paired(["en", "fr"])


def test_different_documents_cannot_be_paired():
    texts = {"en": Documents(["the cat sat", ""]), "fr": Documents(["", "le chat dort"])}
    with pytest.raises(TextError, match=r"en number 1, fr number 2"):
        Ablations(model_of("llama"), tokenizer_of(), texts, OPTIONS).check_paired(["en", "fr"])


# --- what is refused ---


@pytest.mark.parametrize("flat", [[1, 2], []])
def test_neurons_of_another_space_are_refused_naming_both(flat):
    other = NeuronSet(NeuronSpace.dense(LAYERS, 128), torch.tensor(flat))
    with pytest.raises(MismatchError, match=r"3 × 128.*3 × 44.*lape identify"):
        shared().off(other, "fr")


def test_a_language_that_is_not_evaluated_is_refused_naming_those_that_are():
    for ask in (lambda: shared().off(SOME, "zh"), lambda: shared().unedited("zh"), lambda: shared().unit("zh")):
        with pytest.raises(TextError, match=r"zh.*en, fr"):
            ask()


def test_the_unedited_loss_is_asked_for_after_it_was_measured():
    work = Ablations(model_of("llama"), tokenizer_of(), TEXTS, OPTIONS)
    with pytest.raises(OptionError, match=r"en yet.*base\(\)"):
        work.unedited("en")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_refused_and_not_kept(value, tmp_path, monkeypatch):
    work = work_of(folder=tmp_path)
    real = ablation.line_loss

    def broken(*args):
        loss = real(*args)
        loss.nll[2] = value
        return loss

    monkeypatch.setattr(ablation, "line_loss", broken)
    with pytest.raises(ModelError, match=r"5 neurons off, the loss of fr .*line 3.*dtype="):
        work.off(SOME, "fr")
    monkeypatch.setattr(ablation, "line_loss", real)
    assert np.isfinite(work.off(SOME, "fr").nll).all()


def test_an_unedited_model_without_a_finite_loss_is_refused():
    model = lively("llama")
    with torch.no_grad():
        model.lm_head.weight[5, 0] = float("inf")
    with pytest.raises(ModelError):
        work_of(model=model)


def test_a_language_with_nothing_to_measure_is_refused_naming_it():
    with pytest.raises(TextError, match="fr"):
        Ablations(model_of("llama"), tokenizer_of(), {**TEXTS, "fr": Documents(["   \n  "])}, OPTIONS)


def test_recorded_text_is_refused():
    corpora = shared().corpora
    known = LanguageNeurons(SPACE, {"fr": SOME}, fingerprints=corpora["fr"].fingerprints)
    with pytest.raises(MismatchError, match=r"fr: 100%.*allow_recorded=True"):
        ablation.refuse_recorded(corpora, known)
    ablation.refuse_recorded({"en": corpora["en"]}, LanguageNeurons(SPACE, {"fr": SOME}))
