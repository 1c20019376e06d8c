"""The noun of the second half: one question asked of a model, with everything that is said of it, as a record of plain functions."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from lape.experiments.context import Context, Tables
from lape.experiments.section import Block, Picture, Rows, Section
from lape.experiments.table import Table
from lape.figures.figure import Figure
from lape.values.neurons import LanguageNeurons

O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True)
class Cost:
    """What an experiment is going to run, as the plan of `lape study` says.

    Example:
        >>> from pathlib import Path
        >>> from lape.experiments.context import Context, SharedOptions
        >>> from lape.experiments.experiment import Cost
        >>> def cost(context, options):  # of an Experiment that switches each language's set off on every language
        ...     passes = len(context.languages) ** 2
        ...     return Cost(passes=passes, loss_tokens=passes * context.options.tokens)
        >>> cost(Context(None, None, stats, {}, SharedOptions(tokens=1000), Path("kept")), None)
        Cost(passes=16, loss_tokens=16000, body_tokens=0, new_tokens=0)
    """

    passes: int = 0
    """Sets of neurons switched off × languages evaluated."""
    loss_tokens: int = 0
    """Tokens run through the body and the LM head."""
    body_tokens: int = 0
    """Tokens run through the body alone."""
    new_tokens: int = 0
    """Tokens generated one by one, over all prompts of a batch together."""


def free(_context: Context, _options: object) -> Cost:
    """Nothing is run."""
    return Cost()


def matrices(context: Context, sets: int) -> Cost:
    """Cost of `sets` conditions, each a set of every language on every language."""
    passes = sets * len(context.languages) ** 2
    return Cost(passes=passes, loss_tokens=passes * context.options.tokens)


@dataclass(frozen=True)
class Need:
    """Something without which an experiment cannot be run. Beside it are `MODEL`, `PARALLEL` and `SUMS`, and `named` for an
    option that has to be given.

    Example:
        >>> from pathlib import Path
        >>> from lape.experiments.context import Context, SharedOptions
        >>> from lape.experiments.experiment import Need
        >>> ten = Need(lambda context, options: None if len(context.languages) > 9 else "it compares ten languages", "--text TAG=PATH")
        >>> ten.missing(Context(None, None, stats, {}, SharedOptions(), Path("kept")), None)
        'it compares ten languages'
    """

    missing: Callable[[Context, Any], str | None]
    """Why it is not met, or None."""
    flag: str = ""
    """What to type for it, such as "--parallel TAG=PATH"."""


MODEL = Need(
    lambda context, _: None if context.model is not None else "it runs a model, and no model was named", "MODEL"
)
"""It runs the model."""
PARALLEL = Need(lambda context, _: None if context.lines else "there is no parallel text", "--parallel TAG=PATH")
"""It evaluates parallel text."""


def _sums(context: Context, _options: Any) -> str | None:
    known = all("sum" in context.stats[language].tensors for language in context.languages)
    return None if known else "the statistics were made from counts alone; record the model: lape record"


SUMS = Need(_sums)
"""It reads mean activations."""


def named(option: str, why: str, flag: str) -> Need:
    """An option that has to be given: without it, `why` is said."""
    return Need(lambda _context, options: None if getattr(options, option) else why, flag)


@dataclass(frozen=True)
class NoOptions:
    """An experiment that has none of its own."""


@dataclass(frozen=True)
class Experiment(Generic[O]):
    """One experiment: what it asks, measures, writes, draws, says and claims. No base class, and nothing happens when one is made.

    Example:
        >>> import polars as pl
        >>> from pathlib import Path
        >>> from lape.experiments.context import Context, SharedOptions
        >>> from lape.experiments.experiment import Experiment, NoOptions
        >>> from lape.experiments.table import Table
        >>> def run(context, options):
        ...     sizes = [len(context.neurons[language]) for language in context.languages]
        ...     return {"sizes": pl.DataFrame({"language": context.languages, "neurons": sizes})}
        >>> schema = {"language": pl.String, "neurons": pl.Int64}
        >>> tables = {"sizes": Table("Neurons of each language.", schema)}
        >>> mine = Experiment("sizes", "Set sizes", "how many neurons a language has", NoOptions, run, tables)

        What `lape run` and a study do with it:

        >>> context = Context(None, None, stats, {}, SharedOptions(), Path("kept"))
        >>> mine.missing(context, SharedOptions()), mine.cost(context, NoOptions()).passes
        (None, 0)
        >>> found = mine.checked(mine.run(context, NoOptions()))
        >>> found["sizes"]["neurons"].to_list()
        [8, 8, 8, 8]
        >>> mine.said(found).about, mine.typed("runs/mine")
        ('How many neurons a language has.', 'lape run sizes runs/mine')
    """

    name: str
    """Also what `lape run` calls it, and its place in a report."""
    title: str
    """A heading."""
    about: str
    """One sentence without a point: for --help, the plan and the documentation."""
    options: type[O]
    """Its own, beside `SharedOptions`. A name that another experiment has too means the same there."""
    run: Callable[[Context, O], Tables]
    """What it measures: tables by name, exactly those of `tables`."""
    tables: Mapping[str, Table]
    """Name -> schema. Names are unique over all experiments."""
    needs: tuple[Need, ...] = ()
    """Without which it is not run but listed with the reason."""
    cost: Callable[[Context, O], Cost] = free
    """What it is going to run. Default: nothing."""
    figures: tuple[Figure, ...] = ()
    """What is drawn of its tables: see `lape.figures.figure`."""
    section: Callable[[Tables], Section] | None = None
    """What a report says. Default: every figure and table."""
    claims: Path | None = None
    """A TOML file: see `lape.experiments.claim`."""
    study: Literal["always", "full", "asked"] = "full"
    """Whether `lape study` runs it always, not when --quick, or when it is named in --parts alone."""
    command: str = ""
    """What makes its tables, where that is not `lape run NAME`; {run} stands for the run's folder."""
    reads: Callable[[O], Mapping[str, Path]] | None = None
    """Files named by its options: what was measured belongs to their content."""
    of_neurons: Callable[[LanguageNeurons], Tables] | None = None
    """Those of its tables that a file of neurons is enough for."""

    def missing(self, context: Context, options: object) -> str | None:
        """Why it cannot be run, or None. `options`: its own, or those of a whole run, which hold its own among others."""
        mine = taken(self.options, options)
        return next((why for need in self.needs if (why := need.missing(context, mine))), None)

    def typed(self, run: str, table: str = "") -> str:
        """Return the command that makes its tables, or one of them, in a run's folder, which knows its model."""
        flags = "".join(f" {need.flag}" for need in self.needs if need.flag.startswith("-"))
        own = (self.tables[table].command if table else "") or self.command
        return (own or f"lape run {self.name} {{run}}{flags}").replace("{run}", shlex.quote(run))

    def checked(self, tables: Tables) -> Tables:
        """What it gave, if that is exactly what it declares. Raises ValueError for other tables, FileError for other columns or dtypes."""
        expected = [name for name, table in self.tables.items() if name in tables or not table.optional]
        if sorted(expected) != sorted(tables):
            raise ValueError(f"{self.name} gave the tables {', '.join(tables)}, and declares {', '.join(expected)}.")
        return {name: self.tables[name].check(name, frame) for name, frame in tables.items()}

    def said(self, tables: Tables) -> Section | None:
        """What a report says where some of its tables are there, with what it draws from those of others; else None."""
        there = {name: frame for name, frame in tables.items() if len(frame)}
        if not any(name in self.tables for name in there):
            return None
        return self.section(there) if self.section is not None else default_section(self, there)


def default_section(
    experiment: Experiment[Any],
    tables: Tables,
    about: str = "",
    findings: tuple[str, ...] = (),
    *,
    before: tuple[Block, ...] = (),
    after: tuple[Block, ...] = (),
) -> Section:
    """Every figure that can be drawn, and every table, behind a line to click; blocks of its own `before` and `after` them."""
    pictures = [Picture(figure.name) for figure in experiment.figures if figure.possible(tables)]
    rows = [Rows(name, table, tables[name]) for name, table in experiment.tables.items() if name in tables]
    said = about or f"{experiment.about[0].upper()}{experiment.about[1:]}."
    return Section(experiment.title, said, findings, (*before, *pictures, *rows, *after))


def taken(kind: type[O], options: object) -> O:
    """An experiment's own options out of those of a whole run."""
    return kind(**{one.name: getattr(options, one.name) for one in fields(kind) if hasattr(options, one.name)})  # type: ignore[arg-type]
