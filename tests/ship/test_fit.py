"""An adapter beside the edit that it stands for: what serves it, and what is said of how near it is."""

from __future__ import annotations

from copy import deepcopy
from statistics import median
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

from lape.edit.edit import Add, Off, Scale, Set, by_unit, edited
from lape.measure.prompts import ask, prompt_ids
from lape.ship.changes import LowRank, changes, low_rank
from lape.ship.fit import FIT, Reference, fit, largest_difference, served
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace
from support.brute import MLPS, assert_near, hooks_on, logits_of, model_of, tokenizer_of, width_of
from support.tiny import LAYERS

torch.set_num_threads(1)

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70]])
FAMILIES = ["llama", "gpt2", "phi3"]
"""A gated MLP, one whose weights lie the other way round, and one whose gate and up projection are one."""
TEXTS = {"en": ["the cat sat on the mat", "the dog"], "fr": ["le chat dort sur le lit et le chien mange"]}
ROWS = {
    language: [torch.tensor([tokenizer_of()(text)["input_ids"]]) for text in texts] for language, texts in TEXTS.items()
}
"""At most 28 tokens each, as a question too, so that every position is compared."""


def some(kind: str = "llama", start: int = 0, step: int = 5) -> NeuronSet:
    space = NeuronSpace.dense(LAYERS, width_of(kind))
    return NeuronSet(space, torch.arange(start, len(space), step))


def random_parts(kind: str, rank: int = 3) -> list[LowRank]:
    """Updates of the first and the last layer's projections; of numbers that float32 holds."""
    drawn, parts = torch.Generator().manual_seed(rank), []
    for layer in (0, LAYERS - 1):
        for name in (MLPS[kind].gate.format(layer), MLPS[kind].down.format(layer)):
            linear = model_of(kind).get_submodule(name)
            transposed = hasattr(linear, "nx")
            out, into = linear.weight.T.shape if transposed else linear.weight.shape
            a, b = ((torch.randn(*shape, generator=drawn) / 4).double() for shape in ((rank, into), (out, rank)))
            parts.append(LowRank(name, a, b, transposed))
    return parts


def merged(kind: str, parts: list[LowRank]) -> Any:
    """The model with B·A added to its weights."""
    model = deepcopy(model_of(kind))
    for one in parts:
        update = one.b @ one.a
        model.get_submodule(one.module).weight.data += update.T if one.transposed else update
    return model


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_serves_an_adapter_computes_as_if_it_were_in_the_weights(kind):
    parts = random_parts(kind)
    before = logits_of(model_of(kind), IDS)
    with served(model_of(kind), parts):
        found = logits_of(model_of(kind), IDS)
    assert_near(found, logits_of(merged(kind, parts), IDS))
    assert float((found - before).abs().max()) > 0.1
    assert torch.equal(logits_of(model_of(kind), IDS), before)
    assert hooks_on(model_of(kind)) == 0


def test_an_adapter_that_fails_inside_is_taken_off():
    with pytest.raises(RuntimeError, match="inside"), served(model_of("llama"), random_parts("llama")):
        raise RuntimeError("inside")
    assert hooks_on(model_of("llama")) == 0


def exact(kind: str) -> tuple[Reference, list[LowRank]]:
    """An edit that an adapter holds exactly, and the adapter."""
    model = model_of(kind)
    edits = [Off(some(kind)), Scale(some(kind, 1, 3), -1.5)]
    return Reference(edits, []), low_rank(model, changes(model, by_unit(model, edits), biases=False), {})


def wrong(parts: list[LowRank]) -> list[LowRank]:
    """The last layer's update alone has the wrong sign."""
    return [*parts[:-1], LowRank(parts[-1].module, parts[-1].a, -parts[-1].b, parts[-1].transposed)]


def difference(kind: str, reference: Reference, parts: list[LowRank]) -> float:
    """The largest difference from an adapter that is served."""

    def exported(ids: Tensor) -> Tensor:
        with served(model_of(kind), parts):
            return logits_of(model_of(kind), ids)

    return largest_difference(model_of(kind), reference, exported)


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_exact_adapter_is_the_edit_and_a_wrong_one_is_seen(kind):
    reference, parts = exact(kind)
    assert difference(kind, reference, parts) < 1e-6
    assert difference(kind, reference, wrong(parts)) > 1e-3
    table = fit(model_of(kind), tokenizer_of(), reference, parts, ROWS)
    assert table["kl"].abs().max() < 1e-6
    assert table["agreement"].min() == 1
    assert table["edit"].min() > 1e-3, "the edit itself does something"
    off = fit(model_of(kind), tokenizer_of(), reference, wrong(parts), ROWS)
    assert off["kl"].min() > 1e-3


def test_the_largest_difference_is_a_share_of_the_range_of_all_logits():
    model, (reference, _) = model_of("llama"), exact("llama")
    ids = torch.randint(300 // 8, 300, (2, 12), generator=torch.Generator().manual_seed(20240226))
    with edited(model, reference.everywhere):
        wanted = logits_of(model, ids)
    plain = logits_of(model, ids)
    expected = float((plain - wanted).abs().max() / (wanted.max() - wanted.min()))
    assert difference("llama", reference, []) == pytest.approx(expected, rel=1e-6)


def softmax(model: Any, ids: Tensor) -> Tensor:
    """(tokens, vocabulary) log-probabilities, from the model's own logits of the whole row."""
    with torch.inference_mode():
        found: Tensor = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    return found


def brute(model: Any, edits: list[Any], parts: list[LowRank], rows: list[Tensor], spare: bool) -> dict[str, Any]:
    """Position -> positions, mean, median, worst, agreement and edit, token by token."""
    found: dict[str, list[list[tuple[float, bool, float]]]] = {}
    for ids in rows:
        plain = softmax(model, ids)
        with edited(model, edits, spare=spare):
            wanted = softmax(model, ids)
        ours = softmax(merged("llama", parts), ids)
        here: dict[str, list[tuple[float, bool, float]]] = {}
        for at in range(ids.shape[1]):
            name = "0" if at == 0 else "1–3" if at < 4 else "4–63"
            p = wanted[at].exp()
            kl, edit = (float((p * (wanted[at] - q[at])).sum()) for q in (ours, plain))
            here.setdefault(name, []).append((kl, bool(wanted[at].argmax() == ours[at].argmax()), edit))
        for name, values in here.items():
            found.setdefault(name, []).append(values)
    table = {}
    for name, each in found.items():
        kl, same, edit = zip(*(value for one in each for value in one), strict=True)
        worst = max(sum(value[0] for value in one) / len(one) for one in each)
        table[name] = (len(kl), sum(kl) / len(kl), median(kl), worst, sum(same) / len(same), sum(edit) / len(edit))
    return table


@pytest.mark.parametrize("spare", [False, True])
def test_the_table_is_the_divergence_token_by_token(spare):
    model, parts = model_of("llama"), random_parts("llama")
    edits = [Set(some(), 0.7)] if spare else [Scale(some(), 2.0)]
    reference = Reference([], edits) if spare else Reference(edits, [])
    table = fit(model, tokenizer_of(), reference, parts, ROWS)
    assert dict(table.schema) == FIT
    questions = {
        language: [torch.tensor([prompt_ids(tokenizer_of(), question(ids, language))]) for ids in rows]
        for language, rows in ROWS.items()
    }
    for read_as, texts in (("text", ROWS), ("prompt", questions)):
        for language, rows in texts.items():
            assert max(ids.shape[1] for ids in rows) <= 28
            for position, expected in brute(model, edits, parts, rows, spare).items():
                one = table.row(
                    by_predicate=(pl.col("language") == language)
                    & (pl.col("read_as") == read_as)
                    & (pl.col("position") == position),
                    named=True,
                )
                columns = ("positions", "kl", "kl_median", "kl_worst", "agreement", "edit")
                assert tuple(one[name] for name in columns) == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert set(table["read_as"]) == {"text", "prompt"}
    assert hooks_on(model) == 0


def question(ids: Tensor, language: str) -> str:
    text = tokenizer_of().decode(ids[0, :24], skip_special_tokens=True).strip()
    return ask(tokenizer_of(), text, source=language, target=language)


def test_what_is_spared_has_no_effect_at_the_first_position():
    table = fit(model_of("llama"), tokenizer_of(), Reference([], [Set(some(), 0.7)]), [], ROWS)
    at_first = table.filter(position="0")
    assert at_first["edit"].abs().max() < 1e-6
    assert at_first["kl"].abs().max() < 1e-6
    assert table["kl"].to_list() == pytest.approx(table["edit"].to_list()), (
        "without an adapter all of the edit is missing"
    )


def test_of_a_long_row_the_beginning_and_24_positions_are_compared():
    ids = torch.randint(20, 300, (1, 200), generator=torch.Generator().manual_seed(0))
    table = fit(model_of("llama"), tokenizer_of(), Reference([Off(some())], []), [], {"en": [ids]})
    text = table.filter(read_as="text")
    assert dict(text.select("position", "positions").iter_rows()) == {"0": 1, "1–3": 3, "4–63": 8, "64 and on": 16}


def test_edits_of_both_kinds_act_together():
    """What acts everywhere and what spares the first position, as one edit by hand does at later ones."""
    model = model_of("llama")
    add = Add(some("llama", 1, 7), 0.5, 2.0, at="gate")
    with Reference([Scale(some(), 2.0)], [add]).on(model):
        found = logits_of(model, IDS)
    with edited(model, [Scale(some(), 2.0)]), edited(model, [add], spare=True):
        assert_near(found, logits_of(model, IDS))
    with edited(model, [add]):
        assert float((found - logits_of(model, IDS)).abs().max()) > 1e-3
