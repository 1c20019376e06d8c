"""Language sets and their control neurons, and what the sets do beyond their controls: on the language itself, and more there than elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from lape.errors import OptionError, certain
from lape.measure.ablation import Ablations
from lape.measure.bootstrap import Floats, Resamples, by_unit
from lape.measure.controls import MATCHED, RANDOM, control, energy_ratio, kinds_of, seeded, unlike
from lape.measure.intervals import MEAN, QUANTILES, Estimate, jackknife, means_without, pseudo_values, resampled
from lape.model.loss import Loss
from lape.values.neurons import LanguageNeurons, NeuronSet

LINES = {
    **dict.fromkeys(("off", "kind"), pl.String),
    "draw": pl.Int64,
    "language": pl.String,
    **dict.fromkeys(("document", "line", "unit", "tokens", "characters"), pl.Int64),
    **dict.fromkeys(("nll", "energy_ratio"), pl.Float64),
}
"""Columns of `lines_of`."""
CONTROLLED = {
    **dict.fromkeys(("language", "control"), pl.String),
    "draws": pl.Int64,
    **dict.fromkeys(("energy_ratio", "own", "of_control", "largest"), pl.Float64),
    **resampled("difference"),
    **dict.fromkeys(("own_more", "control_more"), pl.Float64),
    **resampled("more"),
    "unlike": pl.String,
}
"""Columns of `controlled`."""
DISSOCIATED = {
    **dict.fromkeys(("language", "other", "pair"), pl.String),
    "draws": pl.Int64,
    "interaction": pl.Float64,
    "of_control": pl.Float64,
    **resampled("difference", plain=True),
    **resampled("weaker"),
    "energy_ratio": pl.Float64,
    "unlike": pl.String,
}
"""Columns of `dissociated`."""
ADDED_DISSOCIATED = ("pair", *resampled("weaker"), "energy_ratio", "unlike")
"""Those that tables of earlier versions lack."""
BASE, OWN = "base", "own"


@dataclass(frozen=True)
class Condition:
    """A set of neurons that is changed: a language's own (`own`), or a control of it, named as its kind is; none where nothing is (`base`)."""

    off: str
    kind: str
    draw: int
    neurons: NeuronSet
    everywhere: bool = True
    """Measured on every language, or on its own alone."""
    energy_ratio: float | None = None
    """Energy of the language's own set over this one's: of a matched control in the energy in which it is matched, of others in written energy."""

    def languages(self, work: Ablations) -> list[str]:
        """Those on which it is measured."""
        return work.languages if self.everywhere else [self.off]


def sets_and_controls(
    work: Ablations,
    neurons: LanguageNeurons,
    *,
    controls: Sequence[str],
    draws: int,
    elsewhere: int,
    seed: int,
    energies: Mapping[str, Tensor] | None = None,
) -> list[Condition]:
    """Every language's own set, and for the evaluated ones `draws` of each kind of `controls`, of which all but random ones are measured on every language in
    the first `elsewhere` draws.

    A language whose layers have too few other neurons left has no control. `work.base` must have run. `energies`: language -> (neurons,) what its controls
    are matched in, where neurons are not switched off but set to something (`Ablations.moved`).
    """
    result = [Condition(language, OWN, 0, found) for language, found in neurons.items()]
    kinds = kinds_of(controls)
    pools = {"all": neurons.union}
    if any(kind.pool == "apart" for kind in kinds):
        pools["apart"] = neurons.union | work.leading()
    for k, (language, found) in enumerate(neurons.items()):
        if language not in work.corpora or not len(found):
            continue
        for draw in range(draws):
            for kind in kinds:
                energy = (
                    None if kind.energy is None else (energies or {}).get(language, work.energy(language, kind.energy))
                )
                others, _ = control(found, pools[kind.pool], energy, seeded(seed, k, draw))
                if others is not None:
                    ratio = energy_ratio(found, others, work.energy(language) if energy is None else energy)
                    everywhere = energy is not None and draw < elsewhere
                    result.append(Condition(language, kind.name, draw, others, everywhere, ratio))
    return result


def control_passes(controls: Sequence[str], *, draws: int, elsewhere: int, others: int) -> tuple[int, int]:
    """How often the controls that `sets_and_controls` draws for a language are run on its own text, and on that of `others` other languages together."""
    matched = sum(kind.energy is not None for kind in kinds_of(controls))
    return len(controls) * draws, matched * min(draws, elsewhere) * others


def lines_of(work: Ablations, condition: Condition, language: str, loss: Loss) -> pl.DataFrame:
    """A condition's `loss` on a language, line by line: `document`, `line`, `unit` of resampling, scored `tokens`, `characters`, `nll` in nats."""
    corpus = work.corpora[language]
    lines = certain(corpus.lines)
    count = len(lines.document)
    columns = {
        "off": [condition.off] * count,
        "kind": [condition.kind] * count,
        "draw": [condition.draw] * count,
        "language": [corpus.language] * count,
        "document": lines.document,
        "line": np.arange(count),
        "unit": work.unit(language),
        "tokens": loss.tokens,
        "characters": lines.characters,
        "nll": loss.nll,
        "energy_ratio": [condition.energy_ratio] * count,
    }
    return pl.DataFrame(columns, schema=LINES).filter(pl.col("tokens") > 0)


def unedited_lines(work: Ablations) -> list[pl.DataFrame]:
    """`lines_of` the unedited model, of every language."""
    nothing = Condition("", BASE, 0, NeuronSet(work.found.space, torch.empty(0)))
    return [lines_of(work, nothing, language, work.unedited(language)) for language in work.languages]


def controlled(lines: pl.DataFrame, languages: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> pl.DataFrame:
    """The set of each language less its control: one row per language and kind of control that was drawn, random and matched ones at least.

    `lines`: of `lines_of`, as `lape.experiments.perplexity.run.line_losses` gives them.

    - `draws`; `energy_ratio`: the set's energy over the mean of its draws', and `unlike`: why it is not within .8 and 1.25.
    - On the language itself, in nats per token: `own`, `of_control` (mean of the draws), `largest` (of the draws), and `difference`, own − of_control.
    - How much more than elsewhere, in nats per sentence (line), since tokens of two languages are not alike: `own_more`, the change of the language's
      loss less the mean change of the others', `control_more` the same of the control, and `more`, own_more − control_more. Above 0, the set is
      more the language's than neurons that write as much are. Null of a control that was measured on its own language alone, and of a single language.

    `_low`, `_high`: 95 % intervals over units of text *and* draws (`lape.measure.bootstrap.Resamples`), paired over languages and conditions; `_quantiles`
    for judging; null under 20 units, and with a single draw. Draws on the language itself and those on the others count as two samples where they are
    not as many: that is rather too wide, since some are the same neurons. A language without control neurons (its set is empty, or too few others are
    left) has nulls: it is not left out, since what has no control shows nothing.
    Raises OptionError for a language that was not evaluated, or whose set was not switched off.

    Example:
        >>> from lape.measure.controlled import controlled
        >>> from lape.experiments.perplexity.run import PerplexityOptions, line_losses
        >>> options = PerplexityOptions(tokens=200, draws=2, elsewhere=2)
        >>> lines = line_losses(model, tokenizer, neurons, {"fr": texts["fr"], "zh": texts["zh"]}, options)
        >>> table = controlled(lines, ["fr"])
        >>> table["control"].to_list(), table.filter(control="matched")["more"].item() > 0
        (['random', 'matched'], True)
    """
    if not len(lines):
        raise OptionError("There are no losses. Give the lines of lape.experiments.perplexity.run.line_losses.")
    known = _Changes.of(lines, resamples, seed)
    drawn = [kind for kind in dict.fromkeys(lines["kind"]) if kind not in (BASE, OWN)]
    kinds = [*dict.fromkeys([RANDOM.name, MATCHED.name, *drawn])]
    rows = []
    for language in languages:
        if (BASE, 0, language) not in known.nats.get("", {}) or (OWN, 0, language) not in known.nats.get(language, {}):
            raise OptionError(f"There is no loss of {language} with its own neurons off. Evaluate it, or leave it out.")
        rows += [{"language": language, "control": kind, **_row(known, language, kind)} for kind in kinds]
    return pl.DataFrame(rows, schema=CONTROLLED)


def dissociated(lines: pl.DataFrame, languages: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> pl.DataFrame:
    """Whether two languages come apart, and both ways (double dissociation): sets off × text, as an interaction, beside that of their matched controls.

    One row per `pair` of languages, and one, `mean`, for all pairs together. `interaction`: half of how much more each set costs its own language than
    the other one, added up over the two, in nats per sentence (line) of parallel text. A set that hurts all text alike, or a language that loses more
    whatever is off, adds nothing to it. `of_control`: that of the control neurons (mean of the `draws` that were measured on both languages), and
    `difference`, interaction − of_control, with a 95 % interval over units of text and draws; null without a control. One set may carry all of that:
    `weaker` is the smaller, of the two sets, of how much more it costs its own language than the other one, less the same of its control. The interval of
    the mean is Student's t over languages, each left out in turn with all its pairs; with two languages it is that of their pair. `energy_ratio`: a set's
    energy over the mean of its draws', the larger of the two sets', in the mean the largest of all; `unlike`: why it is not within .8 and 1.25.
    `lines`: as for `controlled`, which raises the same.

    Example:
        >>> from lape.measure.controlled import dissociated
        >>> from lape.experiments.perplexity.run import PerplexityOptions, line_losses
        >>> options = PerplexityOptions(tokens=200, draws=2, elsewhere=2)
        >>> lines = line_losses(model, tokenizer, neurons, {"fr": texts["fr"], "zh": texts["zh"]}, options)
        >>> table = dissociated(lines, ["fr", "zh"])
        >>> table["other"].to_list(), table["difference"].min() > 0
        (['zh', 'mean'], True)
    """
    known = _Changes.of(lines, resamples, seed)
    rows = [_pair(known, one, other) for one, other in combinations(languages, 2)]
    if compared := [row for row in rows if row["draws"]]:
        rows.append(_mean_of_pairs(known.drawn, compared))
    return pl.DataFrame(rows, schema=DISSOCIATED)


def _pair(known: _Changes, one: str, other: str) -> dict[str, Any]:
    """A row of `dissociated`."""
    ways = ((one, other), (other, one))
    of_sets = np.stack([known.way(*way, OWN)[:, 0] for way in ways])
    row: dict[str, Any] = {"language": one, "other": other, "pair": f"{one} – {other}", "draws": 0}
    row["interaction"] = float(of_sets[:, 0].mean())
    if not all(known.both(*way, MATCHED.name) for way in ways):
        return row
    by_draw = [known.way(*way, MATCHED.name) for way in ways]
    less = of_sets - [of_control.mean(1) for of_control in by_draw]
    row |= {
        "draws": min(of_control.shape[1] for of_control in by_draw),
        "of_control": float(np.mean([of_control[0].mean() for of_control in by_draw])),
        **known.drawn.plain(
            "difference", less.mean(0), quantiles=True, draws=[of_control[0] / 2 for of_control in by_draw]
        ),
        **known.drawn.named("weaker", less.min(0), quantiles=True, draws=_of_weaker(less[:, 0], by_draw)),
    }
    ratios = [known.ratio(off, MATCHED.name) for off in (one, other)]
    return row | likeness(max((ratio for ratio in ratios if ratio is not None), default=None))


def _of_weaker(less: Floats, by_draw: Sequence[Floats]) -> list[Floats]:
    """What each draw of the control of either set adds to the smaller of two values, from which the mean of its draws was taken."""
    samples = []
    for k, draws in enumerate(of_control[0] for of_control in by_draw):
        if len(draws) > 1:
            without = less[k] + draws.mean() - means_without(draws)
            draws = pseudo_values(less.min(), np.minimum(without, less[1 - k]))
        samples.append(draws)
    return samples


def _mean_of_pairs(drawn: Resamples, pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of the mean over pairs."""
    row: dict[str, Any] = dict.fromkeys(("language", "other", "pair"), MEAN) | {
        "draws": min(pair["draws"] for pair in pairs)
    }
    row |= {name: float(np.mean([pair[name] for pair in pairs])) for name in ("interaction", "of_control")}
    row |= likeness(max((pair["energy_ratio"] for pair in pairs if "energy_ratio" in pair), default=None))
    if len(pairs) == 1:
        return row | {name: pairs[0][name] for name in ("difference", "low", "high", QUANTILES)}
    values = np.array([pair["difference"] for pair in pairs])
    languages = dict.fromkeys(pair[name] for pair in pairs for name in ("language", "other"))
    left_out = [[language not in (pair["language"], pair["other"]) for pair in pairs] for language in languages]
    estimate = Estimate(float(values.mean()))
    if drawn.resamples and all(any(kept) for kept in left_out):
        estimate = jackknife(values.mean(), np.array([values[kept].mean() for kept in left_out]))
    return row | estimate.plain("difference", quantiles=True)


class _More(NamedTuple):
    """How much more neurons cost their own language than others."""

    mean: Floats
    """(rows,) over draws."""
    draws: list[Floats]
    """On all units, what each draw adds to it: the same draws here and there, or, where those differ in number, two samples."""


@dataclass(frozen=True)
class _Changes:
    """Summed losses of every condition, unit by unit."""

    drawn: Resamples
    nats: Mapping[str, Mapping[tuple[str, int, str], Floats]]
    """Language off -> (kind, draw, language evaluated) -> (units,) nats."""
    tokens: Mapping[str, Floats]
    lines: Mapping[str, Floats]
    """Language evaluated -> (units,) scored tokens and lines."""
    ratios: Mapping[str, Mapping[str, list[float]]]
    """Language off -> kind -> the ratio of energies of each draw."""

    @classmethod
    def of(cls, lines: pl.DataFrame, resamples: int, seed: int) -> _Changes:
        count = 1 + max(lines["unit"].to_list())
        nats: dict[str, dict[tuple[str, int, str], Floats]] = {}
        tokens, sentences = {}, {}
        ratios: dict[str, dict[str, dict[int, float]]] = {}
        for some in lines.partition_by("off", "kind", "draw", "language"):
            first, unit = some.row(0, named=True), some["unit"].to_numpy()
            off, kind, draw, on = (first[name] for name in ("off", "kind", "draw", "language"))
            nats.setdefault(off, {})[kind, draw, on] = by_unit(unit, some["nll"], count)
            if kind == BASE:
                tokens[on] = by_unit(unit, some["tokens"], count)
                sentences[on] = by_unit(unit, np.ones(len(unit)), count)
            elif first["energy_ratio"] is not None:
                ratios.setdefault(off, {}).setdefault(kind, {})[draw] = first["energy_ratio"]
        plain = {off: {kind: list(of.values()) for kind, of in kinds.items()} for off, kinds in ratios.items()}
        return cls(Resamples(count, resamples, seed), nats, tokens, sentences, plain)

    def draws(self, off: str, kind: str, on: str) -> list[int]:
        """The draws that were measured on a language."""
        return sorted(draw for name, draw, where in self.nats.get(off, {}) if (name, where) == (kind, on))

    def both(self, off: str, other: str, kind: str) -> list[int]:
        """The draws that were measured on the language that is off, and on another."""
        return sorted({*self.draws(off, kind, off)} & {*self.draws(off, kind, other)})

    def way(self, own: str, other: str, kind: str) -> Floats:
        """(rows, draws) nats per sentence: how much more neurons of a kind cost their own language than another; of draws measured on both."""
        draws = self.both(own, other, kind)
        return self.change(own, kind, own, self.lines[own], draws) - self.change(
            own, kind, other, self.lines[other], draws
        )

    def change(self, off: str, kind: str, on: str, size: Floats, draws: Sequence[int] = ()) -> Floats:
        """(rows, draws) the change of a language's loss over its `size`, with each of some draws, all that were measured by default."""
        before = self.nats[""][BASE, 0, on]
        changes = [
            self.drawn.ratio(self.nats[off][kind, draw, on] - before, size)
            for draw in draws or self.draws(off, kind, on)
        ]
        return np.stack(changes, 1)

    def more(self, off: str, kind: str, among: Sequence[str]) -> _More:
        """The change of the language's own loss less the mean of the others', in nats per sentence."""
        own, *rest = (self.change(off, kind, on, self.lines[on]) for on in (off, *among))
        others = np.mean(rest, axis=0)
        here, there = own[0], others[0]
        draws = [here - there] if len(here) == len(there) else [here, there]
        return _More(own.mean(1) - others.mean(1), draws)

    def ratio(self, off: str, kind: str) -> float | None:
        """The energy of a set over the mean of its draws'; None where no draw has a ratio."""
        return ratio_to_mean(self.ratios.get(off, {}).get(kind, []))


def ratio_to_mean(ratios: Sequence[float]) -> float | None:
    """The energy of a set over the mean of its draws', from its ratio to each of them; None without draws."""
    if not ratios:
        return None
    with np.errstate(divide="ignore"):  # a set without energy
        return 1 / float(np.mean(1 / np.array(ratios)))


def likeness(ratio: float | None) -> dict[str, Any]:
    """`energy_ratio` of a set and its draws, and `unlike`: why it is not within `lape.measure.controls.LIKE`; nothing without a ratio."""
    return {} if ratio is None else {"energy_ratio": ratio, "unlike": unlike(ratio)}


def _row(known: _Changes, language: str, kind: str) -> dict[str, Any]:
    drawn, tokens = known.drawn, known.tokens[language]
    own = known.change(language, OWN, language, tokens)[:, 0]
    others = [on for on in known.tokens if on != language and (OWN, 0, on) in known.nats[language]]
    row: dict[str, Any] = {"own": float(own[0]), "draws": 0}
    if others:
        of_set = known.more(language, OWN, others)
        row["own_more"] = float(of_set.mean[0])
    draws = known.draws(language, kind, language)
    if not draws:
        return row
    control = known.change(language, kind, language, tokens)
    row |= {
        "draws": len(draws),
        "of_control": float(control[0].mean()),
        "largest": float(control[0].max()),
        **drawn.named("difference", own - control.mean(1), quantiles=True, draws=[control[0]]),
    }
    row |= likeness(known.ratio(language, kind))
    if others and all(known.draws(language, kind, on) for on in others):
        of_control = known.more(language, kind, others)
        row["control_more"] = float(of_control.mean[0])
        row |= drawn.named("more", of_set.mean - of_control.mean, quantiles=True, draws=of_control.draws)
    return row
