"""Run ways of choosing at several sizes, every language's set off on every language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lape.data.languages import tag
from lape.errors import TextError
from lape.experiments.frontier.table import Effects
from lape.measure.ablation import Ablations
from lape.measure.bootstrap import Floats, by_unit
from lape.measure.controls import control, seeded
from lape.progress import Progress, silent
from lape.values.neurons import LanguageNeurons

Sets = Mapping[tuple[str, int], LanguageNeurons]
"""(method, size) -> the sets it chose."""


def effects(work: Ablations, sets: Sets, languages: Sequence[str], progress: Progress = silent) -> Effects:
    """The change of loss with each language's set off, on every language, for every method and size.

    `work.base` must have run. Cells that were measured before are not run again. A language that a way of choosing left out has
    no effect there (None neurons), which is not an effect of 0. Units pair by the number of a document or line over languages;
    raises TextError for texts that cannot be paired, MismatchError for neurons of another model.
    """
    work.check_paired(languages)
    chosen = {key: {k: found.sets.get(tag(k)) for k in languages} for key, found in sets.items()}
    for language in languages:
        if sets and all(found[language] is None for found in chosen.values()):
            raise TextError(f"No way of choosing has neurons of {language}. Leave it out, or identify it too.")
    count = 1 + max(int(work.unit(language).max()) for language in languages)
    tokens = np.stack([by_unit(work.unit(k), work.unedited(k).tokens, count) for k in languages])
    cells = [
        (key, off, found, k)
        for key, of in chosen.items()
        for off, found in of.items()
        if found is not None
        for k in languages
    ]
    nats: dict[tuple[str, int], Floats] = {key: np.zeros((len(languages), len(languages), count)) for key in sets}
    for done, (key, off, found, language) in enumerate(cells):
        progress("switching neurons off", done, len(cells))
        change = work.off(found, language).nll - work.unedited(language).nll
        at = (languages.index(off), languages.index(language))
        nats[key][at] = by_unit(work.unit(language), change, count)
    progress("switching neurons off", len(cells), len(cells))
    sizes = {key: tuple(None if one is None else len(one) for one in of.values()) for key, of in chosen.items()}
    return Effects(tuple(languages), tokens, nats, sizes)


def matched_sets(work: Ablations, neurons: LanguageNeurons, seed: int) -> LanguageNeurons:
    """Control (b) as if it were a way of choosing: for each language as many neurons per layer and decile of energy as its set.

    A language whose layers have too few others left is left out, with a note: it has no control, which is not one that does nothing.
    """
    sets, notes = {}, []
    for k, (language, chosen) in enumerate(neurons.items()):
        others, why = control(chosen, neurons.union, work.energy[language], seeded(seed, k))
        if others is None:
            notes.append(f"{language} has no matched control: {why}")
        else:
            sets[language] = others
    return LanguageNeurons(neurons.space, sets, method="matched", options={"seed": seed}, notes=tuple(notes))
