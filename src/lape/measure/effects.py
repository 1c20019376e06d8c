"""What switching sets off does, unit by unit of the evaluated text, for selection methods at several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lape.data.languages import tag
from lape.errors import MismatchError, OptionError, TextError
from lape.measure.ablation import Ablations
from lape.measure.bootstrap import Floats, by_unit
from lape.measure.controls import control, seeded
from lape.model.numerics import check_finite
from lape.progress import Progress, shown
from lape.values.neurons import LanguageNeurons


@dataclass(frozen=True)
class Effects:
    """What switching sets off does, unit by unit of the evaluated text, as `effects` measures it.

    Raises MismatchError where shapes differ, TextError for a language without sentences, ModelError for a change that is not finite.

    Example:
        >>> import numpy as np
        >>> from lape.measure.effects import Effects
        >>> sentences, nats = np.ones((2, 30)), np.zeros((2, 2, 30))
        >>> nats[0, 0] = 5.0  # off: en; evaluated: en; 5 nats more in each unit of one sentence
        >>> measured = Effects(("en", "fr"), sentences, {("lape", 100): nats}, {("lape", 100): (100, 90)})
        >>> measured.methods, measured.sizes("lape"), measured.units
        (['lape'], [100], 30)
    """

    languages: tuple[str, ...]
    """Switched off and evaluated, in the order of all arrays here."""
    sentences: Floats
    """(languages, units) lines with scored tokens; 0 where a language has no text under a unit's number."""
    nats: Mapping[tuple[str, int], Floats]
    """(method, size) -> (languages off, languages evaluated, units) change of the summed NLL in nats."""
    neurons: Mapping[tuple[str, int], tuple[int | None, ...]]
    """(method, size) -> how many neurons were off, by language; None where no set could be chosen: nothing is known of it."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def methods(self) -> list[str]:
        """The selection methods, in order."""
        return list(dict.fromkeys(method for method, _ in self.nats))

    def sizes(self, method: str) -> list[int]:
        """The sizes at which a method was measured, ascending. Raises OptionError for one that was not."""
        found = sorted(size for name, size in self.nats if name == method)
        if not found:
            raise OptionError(f"There is no effect of {method!r}. Measured: {', '.join(self.methods) or 'nothing'}.")
        return found

    @property
    def units(self) -> int:
        """Units of text of the language that has fewest: what an interval stands on."""
        return int((self.sentences > 0).sum(1).min())


def _check(effects: Effects) -> None:
    """Refuse what would give numbers without meaning: shapes that differ, languages without text, losses that are not finite."""
    languages, (rows, units) = effects.languages, effects.sentences.shape
    expected = (len(languages), len(languages), units)
    for key, nats in effects.nats.items():
        counts = effects.neurons.get(key, ())
        if rows != len(languages) or nats.shape != expected or len(counts) != len(languages):
            raise MismatchError(
                f"The effects of {key[0]}, {key[1]} are {nats.shape} for {len(counts)} sets and sentences of {rows} languages. "
                f"Expected {expected}, a set and sentences of each of {', '.join(languages)}."
            )
        for off, count, row in zip(languages, counts, nats, strict=True):
            for on, one in zip(languages, row, strict=True) if count is not None else ():
                check_finite(one, f"With the neurons of {off} off ({key[0]}, {key[1]}), the loss of {on}")
    silent = [language for language, one in zip(languages, effects.sentences, strict=True) if not (one > 0).any()]
    if silent:
        raise TextError(f"The text for {silent[0]} has no scored token, so nothing can be measured. Give it more text.")


Sets = Mapping[tuple[str, int], LanguageNeurons]
"""(method, size) -> the sets it chose."""


def effects(
    work: Ablations, sets: Sets, languages: Sequence[str], progress: Progress = shown, *, factor: float = 0.0
) -> Effects:
    """The change of loss with each language's set off, or with its activations times a `factor`, on every language, for every method and size.

    `work.base` must have run. Cells that were measured before are not run again. A language that a selection method left out has
    no effect there (None neurons), which is not an effect of 0. Units pair by the number of a document or line over languages;
    raises TextError for texts that cannot be paired or a language that no method has a set of, MismatchError for neurons of another model.

    Example:
        >>> from lape.data.corpus import TextOptions
        >>> from lape.measure.ablation import Ablations
        >>> from lape.measure.effects import effects, matched_sets
        >>> work = Ablations(model, tokenizer, {"fr": texts["fr"], "zh": texts["zh"]}, TextOptions(tokens=200))
        >>> tokens, seconds = work.base()
        >>> sets = {("lape", 8): neurons, ("matched", 8): matched_sets(work, neurons, seed=0)}
        >>> measured = effects(work, sets, ["fr", "zh"])
        >>> change = measured.nats["lape", 8].sum(2) / measured.sentences.sum(1)  # nats per sentence; rows: switched off, columns: evaluated
        >>> bool((change.diagonal() > 1).all())
        True
    """
    work.check_paired(languages)
    chosen = {key: {k: found.sets.get(tag(k)) for k in languages} for key, found in sets.items()}
    for language in languages:
        if sets and all(found[language] is None for found in chosen.values()):
            raise TextError(f"No selection method has neurons of {language}. Leave it out, or identify it too.")
    count = 1 + max(int(work.unit(language).max()) for language in languages)
    sentences = np.stack([by_unit(work.unit(k), work.unedited(k).tokens > 0, count) for k in languages])
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
        change = work.scaled(found, factor, language).nll - work.unedited(language).nll
        at = (languages.index(off), languages.index(language))
        nats[key][at] = by_unit(work.unit(language), change, count)
    progress("switching neurons off", len(cells), len(cells))
    sizes = {key: tuple(None if one is None else len(one) for one in of.values()) for key, of in chosen.items()}
    return Effects(tuple(languages), sentences, nats, sizes)


def matched_sets(work: Ablations, neurons: LanguageNeurons, seed: int) -> LanguageNeurons:
    """The matched control as if it were a selection method: for each language one draw of neurons nearest to its set in written energy, layer by layer.

    Energies are those on the evaluated text, so `work.base` must have run. A language that is not evaluated, or whose layers have too few others
    left, is left out, with a note: it has no control, which is not one that does nothing.

    Example:
        >>> from lape.data.corpus import TextOptions
        >>> from lape.measure.ablation import Ablations
        >>> from lape.measure.effects import matched_sets
        >>> work = Ablations(model, tokenizer, {"fr": texts["fr"]}, TextOptions(tokens=200))
        >>> tokens, seconds = work.base()
        >>> others = matched_sets(work, neurons, seed=0)
        >>> len(others["fr"]), len(others["fr"] & neurons.union), others.notes[0]
        (8, 0, 'en has no matched control: there is no text of it here')
    """
    sets, notes = {}, []
    for k, (language, chosen) in enumerate(neurons.items()):
        if language not in work.languages:
            notes.append(f"{language} has no matched control: there is no text of it here")
            continue
        others, why = control(chosen, neurons.union, work.energy(language), seeded(seed, k))
        if others is None:
            notes.append(f"{language} has no matched control: {why}")
        else:
            sets[language] = others
    return LanguageNeurons(neurons.space, sets, method="matched", options={"seed": seed}, notes=tuple(notes))
