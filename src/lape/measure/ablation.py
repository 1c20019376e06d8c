"""One thought: the loss of every line with any set of neurons switched off: measured once, kept, and shared by all tables."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lape.data.corpus import Corpus, TextOptions, prepare_all
from lape.data.languages import tag
from lape.data.texts import Documents, Texts
from lape.data.windows import Batch
from lape.detect.common import largest, over_others
from lape.edit.edit import Edit, Off, Scale, Set, edited
from lape.errors import MismatchError, OptionError, TextError, certain
from lape.measure.bootstrap import paired_units, several_documents
from lape.measure.controls import LEADING, Energy
from lape.model.body import check_fits
from lape.model.find import find
from lape.model.hooks import at_product
from lape.model.identity import check_made_with
from lape.model.loss import Loss, find_head, line_loss
from lape.model.numerics import check_finite
from lape.model.weights import all_down_norms
from lape.progress import Progress, each, shown
from lape.recording.counter import Recorder
from lape.recording.engine import RecordOptions
from lape.recording.observers.observer import Setting
from lape.recording.observers.sums import Sums
from lape.recording.run import checked_texts
from lape.store.cells import Cells
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.same import Made, check_same_model, lasting
from lape.values.space import NeuronSpace

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_KIND = "a loss"
_KEPT = {"nll": torch.float64, "tokens": torch.int64}
_MEANS = ("gate", "written", "mean")
"""Of each neuron on a text: its two energies, and its mean activation."""
KNOWN = 0.01
"""Text of which more fingerprints than this share were recorded is refused; a few short lines may well come twice."""

PlannedRuns: TypeAlias = Callable[[int, int, float | None], None]
"""Told once, before neurons are switched off: the passes through a language's text, the tokens of those that are not known yet, and about how
many seconds they take, going by the unedited model; None where that was known too."""


def unreported(passes: int, tokens: int, seconds: float | None) -> None:
    """The default: nothing is said."""


class Ablations:
    """A model on some text, unedited and with sets of neurons off. With a `folder`, what was measured is found there again.

    The folder must belong to one model, text and options; who makes it sees to that (`lape.store.files.same_run`). `texts`: language -> source.
    Losses are `lape.model.loss.Loss`: of each line its `nll`, (lines,) float64, in nats summed over the line, and its scored `tokens`, (lines,) int64.
    Raises TextError for text that holds nothing to measure, ModelError for a model whose neurons or head cannot be found.

    Example:
        >>> from lape.data.corpus import TextOptions
        >>> from lape.measure.ablation import Ablations
        >>> work = Ablations(model, tokenizer, {"fr": texts["fr"], "zh": texts["zh"]}, TextOptions(tokens=200))
        >>> work.check(neurons=neurons)
        >>> tokens, seconds = work.base()
        >>> before, after = work.unedited("fr"), work.off(neurons["fr"], "fr")
        >>> damage = (after.nll - before.nll).sum() / before.tokens.sum()  # nats per token
        >>> f"{damage:.1f}"
        '1.6'

        What each neuron adds to the residual stream there, by which controls are matched, and the neurons that lead in a language:

        >>> strongest = int(work.energy("fr").argmax())
        >>> strongest in neurons["fr"], len(work.leading(0.01)) >= 28
        (True, True)
        >>> moved = work.moved("fr", stats.mean("zh"))  # by mean ablation, by which its controls are matched
        >>> int(moved.argmax()) in neurons["fr"]
        True

        Mean ablation instead of zero ablation, half of their activity taken away, and how many tokens it would take to measure more:

        >>> patched, half = work.at(neurons["fr"], stats.mean("zh"), "fr"), work.scaled(neurons["fr"], 0.5, "fr")
        >>> work.passes(neurons["fr"], "fr"), work.passes(neurons["fr"], "zh")
        (0, 200)

        Units of resampling, the same number for a line and its translation:

        >>> work.check_paired(work.languages)
        >>> work.units, work.unit("fr")[:3].tolist()
        (19, [0, 1, 2])
    """

    def __init__(
        self,
        model: PreTrainedModel | nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        texts: Texts,
        options: TextOptions,
        *,
        folder: Path | None = None,
        progress: Progress = shown,
    ) -> None:
        self.model, self.tokenizer, self.options, self.cells = model, tokenizer, options, Cells(folder)
        self.found = find(model)
        self.corpora = _prepared(model, tokenizer, texts, options, progress)
        self.head = find_head(model)
        self._recorded: dict[str, dict[str, Tensor]] = {}
        """Language -> (neurons,) float64 of each of `_MEANS`, on this very text; once `base` has run."""
        self._places = {language: _place(corpus) for language, corpus in self.corpora.items()}
        self._units = _units(texts, self._places)
        self._base: dict[str, Loss] = {}
        self._kept: dict[tuple[str, str], Loss] = {}

    @property
    def languages(self) -> list[str]:
        """The evaluated languages."""
        return list(self.corpora)

    def unit(self, language: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(lines,) int64: the unit of resampling of each line, numbered alike in all languages. Raises TextError for one that is not evaluated."""
        return self._units[self._known(language)]

    @property
    def units(self) -> int:
        """How many units there are over all languages: `unit` numbers them from 0."""
        return 1 + max(int(unit.max()) for unit in self._units.values())

    def _known(self, language: str) -> str:
        if language not in self.corpora:
            raise TextError(f"There is no text of {language} here. Evaluated: {', '.join(self.corpora)}.")
        return language

    def check_paired(self, languages: Sequence[str]) -> None:
        """Raise TextError for texts whose units cannot be translations of each other: one document beside several, or other documents."""
        places = {language: self._places[self._known(language)] for language in languages}
        kinds = {language: several_documents(place) for language, place in places.items()}
        if len(set(kinds.values())) > 1:
            one, more = (next(k for k in kinds if kinds[k] == several) for several in (False, True))
            count = len(set(places[more][:, 0].tolist()))
            raise TextError(
                f"The text for {one} is one document, that for {more} has {count}: they cannot be resampled in pairs. Give all "
                "languages as many documents, line by line the same: document='line', or files of records."
            )
        alone = {language: int(place[0, 0]) for language, place in places.items() if not kinds[language]}
        if len(set(alone.values())) > 1:
            listed = ", ".join(f"{language} number {number + 1}" for language, number in alone.items())
            raise TextError(
                f"Each language has text in one document, but not in the same: {listed}. Give parallel text."
            )

    def passes(self, neurons: NeuronSet, language: str) -> int:
        """Tokens that `off` would have to run: 0 where it is known already."""
        known = (
            not len(neurons)
            or (digest(neurons), language) in self._kept
            or self.cells.has(f"{digest(neurons)}.{language}", "safetensors")
        )
        return 0 if known else len(self.corpora[language].tokens)

    def base(self, progress: Progress = shown) -> tuple[int, float]:
        """The unedited model on every language; also measures each neuron's energies and mean on this very text. Gives the tokens that had to be
        run, and the seconds that they took.
        """
        todo = [k for k in self.corpora if k not in self._base and not self._restored(k)]
        started = time.perf_counter()
        for language in each(todo, "measuring the unedited model", progress):
            self._watched(language)
        spent = time.perf_counter() - started
        for language in todo:
            self.cells.tensors(f"base.{language}", partial(self._unedited_tensors, language), _KIND)
        return sum(len(self.corpora[language].tokens) for language in todo), spent

    def _watched(self, language: str) -> None:
        corpus, recorder = self.corpora[language], Recorder(self.model, self.found)
        written = Sums(Setting(self.model, self.found, RecordOptions()), ("written",), _squares, at_product)

        def count(one: Batch) -> None:
            recorder.count(one.fold)
            written.count(one)

        with recorder.attached(), written.attached():
            loss = line_loss(self.model, self.head, corpus, self.options, count)
        self._base[language] = _finite(loss, language, 0)
        tokens, sums = max(int(recorder.tokens.sum()), 1), recorder.state()
        norms = self._down_norms / tokens
        means = {"gate": sums["square"] * norms, "written": written.result()["written"] * norms}
        self._recorded[language] = {**means, "mean": sums["sum"] / tokens}

    @cached_property
    def _down_norms(self) -> Tensor:
        return all_down_norms(self.model, self.found)

    def energy(self, language: str, of: Energy = "written") -> Tensor:
        """(neurons,) float64: each neuron's mean energy on the evaluated text of a language, by which controls are matched (`Energy`).

        Raises TextError for one that is not evaluated, OptionError before `base`.
        """
        return self._recorded[self._measured_base(language)][of]

    def moved(self, language: str, value: Tensor) -> Tensor:
        """(neurons,) float64: by how much each neuron is changed on the evaluated text of a language where its activation is set to its own of (neurons,)
        values, E[(a − value)²]·‖w‖², w its column of the down projection: by which controls of mean ablation are matched. `energy(…, "gate")` is that at 0.

        Raises as `energy` does.
        """
        recorded = self._recorded[self._measured_base(language)]
        value = value.double().cpu()
        moved = recorded["gate"] + value * (value - 2 * recorded["mean"]) * self._down_norms
        return moved.clamp_min(0)  # a mean of squares, but for rounding

    def leading(self, share: float = LEADING) -> NeuronSet:
        """The neurons whose mean activation on the evaluated text lies furthest above the other languages' mean, `share` of all in each language.

        Where a single language is evaluated there are none. Raises OptionError before `base`.
        """
        means = torch.stack([self._recorded[self._measured_base(k)]["mean"] for k in self.languages])
        count = round(share * means.shape[1]) if len(means) > 1 else 0
        leads = over_others(means, "mean") if count else means
        return NeuronSet(self.found.space, torch.cat([largest(one, count) for one in leads]))

    def _measured_base(self, language: str) -> str:
        if self._known(language) not in self._base:
            raise OptionError(f"The unedited model was not measured on {language} yet. Call base() first.")
        return language

    def _restored(self, language: str) -> bool:
        each = torch.empty(len(self.found.space), dtype=torch.float64, device="meta")
        like = {**self._like(language), **dict.fromkeys(_MEANS, each)}
        kept = self.cells.kept_tensors(f"base.{language}", _KIND, like)
        if kept is None:
            return False
        self._base[language], self._recorded[language] = _loss(kept), {name: kept[name] for name in _MEANS}
        return True

    def _unedited_tensors(self, language: str) -> dict[str, Tensor]:
        return {**_tensors(self._base[language]), **self._recorded[language]}

    def unedited(self, language: str) -> Loss:
        """The loss of each line of a language under the unedited model. Raises TextError for one that is not evaluated, OptionError before `base`."""
        return self._base[self._measured_base(language)]

    def check(self, **made: NeuronSpace | Made) -> None:
        """Raise MismatchError for `neurons=…` or `statistics=…` of another model, tokenizer or rule of beginning rows than these."""
        check_made_with(self.model, self.tokenizer, bos=self.options.bos, **made)

    def off(self, neurons: NeuronSet, language: str) -> Loss:
        """The loss of each line of a language while some neurons are off (zero ablation); without any, `base` must have run.

        Raises MismatchError for neurons of another model, ModelError for a loss that is infinite or not a number.
        """
        return self._measured(digest(neurons), Off(neurons), language)

    def at(self, neurons: NeuronSet, value: Tensor, language: str, *, spare: bool = False) -> Loss:
        """The loss of each line while some neurons are set to their own of (neurons of the model,) values (mean ablation). Raises as `off` does.

        `spare`: but at the first position of each text, where in many models nothing is said but where rows begin, and on which all the others lean.
        """
        given = hashlib.sha256(value[neurons.flat].double().cpu().numpy().tobytes()).hexdigest()[:20]
        return self._measured(f"{digest(neurons)}.{given}", Set(neurons, value), language, spare)

    def scaled(self, neurons: NeuronSet, factor: float, language: str) -> Loss:
        """The loss of each line while some neurons' activations are `factor` of what they would be. Raises as `off` does."""
        if factor in (0.0, 1.0):
            return self.unedited(language) if factor else self.off(neurons, language)
        return self._measured(f"{digest(neurons)}.times{factor:g}", Scale(neurons, factor), language)

    def _measured(self, name: str, edit: Off | Set | Scale, language: str, spare: bool = False) -> Loss:
        neurons = edit.neurons
        check_same_model(neurons=neurons, model=self.found.space)
        if not len(neurons):
            return self.unedited(language)
        self._known(language)
        key = (f"{name}.spared" if spare else name, language)
        if key not in self._kept:
            make = partial(self._edited_tensors, edit, language, spare)
            self._kept[key] = _loss(self.cells.tensors(".".join(key), make, _KIND, self._like(language)))
        return self._kept[key]

    def _like(self, language: str) -> dict[str, Tensor]:
        """Tensors like those that are kept of a language's loss."""
        lines = len(self.unit(language))
        return {name: torch.empty(lines, dtype=dtype, device="meta") for name, dtype in _KEPT.items()}

    def _edited_tensors(self, edit: Off | Set | Scale, language: str, spare: bool) -> dict[str, Tensor]:
        return _tensors(_finite(self._line_loss((edit,), language, spare), language, len(edit.neurons)))

    def _line_loss(self, edits: Sequence[Edit], language: str, spare: bool = False) -> Loss:
        with edited(self.model, edits, spare=spare):
            return line_loss(self.model, self.head, self.corpora[language], self.options)


def _squares(x: Tensor) -> Tensor:
    return x.square().sum(0, keepdim=True)


def digest(neurons: NeuronSet) -> str:
    """What names a set of neurons in a folder."""
    return hashlib.sha256(neurons.flat.numpy().tobytes()).hexdigest()[:20]


def depends_on(
    described: Mapping[str, Any], neurons: LanguageNeurons, corpora: Mapping[str, Corpus], options: TextOptions
) -> dict[str, Any]:
    """What cells in a folder were measured with (`files.same_run`). `described`: see `lape.model.identity.describe`."""
    return {
        **lasting({key: described[key] for key in ("model", "tokenizer")}),
        "neurons": {language: digest(found) for language, found in neurons.items()},
        "texts": {language: corpus.hash for language, corpus in corpora.items()},
        "options": dataclasses.asdict(options),
    }


def _units(texts: Texts, places: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """`paired_units`, but where texts say of what unit each of their documents is."""
    said = {
        tag(language): np.array(source.units)
        for language, source in texts.items()
        if isinstance(source, Documents) and source.units is not None
    }
    if set(said) != set(places):
        return paired_units(places)
    kept = {language: said[language][place[:, 0]] for language, place in places.items()}
    known = np.unique(np.concatenate(list(kept.values())))
    return {language: np.searchsorted(known, one).astype(np.int64) for language, one in kept.items()}


def _place(corpus: Corpus) -> np.ndarray[Any, np.dtype[np.int64]]:
    return certain(corpus.lines).place


def _finite(loss: Loss, language: str, neurons: int) -> Loss:
    check_finite(loss.nll, f"With {neurons} neurons off, the loss of {language}", "non-empty line")
    return loss


def _tensors(loss: Loss) -> dict[str, Tensor]:
    return {"nll": torch.from_numpy(loss.nll), "tokens": torch.from_numpy(loss.tokens)}


def _loss(kept: Mapping[str, Tensor]) -> Loss:
    return Loss(kept["nll"].numpy(), kept["tokens"].numpy())


def _prepared(model: Any, tokenizer: Any, texts: Texts, options: TextOptions, progress: Progress) -> dict[str, Corpus]:
    corpora = prepare_all(checked_texts(texts), tokenizer, options, lines=True, progress=progress)
    for language, corpus in corpora.items():
        if corpus.lines is None or not corpus.lines.characters.any() or len(corpus.tokens) < 2:
            raise TextError(
                f"The text for {language} holds nothing to measure: {len(corpus.tokens)} tokens. Give it more text."
            )
        check_fits(model, options.row_tokens, int(corpus.tokens.max()))
    return corpora


def refuse_recorded(corpora: Mapping[str, Corpus], neurons: LanguageNeurons) -> None:
    """Refuse text that the neurons were found in: its loss says nothing about other text."""
    if neurons.fingerprints is None:
        return
    for language, corpus in corpora.items():
        known = corpus.known(neurons.fingerprints)
        if known > KNOWN:
            raise MismatchError(
                f"{language}: {known:.0%} of this text at least was recorded when the neurons were found, perhaps with other spacing, "
                "case or punctuation. "
                "Evaluate on other text, or give allow_recorded=True if you mean it."
            )
