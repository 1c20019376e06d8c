"""Effects: each cell is the change of one language's loss with one set off; units pair; no set is no effect."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from lape.data.corpus import TextOptions
from lape.data.texts import Documents
from lape.errors import MismatchError, TextError
from lape.measure.ablation import Ablations
from lape.measure.effects import effects, matched_sets
from lape.measure.frontier import frontier
from lape.measure.intervals import MEAN
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from support.brute import model_of, some_texts, tokenizer_of
from support.tiny import LAYERS

SPACE = NeuronSpace.dense(LAYERS, 44)
OPTIONS = TextOptions(row_tokens=64, batch_tokens=256)
LANGUAGES = ["en", "fr", "zh"]
OVER = ["fr", "zh"]


def neurons_of(sets, space=SPACE):
    return LanguageNeurons(space, {k: NeuronSet(space, torch.tensor(list(v))) for k, v in sets.items()})


SMALL = neurons_of({"en": range(6), "fr": range(50, 56), "zh": range(4, 10)})
LARGE = neurons_of({"en": range(12), "fr": range(44, 60), "zh": range(0)})


def work_of(texts, options=OPTIONS):
    work = Ablations(model_of("llama"), tokenizer_of(), texts, options)
    work.base()
    return work


def texts_of(count=21):
    return {language: Documents(some_texts(count, seed)) for seed, language in enumerate(LANGUAGES)}


@cache
def shared():
    return work_of(texts_of())


def only(table, **where):
    (row,) = table.filter(**where).iter_rows(named=True)
    return row


def test_every_cell_is_the_change_of_the_summed_loss_of_a_unit():
    found = effects(shared(), {("a", 6): SMALL, ("b", 12): LARGE}, LANGUAGES)
    assert found.languages == tuple(LANGUAGES)
    assert found.neurons == {("a", 6): (6, 6, 6), ("b", 12): (12, 16, 0)}
    for key, sets in ((("a", 6), SMALL), (("b", 12), LARGE)):
        for k, off in enumerate(LANGUAGES):
            for j, language in enumerate(LANGUAGES):
                before, after = shared().unedited(language), shared().off(sets[off], language)
                np.testing.assert_array_equal(found.nats[key][k, j], after.nll - before.nll)
                np.testing.assert_array_equal(found.sentences[j], before.tokens > 0)


def test_the_order_of_languages_is_the_one_asked_for():
    one = effects(shared(), {("a", 6): SMALL}, LANGUAGES)
    turned = effects(shared(), {("a", 6): SMALL}, LANGUAGES[::-1])
    np.testing.assert_array_equal(turned.nats["a", 6], one.nats["a", 6][::-1, ::-1])
    np.testing.assert_array_equal(turned.sentences, one.sentences[::-1])


def test_lines_of_one_document_are_summed_in_blocks():
    texts = {language: Documents(["\n".join(one.texts)]) for language, one in texts_of(20).items()}
    work = work_of(texts, TextOptions(row_tokens=256))
    found = effects(work, {("a", 6): SMALL}, LANGUAGES)
    change = work.off(SMALL["fr"], "zh").nll - work.unedited("zh").nll
    expected = [change[:8].sum(), change[8:16].sum(), change[16:].sum()]
    np.testing.assert_allclose(found.nats["a", 6][1, 2], expected, rtol=1e-12)


def test_a_line_that_one_language_lacks_leaves_the_others_paired():
    texts = {language: list(one.texts) for language, one in texts_of(24).items()}
    texts["fr"][3] = ""
    whole, holed = (
        effects(work_of({k: Documents(one) for k, one in lines.items()}), {("a", 6): SMALL}, LANGUAGES)
        for lines in ({k: list(one.texts) for k, one in texts_of(24).items()}, texts)
    )
    assert whole.units == 24
    assert holed.units == 23
    assert holed.sentences[1, 3] == 0
    rest = [unit for unit in range(24) if unit != 3]
    np.testing.assert_array_equal(holed.sentences[:, rest], whole.sentences[:, rest])
    np.testing.assert_allclose(holed.nats["a", 6][:, :, rest], whole.nats["a", 6][:, :, rest], atol=1e-4)


def test_the_language_with_least_text_decides_whether_there_are_intervals():
    texts = texts_of(26)
    texts["zh"] = Documents(texts["zh"].texts[:19])
    found = effects(work_of(texts), {("a", 6): SMALL}, LANGUAGES)
    assert found.units == 19
    assert frontier(found, OVER, 30, 0)["own_low"].null_count() == 4


def test_texts_that_cannot_be_paired_are_refused():
    texts = {**texts_of(), "fr": Documents(["\n".join(some_texts(21))])}
    with pytest.raises(TextError, match="resampled in pairs"):
        effects(work_of(texts, TextOptions(row_tokens=256)), {("a", 6): SMALL}, LANGUAGES)


def test_neurons_of_another_model_are_refused():
    other = neurons_of(dict.fromkeys(LANGUAGES, range(3)), NeuronSpace.dense(LAYERS, 128))
    with pytest.raises(MismatchError, match=r"3 × 128.*3 × 44"):
        effects(shared(), {("a", 3): other}, LANGUAGES)


def test_a_language_of_which_nothing_was_chosen_at_all_is_refused():
    with pytest.raises(TextError, match="zh"):
        effects(shared(), {("a", 6): neurons_of({"en": [1], "fr": [2]})}, LANGUAGES)


def test_an_empty_set_has_no_effect_and_a_missing_one_is_unknown():
    without = neurons_of({"en": range(6), "fr": range(50, 56)})
    found = effects(shared(), {("a", 12): LARGE, ("b", 12): without}, LANGUAGES)
    table = frontier(found, OVER, 30, 0)
    assert only(table, method="a", language="zh")["own"] == 0.0
    assert only(table, method="b", language="zh")["own"] is None
    assert only(table, method="b", language=MEAN)["own"] is None
    assert only(table, method="b", language="fr")["own"] is not None


def test_languages_may_be_named_as_elsewhere():
    work = work_of({"fra_Latn": texts_of(3)["fr"], "en": texts_of(3)["en"]})
    assert work.languages == ["fr", "en"]
    assert effects(work, {("a", 6): SMALL}, ["fr", "en"]).neurons["a", 6] == (6, 6)


def test_progress_ends_at_the_number_of_cells():
    seen = []
    effects(shared(), {("a", 6): SMALL}, LANGUAGES, lambda *args: seen.append(args[1:]))
    assert seen[0] == (0, 9)
    assert seen[-1] == (9, 9)


# --- matched sets as a selection method ---


def test_matched_sets_are_as_many_in_every_layer_and_none_of_the_language_neurons():
    found = matched_sets(shared(), SMALL, seed=0)
    assert found.method == "matched"
    assert list(found) == LANGUAGES
    for language in LANGUAGES:
        assert torch.equal(SPACE.counts(found[language].flat), SPACE.counts(SMALL[language].flat))
        assert len(found[language] & SMALL.union) == 0


def test_matched_sets_are_the_same_again_and_others_with_another_seed():
    assert matched_sets(shared(), SMALL, 1) == matched_sets(shared(), SMALL, 1)
    assert matched_sets(shared(), SMALL, 1).sets != matched_sets(shared(), SMALL, 2).sets


def test_a_language_without_text_has_no_matched_set_and_moves_no_other():
    some = {language: texts for language, texts in texts_of().items() if language != "en"}
    found, whole = matched_sets(work_of(some), SMALL, seed=0), matched_sets(shared(), SMALL, seed=0)
    assert found.notes == ("en has no matched control: there is no text of it here",)
    assert found.sets == {language: whole[language] for language in some}


def test_a_language_with_too_few_others_left_has_no_matched_set_and_is_not_beaten():
    """All but four neurons of layer 0 are someone's: fr's 30 there have no control, which is not one without effect."""
    large = neurons_of({"en": [*range(30, 40), 50], "fr": range(30), "zh": [90, 91]})
    found = matched_sets(shared(), large, seed=0)
    assert set(found.sets) == {"zh"}
    assert len(found.notes) == 2
    assert found.notes[1].startswith("fr has no matched control: ")
    table = frontier(effects(shared(), {("lape", 30): large, ("matched", 30): found}, LANGUAGES), OVER, 30, 0)
    assert only(table, method="matched", language="fr")["own"] is None
    assert only(table, method="matched", language=MEAN)["own"] is None
    assert only(table, method="matched", language="zh")["own"] is not None
