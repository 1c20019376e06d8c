"""What `import lape` offers, and how its objects show themselves."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch

import lape
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats


def test_completion_offers_the_public_names_and_the_version_before_anything_is_imported():
    code = "import sys, lape; print(*dir(lape)); print(lape.__version__, 'torch' in sys.modules)"
    names, told = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert names.split() == sorted([*lape.__all__, "__version__"])
    assert told == f"{version('lape')} False"


@pytest.mark.parametrize("count", [2, 30])
def test_values_show_themselves_in_a_few_lines(count):
    languages = [f"fr-x-l{k}" for k in range(count)]
    stats = ActivationStats.from_counts(languages, [1000 + k for k in range(count)], torch.ones(count, 40, 300).long())
    sets = {language: NeuronSet(stats.space, torch.arange(k + 3)) for k, language in enumerate(languages)}
    neurons = LanguageNeurons(stats.space, sets, method="difference")
    wide = NeuronSpace.of((layer, None, 10 + layer) for layer in range(90))
    for one in (stats, stats[languages[1]], stats.space, wide, neurons):
        shown = repr(one)
        assert shown.startswith(f"{type(one).__name__}(")
        assert all(len(line) <= 80 for line in shown.split("\n")[:5])
        assert len(shown.split("\n")) <= 5
        assert "tensor(" not in shown
        assert " object at 0x" not in shown
    assert "fr-x-l1 1.0k" in repr(stats)
    assert "12,000 (40 × 300)" in repr(stats)
    assert "fr-x-l1 4" in repr(neurons)
    assert "1,001 tokens" in repr(stats[languages[1]])
    assert bool(re.search(r" · \d+ more$", repr(stats), re.M)) == (count == 30)
