"""What is public: the pages of docs/reference and the names on each."""

from __future__ import annotations

TOP = "lape"
DETECTORS = "lape.detect._OURS"
EXPERIMENTS = "lape.experiments.NAMES"

# Every other page: its title, what it is, and its names. A module stands for all that is public in it; options have a page to themselves.
PAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "detect": (
        "Selection methods",
        "Each is a function from statistics to `LanguageNeurons`; which to take is in [choosing](../choosing.md), and how to add one in "
        "[the architecture](../architecture.md#a-detector).",
        (
            DETECTORS,
            "lape.detect.lape.entropy",
            "lape.detect.DETECTORS",
            "lape.detect.detector",
            "lape.detect.stability.reliability",
            "lape.detect.stability.stability",
            "lape.detect.stability.split_halves",
            "lape.detect.stability.steadiness",
            "lape.detect.stability.chance_jaccard",
        ),
    ),
    "experiments": (
        "The experiments",
        "Each asks one question of a model: `lape run NAME` on the command line, `lape study` for all. How to add one is in "
        "[the architecture](../architecture.md#an-experiment).",
        (
            EXPERIMENTS,
            "lape.experiments.perplexity.run.summary",
            "lape.experiments.similarity.run.dominance",
            "lape.experiments.similarity.run.pairs",
            "lape.experiments.confusion.run.scored",
            "lape.experiments.confusion.run.scored_log",
            "lape.experiments.confusion.run.served_confusion",
            "lape.experiments.confusion.cure.cure",
            "lape.experiments.confusion.prompts.Prompt",
            "lape.experiments.confusion.prompts.default_prompts",
            "lape.experiments.confusion.prompts.read_prompts",
            "lape.experiments.confusion.answers.read_answers",
            "lape.experiments.confusion.answers.read_log",
            "lape.experiments.experiments",
            "lape.experiments.experiment.Experiment",
            "lape.experiments.experiment.Need",
            "lape.experiments.experiment.Cost",
            "lape.experiments.context",
            "lape.experiments.table.Table",
            "lape.experiments.section.Section",
            "lape.experiments.claim.Claim",
        ),
    ),
    "values": (
        "Values",
        "What is kept, beside `ActivationStats` and `LanguageNeurons`. None of it needs a model.",
        (
            "lape.values.neurons.NeuronSet",
            "lape.values.neurons.jaccard",
            "lape.values.stats.LanguageStats",
            "lape.values.stats.merge",
            "lape.values.space",
            "lape.values.quantity.Quantity",
            "lape.values.experts.measure_expert_use",
        ),
    ),
    "edit": (
        "Editing and steering",
        "Beside `edited` and `steer` at top level; in practice: [steering](../steering.md).",
        (
            "lape.edit.steer.PUBLISHED",
            "lape.edit.steer.steering",
            "lape.edit.steer.steered",
            "lape.edit.diffmean.vector",
            "lape.edit.diffmean.shifted",
            "lape.model.heads.heads",
            "lape.model.heads.find_heads",
            "lape.measure.mask.VocabularyMask",
        ),
    ),
    "measure": (
        "Measuring",
        "What experiments share: losses, controls, resampling and intervals.",
        (
            "lape.measure.ablation.Ablations",
            "lape.measure.effects",
            "lape.measure.frontier.frontier",
            "lape.measure.controls.Control",
            "lape.measure.controls.control",
            "lape.measure.controls.random_like",
            "lape.measure.controls.matched_like",
            "lape.measure.controls.energy_ratio",
            "lape.measure.controlled.controlled",
            "lape.measure.bootstrap.units",
            "lape.measure.bootstrap.Resamples",
            "lape.measure.intervals.selectivity",
            "lape.measure.intervals.over_languages",
            "lape.measure.intervals.p_at",
            "lape.measure.correlation.rank_correlation",
            "lape.measure.seeds.compare_seeds",
            "lape.measure.generation.generate",
            "lape.measure.heads",
            "lape.measure.language_confusion.language_confusion",
            "lape.measure.language_confusion.english_words",
            "lape.measure.language_confusion.Judge",
            "lape.measure.answer_failures.Failures",
            "lape.measure.answer_failures.without_thought",
        ),
    ),
    "model": (
        "Models and text",
        "Beside `load` and `record` at top level; in practice: [your model](../howto-model.md), [your text](../howto-text.md).",
        (
            "lape.model.load.load_tokenizer",
            "lape.model.find.find",
            "lape.model.site.Branch",
            "lape.model.site.Site",
            "lape.model.site.Sites",
            "lape.model.site.SiteNames",
            "lape.model.identity.describe",
            "lape.model.identity.checksum",
            "lape.recording.weight_change.weight_changes",
            "lape.recording.observers.observer.Observer",
            "lape.recording.observers.observer.Watcher",
            "lape.recording.observers.observer.Setting",
            "lape.data.texts.Documents",
            "lape.data.languages.tag",
            "lape.data.languages.script",
            "lape.data.samples",
        ),
    ),
    "publish": (
        "Publishing and fetching",
        "Beside the methods of `LanguageNeurons` and `ActivationStats`; in practice: [publishing](../howto-publish.md).",
        ("lape.ship.hub.write", "lape.ship.hub.push", "lape.ship.hub.fetch"),
    ),
    "files": (
        "Runs, errors and progress",
        "What every step leaves behind and says.",
        (
            "lape.store.run.Run",
            "lape.reporting.figures.draw",
            *(f"lape.errors.{name}Error" for name in ("Text", "Model", "File", "Mismatch", "Option")),
            "lape.errors.LapeWarning",
            "lape.progress.Progress",
            "lape.progress.silent",
        ),
    ),
}
OPTIONS = (
    "Options",
    "Options are frozen dataclasses beside the functions that take them, kept in run.json where a verb was given them. Their fields are keywords "
    "of those functions and flags of the command line.",
)
