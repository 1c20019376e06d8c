"""The difference method: the neurons whose mean activation in a language lies furthest above that in the others."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lape.detect.difference import difference
from support.made import DENSE, EXPERTS, made_stats

LAW = settings(deadline=None, max_examples=40)
SEED = st.integers(0, 2**32)
SPACE = st.sampled_from([DENSE, EXPERTS])


def gaps(stats, language):
    """E_k[a] minus the mean of E_j[a] over the other languages, neuron by neuron; E over the tokens that reached it."""
    result = []
    for s, stretch in enumerate(stats.space):
        for j in range(stretch.start, stretch.stop):
            mean = {k: float(stats[k].sums("sum")[j]) / int(stats[k].routed[:, s].sum()) for k in stats.languages}
            others = [mean[k] for k in stats.languages if k != language]
            result.append(mean[language] - sum(others) / len(others))
    return result


@LAW
@given(SEED, SPACE, st.integers(1, 30))
def test_the_neurons_of_largest_gap_are_chosen_as_long_as_it_is_above_nothing(seed, space, count):
    stats = made_stats(seed, space=space, sums=True)
    found = difference(stats, per_language=count)
    assert list(found) == stats.languages
    for language in stats.languages:
        gap = gaps(stats, language)
        above = sorted((j for j in range(len(space)) if gap[j] > 0), key=lambda j: -gap[j])
        assert set(found[language]) == set(above[:count])
