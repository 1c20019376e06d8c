"""KL divergence from the unedited model, against its definition in plain loops."""

from __future__ import annotations

import pytest
import torch

from lape.edit.edit import Add, Off, Scale, edited
from lape.errors import OptionError
from lape.measure import divergence as module
from lape.measure.divergence import divergence
from lape.values.neurons import NeuronSet
from support.planted import WIDTH, planted, planted_tokenizer, word


def _ids(*numbers, language="en"):
    return planted_tokenizer()(" ".join(word(language, k) for k in numbers), add_special_tokens=False)["input_ids"]


def _neurons(model, *flat):
    from lape.model.find import find

    return NeuronSet(find(model).space, torch.tensor(flat), {})


def _by_definition(model, pairs, under, most):
    total, count = 0.0, 0
    for prompt, answer in pairs:
        for k in range(min(len(answer), most)):
            p = _next(model, [*prompt, *answer[:k]])
            with under():
                q = _next(model, [*prompt, *answer[:k]])
            total += sum(float(a * (a.log() - b.log())) for a, b in zip(p, q, strict=True))
            count += 1
    return total / count


@torch.inference_mode()
def _next(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0, -1].double().softmax(-1)


@pytest.mark.parametrize("at_once", [1, 7, 256])
def test_it_is_the_mean_over_all_answer_tokens(monkeypatch, at_once):
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    model = planted()
    pairs = [(_ids(1, 2, 3), _ids(4, 5, language="fr")), (_ids(6), _ids(7)), (_ids(8, 9), _ids(*range(12)))]
    edits = [
        Off(_neurons(model, *range(0, WIDTH, 7))),
        Add(_neurons(model, *range(1, WIDTH, 9)), 1.0, 1.0, at="gate"),
    ]

    def under():
        return edited(model, edits)

    assert divergence(model, pairs, under) == pytest.approx(_by_definition(model, pairs, under, 48), rel=1e-3)


def test_only_the_first_tokens_of_an_answer_are_compared(monkeypatch):
    model = planted()
    off = _neurons(model, *range(0, WIDTH, 7))

    def under():
        return edited(model, Off(off))

    long, short = (_ids(1, 2), _ids(*range(12))), (_ids(1, 2), _ids(*range(4)))
    monkeypatch.setattr(module, "TOKENS", 4)
    assert divergence(model, [long], under) == pytest.approx(divergence(model, [short], under))


def test_nothing_edited_is_no_divergence_and_no_answer_is_refused():
    model = planted()
    pairs = [(_ids(1, 2), _ids(3, 4))]
    assert divergence(model, pairs, lambda: edited(model, [])) == 0
    with pytest.raises(OptionError, match="no answer to compare on"):
        divergence(model, [(_ids(1), [])], lambda: edited(model, []))


def test_an_edit_that_leaves_no_numbers_is_infinitely_far():
    """Not 0, which would be within every bound."""
    model = planted()
    pairs = [(_ids(1, 2), _ids(3, 4))]
    every = _neurons(model, *range(WIDTH))
    assert divergence(model, pairs, lambda: edited(model, Scale(every, 3e38))) == float("inf")
