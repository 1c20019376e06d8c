"""`lape examples`: the text each neuron fires on, the tokens it writes, and what switching one off costs."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

from lape.cli.common import beside, out, progress, provenance, say_passes
from lape.cli.flags import FLAGS, Out, Several, Switch
from lape.cli.inputs import LOADING, Loading, evaluation_texts, load_matching, neurons_of
from lape.cli.tables import titled
from lape.data.texts import listed
from lape.detect.lape import entropy
from lape.experiments.examples.contexts import ExamplesOptions
from lape.experiments.examples.run import examples as look_up
from lape.measure.result import Result
from lape.model.identity import describe
from lape.signs import many
from lape.store.draft import Draft
from lape.values.stats import ActivationStats

_EXAMPLES = ExamplesOptions()
BUNDLED = "the bundled texts for evaluation"
TABLES = ("contexts", "words", "effects")


def examples(
    model: str,
    run: Path,
    *,
    text: Several | None = None,
    to: Out | None = None,
    languages: str | None = None,
    width: int | None = None,
    overwrite: Switch = False,
    options: Annotated[ExamplesOptions, FLAGS] = _EXAMPLES,
    loading: Loading = LOADING,
) -> None:
    """Look up what single neurons do: the text they fire on most, the tokens they promote and suppress, and the effect of switching one off.

    One pass over the text with bounded memory, then a pass for each neuron that is switched off. A run that was stopped goes
    on when the same command is given again.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample; or a run's folder alone, which knows its model.
    run
        A run's folder, a file of neurons, or a published .pth.
    text
        TAG=PATH, once or more: text that was not recorded. Default: what was measured on before; for sample, the bundled texts.
    to
        The folder to write. Default: examples beside the neurons.
    languages
        For a .pth: its languages in order.
    width
        For a .pth: neurons in a layer.
    overwrite
        Replace an existing folder.
    """
    draft = Draft(to or beside(run, "examples"), overwrite)
    neurons = neurons_of(run, languages, width)
    texts = evaluation_texts(model, text, run, "examples", [*neurons])
    entropy = _entropy(run, neurons)
    with draft.cells() as cells, progress() as report:
        loaded, tokenizer = load_matching(model, loading, report, neurons=neurons)
        described = describe(loaded, tokenizer)
        found = look_up(
            loaded, tokenizer, neurons, texts, options,
            entropy=entropy, folder=cells, described=described, planned=say_passes("one neuron"), progress=report,
        )  # fmt: skip
        sources = {language: paths or BUNDLED for language, paths in listed(texts).items()}
        record = provenance("examples", neurons, options=options, sources=sources, **described)
        _save(draft, found, neurons, record)
    _tell(found, draft.target, run)


def _entropy(run: Path, neurons: Any) -> Any:
    """Of every neuron, by the statistics in the run's folder; None where there are none."""
    if not run.is_dir() or not (run / "stats.safetensors").is_file():
        return None
    stats = ActivationStats.load(run)
    if stats.space != neurons.space or len(stats.languages) < 2:
        return None
    return entropy(stats.probabilities(neurons.options.get("denominator", "tokens")))


def _save(draft: Any, found: Result, neurons: Any, record: dict[str, Any]) -> None:
    read = {row.pop("language"): row for row in found["texts"].to_dicts()}
    record |= {"texts": read, "left_out": list(found.notes)}
    about = {
        "languages": {language: len(one) for language, one in neurons.items()},
        "neurons": len(neurons.union),
        "firing": found["contexts"]["flat"].n_unique(),
        "contexts": len(found["contexts"]),
        "not_done": list(NOT_DONE),
    }
    draft.write({name: found[name] for name in TABLES}, run=record, about=record | about)
    draft.finish()


NOT_DONE = (
    "words: no normalisation is applied, neither before nor after the down projection, nor before the LM head",
    "words: in a gated MLP the activation is multiplied by the up branch; where that is negative, promoted and suppressed tokens change places",
    "words: special and unused tokens are left out",
)
"""What the tables do not say, for who reads them."""


def _tell(found: Result, target: Path, run: Path) -> None:
    """What was found, and what comes next."""
    firing, total = found["contexts"]["flat"].n_unique(), len(found["contexts"])
    out.print(f"{many(total, 'max-activating example')} of {many(firing, 'neuron')}.")
    if len(found["effects"]):
        out.print(effects_table(found["effects"]))
    for note in found.notes:
        out.print(f"Left out: {note}")
    folder = run if run.is_dir() else run.parent
    shown = folder if target.parent == folder else target  # a report shows what lies in its folder
    out.print(f"Written: {target}\nNext: lape report {quote(str(shown))}", soft_wrap=True)


def effects_table(effects: Any) -> Any:
    """Per language the mean effect of single neurons and of their controls, and how many have an interval above 0."""
    rows = []
    for language in effects["language"].unique(maintain_order=True):
        by_kind = {k: effects.filter(language=language, kind=k) for k in ("own", "control")}
        row = [language, str(len(by_kind["own"]))]
        for part in by_kind.values():
            row += [f"{part['delta'].mean():.4f}", f"{part['delta'].max():.4f}"] if len(part) else ["", ""]
            known = part["low"].drop_nulls()
            row.append(f"{int((known > 0).sum())} of {len(known)}" if len(known) else "")
        rows.append(row)
    columns = ["", "neurons", "own", "largest", "above 0", "control", "largest", "above 0"]
    caption = (
        "Change of loss on the language's own text with one neuron off, in nats per token: mean over neurons, and the largest. control: neurons of the same "
        "layer near in written energy. above 0: how many of the neurons with a 95 % interval have it entirely above 0."
    )
    return titled("One neuron off", columns, rows, caption)
