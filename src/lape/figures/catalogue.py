"""Every figure there is: the tables it needs, how it is drawn, what its caption says, and what makes its tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lape.figures import captions as say
from lape.figures import dots, heat, layers, lines
from lape.figures.dots import dots as dotted
from lape.figures.style import Figure, Paper, Tables

IDENTIFY = "lape identify {run}"
PERPLEXITY = "lape perplexity {model} {run} --text TAG=PATH"
FORCE = "lape force {model} --run {run}"
STUDY = "lape study {model} --text TAG=PATH --parallel TAG=PATH --out STUDY"
_QUESTIONS = "95 % percentile bootstrap over questions, resampled jointly over languages and conditions{resamples}."
_GROUPS = "95 % percentile bootstrap over groups of neurons{resamples}."


class Kind(NamedTuple):
    """A kind of figure."""

    title: str
    needs: tuple[str, ...]
    """Tables."""
    draw: Callable[[Tables, Paper], Figure]
    caption: say.Caption
    part: str
    """The part of a study that makes the tables."""
    command: str = STUDY
    """What makes them outside a study."""


FIGURES: dict[str, Kind] = {
    "layers": Kind("Language neurons by layer", ("histogram",), layers.layers, say.layers, "layers", IDENTIFY),
    "overlap": Kind("Overlap of sets", ("overlap", "histogram"), heat.overlap, say.overlap, "overlap", IDENTIFY),
    "reliability": Kind(
        "Reliability", ("reliability",), dots.reliability, say.reliability, "amount", IDENTIFY + " --overwrite"
    ),
    "perplexity": Kind(
        "Change of loss with neurons off", ("perplexity",), heat.perplexity, say.perplexity, "perplexity", PERPLEXITY
    ),
    "own": Kind("Own effect beside controls", ("perplexity",), dots.own, say.own, "perplexity", PERPLEXITY),
    "forcing": Kind("Ways of forcing a language", ("forcing",), dots.forcing, say.forcing, "steering", FORCE),
    "steering": Kind(
        "Neurons beside other ways of forcing",
        ("forcing_differences",),
        dotted(
            "forcing_differences",
            ["family"],
            "difference",
            "good answers, neurons − family (over the ceiling)",
            0.0,
            measure="good_over_ceiling",
        ),
        say.steering,
        "steering",
        FORCE,
    ),
    "costs": Kind("Cost of forcing", ("costs",), dots.costs, say.costs, "steering", FORCE),
    "frontier": Kind(
        "Ways of choosing: others against own",
        ("frontier",),
        lines.frontier,
        say.sentences(
            "frontier",
            "Ways of choosing at several sizes of set (points of a line): mean change of the other languages' loss against that of the language "
            "whose neurons are off, nats a token, means over languages; lower at equal own is better.",
        ),
        "frontier",
    ),
    "sweep": Kind(
        "More neurons, more effect",
        ("sweep",),
        lines.sweep,
        say.sentences(
            "sweep",
            "Change of loss (nats a token, means over languages) at several shares of all neurons kept by LAPE.",
        ),
        "sweep",
    ),
    "retrieval": Kind(
        "Translations found across layers",
        ("dominance",),
        lines.by_layer("p_at_1", "P@1 of the translation", "p_at_1_chance"),
        say.plain(
            "dominance",
            "Share of sentences to which their own translation is nearer than any other sentence, by layer; dotted: chance.",
        ),
        "similarity",
    ),
    "dominance": Kind(
        "Dominance across layers",
        ("dominance",),
        lines.by_layer("difference", "dominance, matched − mismatched"),
        say.plain(
            "dominance", "How strongly each language's direction dominates each layer: cosine matched less mismatched."
        ),
        "similarity",
    ),
    "amount": Kind(
        "How much text sets need",
        ("amount",),
        lines.amount,
        say.plain(
            "amount",
            "Median Jaccard of the sets found in two halves of the text, by the tokens a language in each; sets of 20 neurons or more.",
        ),
        "amount",
    ),
    "generation": Kind(
        "Answers with neurons off",
        ("generation",),
        heat.generation,
        say.counted(
            "generation",
            "Share of good answers (a proxy) with a language's neurons off (row), asked in each language (column).",
            "questions",
            "questions",
            "Shares, drawn without intervals.",
        ),
        "generation",
    ),
    "drops": Kind(
        "Good answers lost, beside control neurons",
        ("drops",),
        dotted("drops", ["language"], "value", "good answers lost − lost to matched neurons", 0.0),
        say.counted(
            "drops",
            "Share of good answers (a proxy) lost with a language's own neurons off, less that lost with matched control neurons off.",
            "questions",
            "questions",
            _QUESTIONS,
        ),
        "generation",
    ),
    "resource": Kind(
        "Effect against bits a sentence",
        ("resource",),
        lines.resource,
        say.plain("resource", "Own effect against bits, both for a parallel sentence; descriptive."),
        "resource",
    ),
    "domain": Kind(
        "Sets and the kind of text",
        ("domain",),
        dotted("domain", ["language"], "difference", "Jaccard within a domain − across", 0.0),
        say.counted(
            "domain",
            "Jaccard of sets from two texts of one domain less that across domains, at equal tokens.",
            "draws",
            "draws of folds",
            "Lines: 2.5th to 97.5th percentile over the draws.",
        ),
        "domain",
    ),
    "null": Kind(
        "Entropies beside slices of one language",
        ("null",),
        dotted("null", ["language"], "share_below", "share below the null's 1st percentile", 0.9),
        say.counted(
            "null",
            "Share of chosen neurons whose entropy lies below the 1st percentile of that in slices of one language; dotted: nine in ten.",
            "neurons",
            "neurons",
            "Wilson's 95 % interval over neurons.",
        ),
        "null",
    ),
    "patching": Kind(
        "Neurons set to their mean elsewhere",
        ("patching",),
        dotted("patching", ["language"], "patched_own", "own effect, patched (nats a token)", 0.0),
        say.sentences(
            "patching", "Change of a language's own loss with its neurons set to their mean over the other languages."
        ),
        "patching",
    ),
    "necessity": Kind(
        "What tells the damage of single neurons",
        ("correlations",),
        dotted("correlations", ["predictor", "size"], "rho", "rank correlation with the damage", 0.0, among="sample"),
        say.counted(
            "correlations",
            "Rank correlation of the damage of switching groups of neurons off with what is known of them beforehand.",
            "groups",
            "groups",
            _GROUPS,
        ),
        "necessity",
    ),
    "predictions": Kind(
        "Damage predicted",
        ("predictions",),
        dotted(
            "predictions",
            ["estimate", "passes", "size"],
            "r2",
            "variance explained in unseen text",
            0.0,
            least=-1.0,
            text="unseen",
        ),
        say.counted(
            "predictions",
            "Share of the variance of the damage that an estimate explains in unseen text (below 0: worse than the mean; arrow: below −1), with the "
            "passes spent on its scale.",
            "groups",
            "groups",
            _GROUPS,
        ),
        "necessity",
    ),
    "scripts": Kind(
        "Script or language",
        ("scripts",),
        dotted("scripts", ["language", "kind"], "kept", "share of the native damage that is kept", 0.5),
        say.sentences(
            "scripts",
            "Damage by the neurons of native writing on the same sentences written otherwise, over that on native writing.",
        ),
        "scripts",
    ),
}
"""By name."""
