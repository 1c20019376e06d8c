"""The vocabulary mask: the fewest tokens that make up a share of a text, and no others are written."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lape.errors import OptionError
from lape.measure.mask import VocabularyMask, endings, frequent, token_counts
from support.brute import model_of, tokenizer_of

LAW = settings(deadline=None, max_examples=100)
COUNTS = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 10**10)), min_size=1, max_size=20)
SHARES = st.sampled_from([0.001, 0.3, 0.5, 0.9, 0.97, 1.0])


@LAW
@example([2**24, 1, 1], 1.0, set())
@given(COUNTS, SHARES, st.sets(st.integers(0, 3)))
def test_the_fewest_and_most_frequent_tokens_that_make_up_the_share(counts, coverage, keep):
    keep = {k for k in keep if k < len(counts)}
    found = frequent(torch.tensor(counts), coverage, sorted(keep))
    largest_first = sorted(counts, reverse=True)
    fewest = next(n for n in range(len(counts) + 1) if sum(largest_first[:n]) >= coverage * sum(counts))
    chosen = set(torch.nonzero(frequent(torch.tensor(counts), coverage))[:, 0].tolist())
    assert sorted((counts[k] for k in chosen), reverse=True) == largest_first[:fewest]
    assert set(torch.nonzero(found)[:, 0].tolist()) == chosen | keep
    assert (len(found), found.dtype) == (len(counts), torch.bool)


@LAW
@given(COUNTS, SHARES, SHARES)
def test_a_larger_share_allows_what_a_smaller_does(counts, one, other):
    few, more = (frequent(torch.tensor(counts), share) for share in sorted((one, other)))
    assert bool((more | ~few).all())


@pytest.mark.parametrize("coverage", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(coverage):
    with pytest.raises(OptionError, match="coverage"):
        frequent(torch.tensor([1, 2]), coverage)


@LAW
@given(st.lists(st.integers(0, 9)), st.integers(10, 14))
def test_counts_are_how_often_each_id_occurs(ids, vocabulary):
    found = token_counts(torch.tensor(ids, dtype=torch.int32), vocabulary)
    assert found.tolist() == [ids.count(k) for k in range(vocabulary)]


def test_an_answer_may_always_end():
    assert endings(tokenizer_of()) == [2]


@pytest.mark.parametrize("penalty", [4.0, float("inf")])
@pytest.mark.parametrize("size", [5, 8, 3], ids=["as many", "padded embedding", "shorter"])
def test_what_is_not_allowed_loses_the_penalty_and_the_rest_nothing(size, penalty):
    allowed = torch.tensor([True, False, True, False, True])
    scores = torch.randn(2, size, generator=torch.Generator().manual_seed(0))
    expected = [[s if k < 5 and allowed[k] else s - penalty for k, s in enumerate(row)] for row in scores.tolist()]
    torch.testing.assert_close(
        VocabularyMask(allowed, penalty)(torch.zeros(2, 3).long(), scores), torch.tensor(expected)
    )


def test_only_allowed_tokens_are_written():
    allowed = torch.zeros(300, dtype=torch.bool)
    allowed[[33, 44, 55]] = True
    ids = torch.tensor([[1, 20, 30]])
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 10, "do_sample": True, "pad_token_id": 0}
    torch.manual_seed(0)
    new = model_of("llama").generate(ids, logits_processor=[VocabularyMask(allowed)], **options)[0, 3:].tolist()
    assert set(new) == {33, 44, 55}
