"""What names neurons and statistics by their content: the same for the same, whatever the order, and another for anything else."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import permutations

import pytest
import torch

from lape.store.shards import Shard
from lape.values.made import differs
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.profile import Profile
from lape.values.stats import ActivationStats
from support.made import DENSE, made_stats

MODEL = {"id": "m", "revision": None, "checksum": "c", "config": "k", "dtype": "float32"}


def neurons_of(**sets) -> LanguageNeurons:
    return LanguageNeurons(DENSE, {k: NeuronSet(DENSE, torch.tensor(flat)) for k, flat in sets.items()})


def recorded(seed: int, language: str = "fr", shard: Shard | None = None, **changes) -> ActivationStats:
    """Statistics with the manifest of a recording."""
    text = {"hash": f"h{seed}", "documents": 3, "tokens": 90 + seed}
    text |= shard.describe(9, 64) if shard is not None else {}
    counting = {"bos": "auto", "row_tokens": 512}
    manifest = {
        "model": MODEL, "tokenizer": {"hash": "t"}, "counting": counting, "corpus": {language: text}, "options": {},
        "quantities": {"fires": {"axes": ["folds", "neurons"], "dtype": "int64", "merge": "add"}},
    } | changes  # fmt: skip
    return replace(made_stats(seed, [language]), manifest=manifest)


def test_the_same_sets_have_one_name_however_they_were_chosen_and_any_other_another(tmp_path):
    neurons = neurons_of(en=[1, 2], fr=[3])
    assert neurons.digest == neurons_of(fr=[3], en=[2, 1]).digest
    assert (
        replace(
            neurons, method="random", profile=Profile.of(made_stats(), torch.tensor([1, 2, 3])), notes=("a",)
        ).digest
        == neurons.digest
    )
    assert LanguageNeurons.load(neurons.save(tmp_path / "neurons.safetensors")).digest == neurons.digest
    others = [
        neurons_of(en=[1], fr=[3]),
        neurons_of(en=[1, 2]),
        neurons_of(en=[3], fr=[1, 2]),
        neurons_of(en=[1, 2], zh=[3]),
    ]
    assert len({neurons.digest, *(one.digest for one in others)}) == 5


def test_merged_statistics_have_one_name_in_any_order():
    parts = [recorded(1), recorded(2), recorded(3, "zh"), recorded(4, "en", until={"curve": [{"tokens": 5}]})]
    found = {reduce(ActivationStats.merge, order).digest for order in permutations(parts)}
    assert len(found) == 1
    assert found.isdisjoint(one.digest for one in parts)


def test_all_shards_have_the_name_of_a_single_run_and_some_have_not():
    parts = [recorded(1, shard=Shard(k, 3)) for k in (1, 2, 3)]
    assert parts[2].merge(parts[0]).merge(parts[1]).digest == recorded(1).digest
    assert len({recorded(1).digest, parts[0].digest, parts[0].merge(parts[1]).digest}) == 3


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"model": MODEL | {"id": "elsewhere/m", "revision": "r", "path": "/there"}}, True),
        ({"versions": {"lape": "2"}}, True),
        ({"model": MODEL | {"checksum": "d"}}, False),
        ({"model": MODEL | {"config": "l"}}, False),
        ({"tokenizer": {"hash": "u"}}, False),
        ({"counting": {"bos": "never", "row_tokens": 512}}, False),
        ({"corpus": {"fr": {"hash": "h1", "documents": 3, "tokens": 90}}}, False),
    ],
)
def test_statistics_are_named_by_what_they_were_recorded_from(tmp_path, changes, same):
    stats = recorded(1)
    assert (recorded(1, **changes).digest == stats.digest) is same
    stats.save(tmp_path / "stats.safetensors")
    assert ActivationStats.load(tmp_path).digest == stats.digest


def test_statistics_of_counts_that_say_nothing_of_themselves_are_named_by_the_counts():
    a, b = (ActivationStats.from_counts(["en"], [9], torch.tensor([[[k, 2]]])) for k in (1, 3))
    assert a.digest != b.digest
    assert a.digest == ActivationStats.from_counts(["en"], [9], torch.tensor([[[1, 2]]])).digest


PRESENT = {"neurons": "n", "method": "difference", "size": 3, "statistics": "s"}


@pytest.mark.parametrize(
    ("made_from", "said"),
    [
        (PRESENT, None),
        ({"statistics": "s"}, None),
        ({"neurons": "n"}, None),
        ({}, None),
        (None, None),
        ([5], None),
        ({"neurons": "o", "method": "lape", "size": 1078, "statistics": "s"}, "other neurons (lape, 1,078 neurons)"),
        ({"neurons": "o", "statistics": "t"}, "other neurons (nothing says which)"),
        ({"neurons": "n", "statistics": "t"}, "other statistics"),
    ],
)
def test_a_result_of_other_neurons_or_statistics_is_told(made_from, said):
    assert differs(made_from, PRESENT) == said
    assert differs(made_from, {}) is None
