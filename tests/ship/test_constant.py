"""A constant in weights: least squares as its definition says, what text it is fitted to, and what it says of how near it comes."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lape.data.texts import Documents
from lape.data.windows import Batch
from lape.errors import OptionError
from lape.ship.constant import Read, constants, question, read
from support.brute import hooks_on, model_of, some_texts, tokenizer_of

torch.set_num_threads(1)

HIDDEN = 32
MODULE = "model.layers.1.mlp.gate_proj"
RIDGES = (1e-5, 1e-4, 1e-3)
NEAR = 2e-3
"""Sums of a batch are taken in float32."""


def documents(count: int, seed: int) -> Documents:
    return Documents(some_texts(count, seed, words=(40, 120)))


@cache
def some(bos: bool = True) -> dict[str, Read]:
    return read(tokenizer_of(bos), {"en": documents(12, 1), "fr": documents(9, 2)}, tokens=3000)


def alone(ids: Tensor) -> Batch:
    """A row by itself, without padding."""
    first = torch.arange(ids.shape[1])[None]
    return Batch(ids, None, torch.where(first == 0, -1, first), torch.zeros_like(first))


def rows_of(text: Read) -> list[Tensor]:
    """(1, tokens) ids of each row that is fitted, its padding left out."""
    found = []
    for one in text.fitted:
        for ids, source in zip(one.input_ids, one.source, strict=True):
            found.append(ids[None, : 1 + int((source[1:] >= 0).sum())])
    return found


def inputs(model: Any, ids: Tensor, module: str = MODULE) -> Tensor:
    """(tokens, hidden) float64: what goes into a module on one row."""
    seen: list[Tensor] = []
    handle = model.get_submodule(module).register_forward_pre_hook(lambda _, args: seen.append(args[0][0].double()))
    try:
        with torch.inference_mode():
            model(input_ids=ids, use_cache=False)
    finally:
        handle.remove()
    return seen[0]


def solved(rows: list[Tensor], given: tuple[float, float], scale: float) -> Tensor:
    """Least squares by rows, one below the other: 1 at every position but the first, where it is 0 and weighs as given, and the ridge as rows too."""
    ridge, weight = given
    later, first = torch.cat([x[1:] for x in rows]), torch.cat([x[:1] for x in rows])
    left = torch.cat([later, weight**0.5 * first, (ridge * scale) ** 0.5 * torch.eye(HIDDEN).double()])
    right = torch.cat([torch.ones(len(later)), torch.zeros(len(first) + HIDDEN)]).double()
    return torch.as_tensor(np.linalg.lstsq(left.numpy(), right.numpy(), rcond=None)[0])


def mean_square(rows: list[Tensor]) -> float:
    """Σ x² of one dimension, their mean: what a ridge is a share of."""
    return float(torch.cat([x[1:] for x in rows]).square().sum(0).mean())


def error(rows: list[Tensor], v: Tensor) -> float:
    return float((torch.cat([x[1:] for x in rows]) @ v - 1).square().mean().sqrt())


@pytest.fixture(scope="module", params=[True, False], ids=["BOS", "no BOS"])
def bos(request) -> bool:
    return request.param


@pytest.fixture(scope="module")
def brute(bos):
    """Language -> inputs of its rows, one of five held out, and the others."""
    model = model_of("llama")
    every = {language: [inputs(model, ids) for ids in rows_of(text)] for language, text in some(bos).items()}
    held = {language: rows[4::5] for language, rows in every.items()}
    kept = [x for rows in every.values() for k, x in enumerate(rows) if k % 5 != 4]
    return every, held, kept


@pytest.fixture(scope="module")
def found(bos):
    return constants(model_of("llama"), [MODULE], some(bos))[MODULE]


@pytest.fixture(scope="module")
def chosen(brute, bos):
    """The ridge that is best on rows held out and the weight of first positions, which is 10 for BOS, else 1; and the direction without those rows."""
    _, held, kept = brute
    weight = 10.0 if bos else 1.0
    tried = {ridge: solved(kept, (ridge, weight), mean_square(kept)) for ridge in RIDGES}
    apart = [x for rows in held.values() for x in rows]
    ridge = min(tried, key=lambda one: error(apart, tried[one]))
    return (ridge, weight), tried[ridge]


def test_the_direction_is_least_squares_over_all_rows_stacked(brute, found, chosen):
    every, _, _ = brute
    rows = [x for one in every.values() for x in one]
    expected = solved(rows, chosen[0], mean_square(rows))
    x = torch.cat(rows)
    assert found.ridge == chosen[0][0]
    assert float((x @ found.direction - x @ expected).abs().max()) < NEAR
    assert found.tokens == sum(len(one) - 1 for one in rows)


def test_the_spread_is_that_of_rows_that_were_held_out(brute, found, chosen):
    _, held, _ = brute
    v = chosen[1]
    assert list(found.spread) == list(held)
    for language, rows in held.items():
        assert found.spread[language] == pytest.approx(error(rows, v), abs=NEAR)
    firsts = torch.cat([x[:1] for rows in held.values() for x in rows]) @ v
    assert found.first == pytest.approx(float(firsts.square().mean().sqrt()), abs=NEAR)


def test_what_is_kept_is_the_least_squares_map_that_keeps_inputs_but_first_ones(brute, found, chosen):
    """Inputs at later positions stay, those at first positions become 0; the ridge holds it near keeping everything."""
    every, _, _ = brute
    rows = [x for one in every.values() for x in one]
    later, first = torch.cat([x[1:] for x in rows]), torch.cat([x[:1] for x in rows])
    eye = (chosen[0][0] * mean_square(rows)) ** 0.5 * torch.eye(HIDDEN).double()
    left = torch.cat([later, chosen[0][1] ** 0.5 * first, eye])
    right = torch.cat([later, torch.zeros_like(first), eye])
    expected = torch.as_tensor(np.linalg.lstsq(left.numpy(), right.numpy(), rcond=None)[0]).T
    x = torch.cat([later, first])
    assert float((x @ found.kept.T - x @ expected.T).abs().max()) < NEAR * float(x.abs().max())


def test_what_lies_apart_is_no_row_that_is_fitted_nor_the_beginning_of_one():
    for language, text in some().items():
        *batches, questions = text.fitted
        fitted = {tuple(ids[0].tolist()) for ids in rows_of(dataclasses.replace(text, fitted=batches))}
        asked = {tuple(ids[0].tolist()) for ids in rows_of(dataclasses.replace(text, fitted=[questions]))}
        apart = {tuple(ids[0].tolist()) for ids in text.apart}
        assert apart
        assert not fitted & apart
        assert len(asked) == 8
        assert not asked & {tuple(question(tokenizer_of(), ids, language)[0].tolist()) for ids in text.apart}
        assert sum(len(ids) - 1 for ids in (*fitted, *apart)) == len(text.corpus.tokens), (
            "every token lies in one or the other"
        )


def test_each_module_is_fitted_to_its_own_input():
    other = "model.layers.0.mlp.gate_proj"
    both = constants(model_of("llama"), [other, MODULE], some())
    for module in (other, MODULE):
        torch.testing.assert_close(
            both[module].direction, constants(model_of("llama"), [module], some())[module].direction
        )
    assert not torch.allclose(both[other].direction, both[MODULE].direction)


@settings(max_examples=5, deadline=None)
@given(st.data())
def test_how_rows_are_batched_changes_nothing(data):
    """Sums over batches add up, padding is no input, and the row that is held out is the fifth in any case."""
    found = constants(model_of("llama"), [MODULE], some())[MODULE]
    cut = {}
    for language, text in some().items():
        rows = rows_of(text)
        sizes = data.draw(st.lists(st.integers(1, 7), min_size=len(rows), max_size=len(rows)))
        batches, at = [], 0
        for size in sizes:
            if at < len(rows):
                batches.append(padded(rows[at : at + size]))
                at += size
        cut[language] = dataclasses.replace(text, fitted=batches)
    again = constants(model_of("llama"), [MODULE], cut)[MODULE]
    assert (again.tokens, again.ridge) == (found.tokens, found.ridge)
    torch.testing.assert_close(again.direction, found.direction, rtol=1e-3, atol=1e-3)
    assert again.spread == pytest.approx(found.spread, abs=NEAR)


def padded(rows: list[Tensor]) -> Batch:
    """Rows side by side; what they are padded with is a token that none of them holds."""
    length = max(one.shape[1] for one in rows)
    ids, source = torch.full((len(rows), length), 299), torch.full((len(rows), length), -1)
    for r, one in enumerate(rows):
        ids[r, : one.shape[1]] = one
        source[r, 1 : one.shape[1]] = torch.arange(1, one.shape[1])
    return Batch(ids, None, source, torch.zeros_like(source))


def test_a_constant_that_the_input_holds_is_found(planted):
    """The planted case: with 1 in a dimension the direction is exact, and a massive first input is kept out; without, it is not, and says so."""
    with planted:
        one = constants(model_of("llama"), [MODULE], some())[MODULE]
        x = inputs(model_of("llama"), rows_of(some()["en"])[0])
    assert max(one.spread.values()) < 0.01
    assert one.first < 0.01
    row = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(3)).double()
    wanted, kept = x @ row, x @ (row @ one.kept)
    torch.testing.assert_close(kept[1:], wanted[1:], rtol=0.02, atol=0.02 * float(wanted[1:].std()))
    assert abs(float(kept[0])) < 0.01 * abs(float(wanted[0]))
    without = constants(model_of("llama"), [MODULE], some())[MODULE]
    assert max(without.spread.values()) > 0.05


@pytest.fixture
def planted():
    """While inside, the first dimension of the input is 1; at the first position of a row it is 0, and thirty stands in the last,
    which holds nothing elsewhere.
    """

    class Inside:
        def __enter__(self) -> None:
            norm = model_of("llama").model.layers[1].post_attention_layernorm
            self.handle = norm.register_forward_hook(self.put)

        def put(self, _module: Any, _args: Any, out: Tensor) -> Tensor:
            out = out.clone()
            out[..., 0], out[..., -1] = 1, 0
            out[:, 0, :-1], out[:, 0, -1] = 0, 30
            return out

        def __exit__(self, *_: object) -> None:
            self.handle.remove()

    return Inside()


def test_too_little_text_is_refused_with_what_to_give():
    few = read(tokenizer_of(), {"en": Documents(["the cat"])})
    with pytest.raises(OptionError, match=rf"{MODULE}.*Expected at least 64.*texts="):
        constants(model_of("llama"), [MODULE], few)


def test_no_hook_stays(found):
    assert hooks_on(model_of("llama")) == 0
