"""What every experiment owes: declared tables, a section, pictures with captions, options that round-trip, and words for what is missing."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from lape import record
from lape.cli.tables import section_tables
from lape.errors import OptionError
from lape.experiments import experiments
from lape.experiments.claim import read
from lape.experiments.context import Context, SharedOptions
from lape.experiments.experiment import MODEL, Experiment, NoOptions, taken
from lape.experiments.section import Grid, Picture, Rows
from lape.experiments.table import Table
from lape.figures.write import draw_tables
from lape.options import descriptions
from lape.study.options import joined, study_options
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats
from support.planted import LANGUAGES, planted, planted_texts, planted_tokenizer, sentences

EVERY = list(experiments().values())
each = pytest.mark.parametrize("experiment", EVERY, ids=[one.name for one in EVERY])
SMALL = {
    "tokens": 250,
    "resamples": 50,
    "domain_tokens": 300,
    "sizes": (4, 8),
    "rates": (0.002,),
    "sentences": 40,
    "draws": 1,
    "groups": 8,
    "necessity_tokens": 150,
}
RUN = [one for one in EVERY if one.name not in ("generation", "forcing", "confusion", "eval")]
"""Those that the planted model can run: it answers no questions."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def stats() -> ActivationStats:
    return record(planted(), planted_tokenizer(), planted_texts(1, 80), attribution=200, row_tokens=64)


@pytest.fixture(scope="module")
def context(stats, tmp_path_factory) -> Context:
    folder = tmp_path_factory.mktemp("contract")
    lines = {language: sentences(language, 60, 2) for language in LANGUAGES}
    options = study_options()(**SMALL)
    return Context(planted(), planted_tokenizer(), stats, lines, options, folder / "run")


@pytest.fixture(scope="module")
def results(context) -> dict[str, Any]:
    """Experiment -> its tables, each run when it is first asked for."""
    made: dict[str, Any] = {}

    class Lazily(dict[str, Any]):
        def __missing__(self, name: str) -> Any:
            one = experiments()[name]
            made = self[name] = one.run(context, taken(one.options, context.options))
            return made

    return Lazily(made)


def test_names_are_unique_over_all_experiments():
    for names in (
        [table for one in EVERY for table in one.tables],
        [figure.name for one in EVERY for figure in one.figures],
        [one.title for one in EVERY],
    ):
        assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


@each
def test_a_record_says_what_it_is(experiment):
    assert experiment.about
    assert not experiment.about.endswith(".")
    tables = {name: table for one in EVERY for name, table in one.tables.items()}
    for figure in experiment.figures:
        assert set(figure.needs) <= set(tables)
        assert set(figure.needs) & set(experiment.tables), "a figure is of its own experiment's tables"
    for name, table in experiment.tables.items():
        assert table.about.endswith("."), name
        assert set(table.labels) | set(table.shown) <= set(table.schema), name


@each
def test_options_have_defaults_words_and_round_trip(experiment):
    kind = experiment.options
    assert dataclasses.is_dataclass(kind)
    said = descriptions(kind)
    for field in dataclasses.fields(kind):
        assert said.get(field.name, "").endswith("."), field.name
    value = kind()
    plain = json.loads(json.dumps(dataclasses.asdict(value), default=str))
    assert taken(kind, kind(**_typed(plain))) == value
    lines = [f"{name} = {json.dumps(one)}" for name, one in plain.items() if one is not None]
    assert kind(**_typed(tomllib.loads("\n".join(lines)))) == value


def _typed(plain: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


@each
def test_claims_are_about_its_own_tables(experiment):
    for claim in read(experiment.claims) if experiment.claims else ():
        table = experiment.tables[claim.table]
        assert claim.value in table.schema, claim.name
        assert set(claim.where) <= set(table.schema), claim.name
        assert table.interval(claim.value) or {"low", "high"} <= set(table.schema), claim.name


@pytest.mark.parametrize("experiment", RUN, ids=[one.name for one in RUN])
def test_it_writes_exactly_the_tables_that_it_declares(experiment, results, context):
    assert experiment.missing(context, context.options) is None
    tables = experiment.checked(results[experiment.name])
    for name, frame in tables.items():
        assert len(frame), name


@pytest.mark.parametrize("experiment", RUN, ids=[one.name for one in RUN])
def test_it_has_a_section_that_a_terminal_shows_and_pictures_with_captions(experiment, results, context, tmp_path):
    tables = {**results["layers"], **results[experiment.name]}
    said = experiment.said(results[experiment.name])
    assert said is not None
    assert said.title
    assert said.about.endswith(".")
    assert said.blocks
    for block in said.blocks:
        if isinstance(block, Rows):
            assert {column.name for column in block.table.columns} <= set(block.frame.columns)
        if isinstance(block, Grid):
            assert all(len(view.values) == len(block.rows) for view in block.views.values())
        if isinstance(block, Picture):
            assert block.figure in {figure.name for figure in experiment.figures}
    section_tables(said)
    drawn = draw_tables(experiment.figures, tables, tmp_path)
    possible = {figure.name for figure in experiment.figures if figure.possible(tables)}
    assert set(drawn.files) <= possible
    assert len(drawn.empty) == len(possible - set(drawn.files))  # those whose tables hold no value are named
    for caption in drawn.captions.values():
        assert "n: " in caption or "n (" in caption or "interval" in caption or "bootstrap" in caption


@each
def test_what_is_missing_is_said_with_what_to_type(experiment, stats, tmp_path):
    counts = ActivationStats.from_counts(
        languages=["en", "fr"],
        tokens=[10, 10],
        fires=stats[stats.languages[0]].fires.sum(0).reshape(1, 1, -1).expand(2, -1, -1).clamp(max=10),
    )
    bare = Context(None, None, counts, {}, study_options()(main=None), tmp_path)
    missing = experiment.missing(bare, bare.options)
    if MODEL in experiment.needs:
        assert missing == "it runs a model, and no model was named"
    assert missing is None or not missing.endswith(".")
    typed = experiment.typed("my run")
    assert typed.startswith("lape ")
    assert "{" not in typed
    assert "'my run'" in typed


def test_options_of_one_name_mean_the_same_everywhere():
    @dataclasses.dataclass(frozen=True)
    class Other:
        """An option that another experiment has with another default."""

        sentences: int = 7
        """Sentences."""

    clash = dataclasses.replace(experiments()["layers"], name="clash", options=Other)
    with pytest.raises(OptionError, match="sentences"):
        joined(SharedOptions, [experiments()["similarity"], clash])


def test_tables_of_other_columns_are_refused_by_name():
    table = experiments()["layers"].tables["histogram"]
    frame = LanguageNeurons(_space(), {}).by_layer()
    assert table.check("histogram", frame) is frame
    with pytest.raises(Exception, match=r"lacks neurons.*has unknown other"):
        table.check("histogram", frame.rename({"neurons": "other"}))


def _space() -> Any:
    from lape.values.space import NeuronSpace

    return NeuronSpace.of([(0, None, 4)])


def _mine(context: Context, _options: NoOptions) -> Any:
    return {"mine": context.neurons.by_layer()}


MINE = Experiment(
    name="mine",
    title="Mine",
    about="an experiment of another package",
    options=NoOptions,
    run=_mine,
    tables={"mine": Table("Neurons by layer.", experiments()["layers"].tables["histogram"].schema)},
)


def test_other_packages_add_experiments_by_entry_points(monkeypatch):
    point = EntryPoint("mine", f"{__name__}:MINE", "lape.experiments")
    monkeypatch.setattr("lape.plugins.entry_points", lambda group: [point] if group == "lape.experiments" else [])
    monkeypatch.setattr(EntryPoint, "load", lambda _: MINE)
    experiments.cache_clear()
    try:
        assert experiments()["mine"] is MINE
        assert next(iter(experiments())) == "layers"
    finally:
        monkeypatch.undo()
        experiments.cache_clear()


def test_the_files_of_claims_are_found_beside_their_experiments():
    for one in EVERY:
        assert one.claims is None or (one.claims.is_file() and isinstance(one.claims, Path))
