"""The null entropy: slices of one language through LAPE, as if they were languages (ours; asked by LAPE's critics)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from lape.data.languages import tag
from lape.data.texts import Documents
from lape.detect.lape import LapeOptions, entropy, scored_neurons, select
from lape.errors import OptionError
from lape.measure.intervals import Estimate, resampled, wilson
from lape.options import given, shares
from lape.values.neurons import LanguageNeurons
from lape.values.same import check_same_model
from lape.values.stats import ActivationStats, LanguageStats

NULL: dict[str, Any] = {
    **dict.fromkeys(("language", "kind"), pl.String),
    **dict.fromkeys(("slices", "tokens", "candidates"), pl.Int64),
    **dict.fromkeys(("first_percentile", "median", "highest_chosen", "real_highest"), pl.Float64),
    **resampled("share_below", plain=True),
    **dict.fromkeys(("neurons", "chosen_in_null"), pl.Int64),
}
"""Columns of `null_entropy`."""
FOLDS, TOPICS = "folds", "topics"
"""Of what the slices of a null are made."""


@dataclass(frozen=True)
class NullOptions:
    """How the null of slices of one language is made. How LAPE chooses is taken from the neurons' own options."""

    seed: int = 0
    """Seed of the thinning of counts."""
    share: float = 0.01
    """Which low quantile of the null the real entropies are held against."""

    def __post_init__(self) -> None:
        shares(self, share=0.01)


def null_entropy(
    neurons: LanguageNeurons,
    stats: ActivationStats,
    *,
    seed: int = 0,
    share: float = 0.01,
    topics: Mapping[str, ActivationStats] | None = None,
) -> pl.DataFrame:
    """How low entropies get where there is nothing but topics: as many slices of *one* language as there are languages.

    Each language in turn is cut into slices. From `stats` alone a slice is a fold of its counts: every eighth document where there
    were 64 or more, else one of eight runs of consecutive rows. `topics`, language -> statistics of `topic_slices` recorded as if
    they were languages, gives runs of neighbouring documents, which differ more. All counts are thinned, without replacement, to
    those of the smallest slice or language: the real entropies are thus of as few tokens as the null's.

    One row per source of the null: `language`, `kind` (`folds`, or `topics` where those were given), `slices`, `tokens` (of each);
    `candidates`, the neurons that pass LAPE's filter in
    some slice (with the neurons' own options; the published ones for another method's), `first_percentile` (the quantile `share`)
    and `median` of their entropies in nats; `chosen_in_null`, how many LAPE chooses there, and `highest_chosen`, the highest entropy
    among them, beside `real_highest`, that of the chosen neurons in as many tokens of the real languages; `share_below`, the share of
    the chosen `neurons` (of any language) whose real, thinned entropy lies below the first percentile, with Wilson's 95 % interval
    over neurons, not over text, `low`, `high`, and its ends at other levels, `quantiles` (null without neurons).

    Neurons are chosen in all the text and then measured in part of it, which can only raise their entropies. Raises
    OptionError for more languages than folds, or statistics made from counts, which have one fold, MismatchError for neurons or topics of another model.

    Example:
        >>> from lape.experiments.null.run import null_entropy
        >>> null_entropy(neurons, stats)["language"].to_list()
        ['en', 'fr', 'id', 'zh']
    """
    options = given(NullOptions, locals())
    check_same_model(neurons=neurons.space, statistics=stats.space)
    sources = _sources(stats, topics)
    known = neurons.options if neurons.method == "lape" else {}
    rule = LapeOptions(**{field.name: known[field.name] for field in fields(LapeOptions) if field.name in known})
    kind = FOLDS if topics is None else TOPICS
    rows = [
        {"kind": kind, **_row(stats, neurons, language, sliced, rule, options)} for language, sliced in sources.items()
    ]
    return pl.DataFrame(rows, schema=NULL)


def topic_slices(language: str, documents: Sequence[str], count: int) -> dict[str, Documents]:
    """Tags such as fr-x-slice1 -> runs of neighbouring documents, as long as each other in characters as documents allow: to be
    recorded as languages and given to `null_entropy` as `topics`. `count`: how many slices, two or more: as many as languages were recorded.
    Raises OptionError for fewer documents than slices.

    Example:
        >>> from lape.experiments.null.run import null_entropy, topic_slices
        >>> slices = topic_slices("fr", texts["fr"].texts, len(stats.languages))
        >>> list(slices)
        ['fr-x-slice1', 'fr-x-slice2', 'fr-x-slice3', 'fr-x-slice4']
        >>> null_entropy(neurons, stats, topics={"fr": lape.record(model, tokenizer, slices)})["slices"].item()
        4
    """
    if not 2 <= count <= len(documents):
        raise OptionError(
            f"{len(documents)} documents do not make {count} slices. Give at least as many documents as slices."
        )
    ends = np.cumsum([len(one) for one in documents])
    middles = ends - np.array([len(one) for one in documents]) / 2
    bounds = [0]
    for k in range(1, count):
        at = int(np.searchsorted(middles, ends[-1] * k / count))
        bounds.append(min(max(at, bounds[-1] + 1), len(documents) - (count - k)))
    parts = [list(documents[a:b]) for a, b in pairwise([*bounds, len(documents)])]
    return {_slice(language, k): Documents(part) for k, part in enumerate(parts)}


def _slice(language: str, k: int) -> str:
    """The tag of a slice: private use, as a tag has one part of."""
    return tag(f"{language}-{'' if '-x-' in language else 'x-'}slice{k + 1}")


def _sources(stats: ActivationStats, topics: Mapping[str, ActivationStats] | None) -> dict[str, list[LanguageStats]]:
    """Language -> its slices, as many as there are languages."""
    count = len(stats.languages)
    if count < 2:
        raise OptionError(f"Only {', '.join(stats.languages) or 'no language'} was recorded. Record two or more.")
    if topics is not None:
        return {tag(language): _recorded(stats, tag(language), one, count) for language, one in topics.items()}
    if count > stats.folds:
        raise OptionError(
            f"{count} languages need {count} slices of one, but these statistics keep {stats.folds} folds. "
            "Record topic_slices of a language and give them as topics."
        )
    return {language: [_fold(stats[language], k) for k in range(count)] for language in stats.languages}


def _recorded(stats: ActivationStats, language: str, sliced: ActivationStats, count: int) -> list[LanguageStats]:
    check_same_model(**{f"slices of {language}": sliced.space, "statistics": stats.space})
    if len(sliced.languages) != count:
        raise OptionError(
            f"{language} has {len(sliced.languages)} slices, but {count} languages were recorded: entropies over different numbers "
            f"cannot be compared. Record {count} slices."
        )
    return [sliced[one] for one in sliced.languages]


def _fold(one: LanguageStats, k: int) -> LanguageStats:
    return LanguageStats({name: one.tensors[name][k : k + 1] for name in ("tokens", "routed", "fires")})


def _row(
    stats: ActivationStats,
    neurons: LanguageNeurons,
    language: str,
    sliced: Sequence[LanguageStats],
    rule: LapeOptions,
    options: NullOptions,
) -> dict[str, Any]:
    real = [stats[one] for one in stats.languages]
    tokens = min(int(one.tokens.sum()) for one in (*sliced, *real))
    if not tokens:
        raise OptionError(f"A slice of {language} holds no token. Record more text: eight rows at least.")
    generator = np.random.default_rng(options.seed)
    names = [_slice(language, k) for k in range(len(sliced))]
    made = _thinned(stats, names, sliced, tokens, generator)
    scores, members = _chosen(made, rule)
    ours = entropy(_thinned(stats, stats.languages, real, tokens, generator).probabilities(rule.denominator))
    null, chosen = scores[torch.isfinite(scores)].numpy(), neurons.union.flat
    bar = float(np.quantile(null, options.share)) if len(null) else None
    below = int((ours[chosen] < bar).sum()) if bar is not None else 0
    share = wilson(below, len(chosen)) if bar is not None else Estimate(None)
    return {
        "language": language,
        "slices": len(sliced),
        "tokens": tokens,
        "candidates": len(null),
        "first_percentile": bar,
        "median": float(np.median(null)) if len(null) else None,
        "highest_chosen": float(scores[members].max()) if len(members) else None,
        "real_highest": float(ours[chosen].max()) if len(chosen) else None,
        **share.plain("share_below", quantiles=True),
        "neurons": len(chosen),
        "chosen_in_null": len(members),
    }


def _chosen(made: ActivationStats, rule: LapeOptions) -> tuple[Tensor, Tensor]:
    """(neurons,) entropies, inf for no candidate, and the flat indices of what LAPE chooses."""
    found = select(made.probabilities(rule.denominator), rule, scored_neurons(made))
    return found.entropy, torch.unique(torch.cat(found.members))


def _thinned(
    stats: ActivationStats,
    names: Sequence[str],
    parts: Sequence[LanguageStats],
    tokens: int,
    generator: np.random.Generator,
) -> ActivationStats:
    """The counts as `tokens` tokens of each part might have given them: drawn without replacement, as if tokens were in any order."""
    by_language = {}
    for name, part in zip(names, parts, strict=True):
        whole = int(part.tokens.sum())
        routed, fires = part.routed.sum(0), part.fires.sum(0)
        if whole > tokens:
            share = tokens / whole
            per = stats.space.per_neuron(routed)
            kept = torch.round(routed * share).long()
            drawn = generator.hypergeometric(
                fires.numpy(), (per - fires).numpy(), stats.space.per_neuron(kept).clamp(max=per).numpy()
            )
            routed, fires = kept, torch.from_numpy(drawn)
        by_language[name] = LanguageStats(
            {"tokens": torch.tensor([tokens]), "routed": routed[None], "fires": fires[None]}
        )
    return ActivationStats(stats.space, by_language, stats.manifest)
