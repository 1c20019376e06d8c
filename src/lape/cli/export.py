"""`lape export`: edits of language neurons as an adapter or a checkpoint, for engines that know nothing of lape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import polars as pl
from rich.text import Text as Line

from lape.cli.common import out, progress, written
from lape.cli.flags import Out, Several, Switch
from lape.cli.inputs import (
    LOADING,
    Loading,
    load_matching,
    neurons_of,
    placeholders,
    recorded_texts,
    refuse_missing,
    texts_of,
)
from lape.cli.tables import between, titled
from lape.data import samples
from lape.data.texts import Texts
from lape.edit.edit import Edit, Off, Scale
from lape.edit.steer import SHIPPED, steering
from lape.errors import OptionError
from lape.measure.bench import named_sets
from lape.model.heads import heads
from lape.options import Tokens
from lape.progress import Progress
from lape.ship.card import named_heads
from lape.ship.constant import TOKENS
from lape.ship.export import Format, said_in
from lape.ship.export import export as ship
from lape.ship.server import vllm_options
from lape.ship.strength import best, on_samples
from lape.signs import many
from lape.store import files
from lape.store.run import STATS
from lape.values.heads import head_of
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats


def export(
    model: str,
    neurons: Path,
    *,
    to: str | None = None,
    off: Several | None = None,
    scale: Several | None = None,
    head: Several | None = None,
    folder: Out,
    format: Format | None = None,
    strength: float | None = None,
    sets: str = "difference:100",
    text: Several | None = None,
    tokens: Tokens = TOKENS,
    document: Literal["file", "line"] = "file",
    column: str = "text",
    bos: Literal["auto", "always", "never"] = "auto",
    evaluation: Several | None = None,
    languages: str | None = None,
    width: int | None = None,
    overwrite: Switch = False,
    loading: Loading = LOADING,
) -> None:
    """Write the switch: an adapter, or a checkpoint, with which a model writes a language, or does without some, in any engine.

    For answers in the wrong language begin with lape fix: it chooses neurons and strength, and says whether an adapter is worth it.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample; or a run's folder alone, which knows its model.
    neurons
        A run's folder, a file of neurons, or a published .pth.
    to
        The language to write. Its neurons are raised at the gate, which needs text of several languages.
    off
        A language to switch off; may be given several times.
    scale
        TAG=FACTOR, such as fr=1.5: a language whose activations are multiplied; may be given several times.
    head
        LAYER.HEAD=FACTOR, such as 17.2=2: an attention head whose contribution is multiplied; may be given several times.
    folder
        The folder to write.
    format
        lora (peft, vLLM, SGLang), gguf-lora (llama.cpp) or checkpoint (the whole model). Default: lora with --to, else checkpoint.
    strength
        How strong the switch of --to is. Default: chosen on development questions, for languages that have bundled ones; else 1.
    sets
        Which neurons --to raises: lape (those of the run), or difference:N (the N largest differences of mean activation).
    text
        TAG=PATH: text that the constant is fitted to, of several languages. Default: what the run recorded; for sample the bundled text.
    tokens
        How many tokens of it, of each language.
    document
        What a document is in a .txt file: the whole file, or each line. Default: as the run read it.
    column
        The column of a .jsonl, .parquet or Hub data set that holds the text. Default: as the run read it.
    bos
        Begin rows with BOS: where the tokenizer adds one, always, or never. Default: as the run did.
    evaluation
        TAG=PATH: other text, on which costs are measured. Default for sample: the bundled text that the demo evaluates; else none is.
    languages
        For a .pth: its languages in order.
    width
        For a .pth: neurons in a layer.
    overwrite
        Replace an existing folder.
    """
    files.refuse_existing(folder, overwrite)
    refuse_missing(neurons)
    scaled = [_head(one) for one in head or []]
    heads_alone = bool(scaled) and (neurons / STATS).exists()  # which say of what model they are
    needs = off or scale or neurons.is_file() or (to is None and not heads_alone)
    found = neurons_of(neurons, languages, width) if needs else None
    edits: list[Edit] = _edits(found, off or [], scale or []) if found is not None and (off or scale) else []
    about = [
        *(f"without {language}" for language in off or []),
        *(f"with {one}" for one in scale or []),
        *(f"{named_heads([place])} × {factor:g}" for place, factor in scaled),
    ]
    if to is None and not edits and not scaled:
        raise OptionError(
            "No edit was given. Expected --to TAG, --off TAG, --scale TAG=FACTOR, --head LAYER.HEAD=FACTOR, or several of them."
        )
    wanted = to and _Wanted(neurons, to, sets)
    texts = _texts(model, neurons, text, list(wanted.neurons)) if wanted else None
    others = (
        texts_of(evaluation, "--evaluation") if evaluation else samples.texts("evaluate") if model == "sample" else None
    )
    made = wanted.neurons if wanted else found if found is not None else ActivationStats.load(neurons)
    with progress() as report:
        loaded, tokenizer = load_matching(model, loading, report, neurons=made)
        choices = None
        if wanted:
            if strength is None:
                strength, choices = wanted.strength(loaded, tokenizer, report)
            edits += wanted.edits(strength)
            about = [f"writes {wanted.to} (strength {strength:g})", *about]
        reading: dict[str, Any] = {"tokens": tokens, "document": document, "column": column, "bos": bos}
        how: dict[str, Any] = {"evaluation": others, "choices": choices, "about": about, "progress": report}
        kind = format or ("lora" if to else "checkpoint")
        edits += [Scale(heads(loaded, [place]), factor) for place, factor in scaled]
        ship(
            loaded,
            edits,
            folder,
            format=kind,
            tokenizer=tokenizer,
            texts=texts,
            overwrite=overwrite,
            **reading,
            **how,
        )
    _show(folder, about, choices, wanted.to if wanted else None)
    written(folder)
    if kind == "lora" and wanted:
        asked = f"lape confusion {quote(model)} --adapter {quote(str(folder))} --languages {wanted.to}"
        out.print(f"Next: look at its answers: {asked}", soft_wrap=True)


class _Wanted:
    """The language to write: its neurons, and what raises them."""

    def __init__(self, place: Path, to: str, sets: str) -> None:
        self.stats = None
        if place.is_dir() or place.name == "stats.safetensors":
            self.stats = ActivationStats.load(place)
            self.neurons, self.sets = named_sets(self.stats, sets, place if place.is_dir() else None), sets
        else:
            self.neurons, self.sets = LanguageNeurons.load(place), "lape"
        self.to = self.stats.canonical(to) if self.stats else to
        self.edits(1.0)  # refuses before the model is loaded

    def edits(self, strength: float) -> list[Edit]:
        return steering(self.neurons, self.stats, replace(SHIPPED, strength=strength), to=self.to)

    def strength(self, model: Any, tokenizer: Any, report: Progress) -> tuple[float, pl.DataFrame | None]:
        """The strength that suits, and how it was chosen; 1 where there are no questions."""
        if self.stats is None:
            return 1.0, None
        found = on_samples(model, tokenizer, self.stats, self.neurons, to=self.to, sets=self.sets, progress=report)
        return (1.0 if found is None else best(found)), found


def _texts(model: str, place: Path, flags: Sequence[str] | None, languages: Sequence[str]) -> Texts:
    """The text that a constant is fitted to."""
    if flags:
        return texts_of(flags)
    if model == "sample":
        return samples.texts("record", languages=samples.EVERY)
    recorded = recorded_texts(place)
    if not recorded:
        raise OptionError(
            "The run does not say which text was recorded, and --to needs text of several languages, to which a constant is fitted. Type: "
            f"lape export {quote(model)} {quote(str(place))} {placeholders('--text', languages)}"
        )
    return recorded


def _edits(neurons: Any, off: Sequence[str], scale: Sequence[str]) -> list[Any]:
    """The edits that are asked for."""
    edits: list[Any] = [Off(neurons[language]) for language in off]
    for one in scale:
        language, _, factor = one.partition("=")
        try:
            number = float(factor)
        except ValueError as error:
            raise OptionError(
                f"--scale {one} has no factor. Expected TAG=FACTOR, for example --scale fr=1.5."
            ) from error
        edits.append(Scale(neurons[language], number))
    return edits


def _head(one: str) -> tuple[tuple[int, int], float]:
    """An attention head, (layer, head), and its factor."""
    name, _, factor = one.partition("=")
    try:
        return head_of(name), float(factor)
    except ValueError as error:
        raise OptionError(f"--head {one} is not LAYER.HEAD=FACTOR. Expected for example --head 17.2=2.") from error


def _show(folder: Path, about: Sequence[str], choices: pl.DataFrame | None, to: str | None) -> None:
    """What was written, and how near it is to the edit."""
    said = said_in(folder)
    if choices is not None:
        rows = [
            [row["setting"], *(f"{row[share]:.2f}{_ends(row, share)}" for share in ("in_language", "good"))]
            for row in choices.iter_rows(named=True)
        ]
        out.print(titled("Answers to development questions", ["", "in the language", "good"], rows))
    if "largest_difference" in said:
        out.print(
            f"Largest difference of a logit from the edit at run time: {said['largest_difference']:.1e} of their range.",
            soft_wrap=True,
        )
    if "fit" in said and to is not None:
        out.print(_near(said["fit"], to), soft_wrap=True)
    if "cost" in said:
        rows = [
            [row["language"], f"{row['cost']:+.2f}", between(row["low"], row["high"], "+.2f")] for row in said["cost"]
        ]
        out.print(titled("Change of loss on text, nats per token", ["language", "change", "95 % interval"], rows))
    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".safetensors", ".gguf"))
    rank = f", rank {said['rank']}" if "rank" in said else ""
    out.print(Line(f"{said['kind']}, {size / 1000:,.0f} kB{rank}: {', '.join(about)}"))
    if "max_lora_rank" in said:
        out.print(f"vLLM: {vllm_options(said['max_lora_rank'], folder.name, str(folder))}", soft_wrap=True)


def _near(fit: Sequence[Mapping[str, Any]], to: str) -> str:
    """How near the adapter is to the edit at run time, and how far the edit moves other languages."""
    table = pl.DataFrame([*fit])
    mean = [
        ((pl.col(name) * pl.col("positions")).sum() / pl.col("positions").sum()).alias(name) for name in ("kl", "edit")
    ]
    means = {row["language"]: row for row in table.group_by("language").agg(mean).iter_rows(named=True)}
    own = means.pop(to, None)
    far = max(means.values(), key=lambda row: row["edit"], default=None)
    parts = (
        [
            f"KL from the edit at run time {own['kl']:.3f} nats in {to}, where the edit moves the model by {own['edit']:.2f}"
        ]
        if own
        else []
    )
    parts += (
        [f"it moves text in {far['language']} by {far['edit']:.2f}, the most of {many(len(means), 'other language')}"]
        if far
        else []
    )
    return f"{'; '.join(parts)}. README.md has all languages."


def _ends(row: dict[str, Any], share: str) -> str:
    found = between(row[f"{share}_low"], row[f"{share}_high"], ".2f", "–")
    return f" ({found})" if found else ""
