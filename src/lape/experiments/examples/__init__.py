"""What single neurons do: the text they fire on (max-activating examples), the tokens they write, and what switching one off costs."""

from __future__ import annotations

from lape.detect.lape import entropy
from lape.experiments.context import Context, Tables
from lape.experiments.examples.contexts import CONTEXTS, ExamplesOptions
from lape.experiments.examples.effects import EFFECTS
from lape.experiments.examples.run import examples
from lape.experiments.examples.words import WORDS
from lape.experiments.experiment import MODEL, PARALLEL, Experiment, NoOptions, default_section
from lape.experiments.section import Section
from lape.experiments.table import Table

__all__ = ["EXPERIMENT", "examples"]


def _run(context: Context, _options: NoOptions) -> Tables:
    shared = context.options
    found = examples(
        context.model,
        context.tokenizer,
        context.neurons,
        context.evaluation[1],
        options=ExamplesOptions(batch_tokens=shared.batch_tokens, resamples=shared.resamples, seed=shared.seed),
        entropy=entropy(context.stats.probabilities(context.neurons.options.get("denominator", "tokens"))),
        folder=context.cells("examples"),
        progress=context.progress,
    )
    context.note("examples", *found.notes)
    return {name: found[name] for name in EXPERIMENT.tables}


def _section(tables: Tables) -> Section:
    shown = {name: frame for name, frame in tables.items() if name == "effects"}
    about = "The change of loss with single neurons off; the text that each fires on and the tokens that it promotes are shown with the neuron below."
    return default_section(EXPERIMENT, shown, about)


EXPERIMENT = Experiment(
    name="examples",
    title="Single neurons",
    about="what single neurons fire on and promote, and the change of loss with each off",
    options=NoOptions,
    run=_run,
    tables={
        "contexts": Table(
            "Contexts in which each neuron's activation is largest.", CONTEXTS, file="examples/contexts.parquet"
        ),
        "words": Table("The tokens that each neuron promotes and suppresses.", WORDS, file="examples/words.parquet"),
        "effects": Table(
            "Change of loss with one neuron off, beside that of single control neurons, nats per token.",
            EFFECTS,
            file="examples/effects.parquet",
        ),
    },
    needs=(MODEL, PARALLEL),
    section=_section,
    study="asked",
    command="lape examples {run} --text TAG=PATH",
)
