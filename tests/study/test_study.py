"""A study of the planted model: what is planted is found and judged, runs go on and repeat themselves to the last digit."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lape import identify, perplexity, record
from lape.cli import run as cli
from lape.data.parallel import spread
from lape.errors import FileError, LapeError, LapeWarning, MismatchError, OptionError, TextError
from lape.experiments import experiments
from lape.experiments.claim import parsed
from lape.experiments.context import Context
from lape.experiments.experiment import taken
from lape.experiments.forcing import read_forcing
from lape.experiments.frontier import FrontierStudy, compared, left_out, selected
from lape.experiments.perplexity.run import PerplexityOptions
from lape.store.draft import Draft
from lape.study.claims import standing
from lape.study.options import study_options
from lape.study.run import chosen_parts, plan, run, save
from support.planted import LANGUAGES, neurons_of, planted, planted_texts, planted_tokenizer, sentences

CLAIMS = parsed(standing(), "the standing claims")
CLAIMS_OF_LAYERS = [one for one in CLAIMS if one.name in ("bottom layers", "top layers")]
StudyOptions = study_options()
SMALL = StudyOptions(
    tokens=250,
    domain_tokens=300,
    sizes=(4, 8),
    rates=(0.002,),
    sentences=40,
    resamples=100,
    draws=3,
    groups=8,
    necessity_tokens=150,
)
LEFT = ("generation", "forcing", "confusion")
"""Not run here: the planted model answers no questions."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def stats():
    return record(planted(), planted_tokenizer(), planted_texts(1, 80), attribution=200, row_tokens=64)


def study_of(stats: Any, folder: Path, options: Any = SMALL, **changes: Any) -> Context:
    lines = {language: sentences(language, 60, 2) for language in LANGUAGES}
    return Context(planted(), planted_tokenizer(), stats, lines, options, folder, **changes)


def parts_of(*names: str) -> list[Any]:
    wanted = names or [one.name for one in experiments().values() if one.study != "asked" and one.name not in LEFT]
    return chosen_parts(wanted, False)


@pytest.fixture(scope="module")
def whole(stats, tmp_path_factory):
    """Everything that can be run here, saved."""
    target = tmp_path_factory.mktemp("study") / "whole"
    study = study_of(stats, target.with_name("whole.partial"))
    found = run(study, CLAIMS, parts_of())
    save(study, found, standing(), {"versions": {"lape": "0"}, "verb": "study"}, Draft(target))
    return study, found, target


def verdicts(found: Any) -> dict[str, str]:
    return {one.claim.name: one.verdict for one in found.judged}


def test_what_was_planted_is_confirmed_and_what_was_not_is_not(whole):
    said = verdicts(whole[1])
    for name in ("own", "own loss alone"):
        assert said[name].startswith("holds"), name
    assert said["main language"] != "holds", "English has neurons of its own here, as many as the others"
    assert said["LAPE above variation"] == "not run"
    members = {one.claim.name: one for one in whole[1].judged}["LAPE above LAP"].members
    assert set(members["member"]) == {*LANGUAGES} - {"en"}


def test_every_committed_claim_is_judged_or_says_why_not(whole):
    for one in whole[1].judged:
        assert one.why or one.verdict != "not run", one.claim.name
        assert not (one.why and one.verdict in ("holds", "does not hold")), one.claim.name
        if one.verdict != "not run":
            assert len(one.members)


def test_the_parts_give_the_tables_they_name(whole):
    for part in parts_of():
        assert {name for name, one in part.tables.items() if not one.optional} <= set(whole[1].tables), part.name


def test_the_matrix_is_that_of_perplexity_itself(whole, stats):
    study, found, _ = whole
    texts = study.evaluation[1]
    options = PerplexityOptions(draws=SMALL.draws, resamples=SMALL.resamples, seed=SMALL.seed)
    table = perplexity(planted(), planted_tokenizer(), identify(stats, reliability=False), texts, **vars(options))
    mine = found.tables["perplexity"]
    both = mine.select("off", "language", "delta_token").join(table, on=["off", "language"], suffix="_direct")
    assert both.height == len(LANGUAGES) ** 2
    assert both["delta_token"].to_list() == pytest.approx(both["delta_token_direct"].to_list(), abs=1e-6)


def test_a_second_run_gives_the_same_bytes(whole, stats, tmp_path):
    study = study_of(stats, tmp_path / "again.partial")
    found = run(study, CLAIMS, parts_of())
    save(study, found, standing(), {"versions": {"lape": "0"}, "verb": "study"}, Draft(tmp_path / "again"))
    first, second = whole[2], tmp_path / "again"
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(second)) for path in second.rglob("*") if path.is_file())
    assert len(names) > 40
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_a_run_that_was_stopped_goes_on_and_ends_the_same(whole, stats, tmp_path, monkeypatch):
    folder = tmp_path / "stopped.partial"
    some = parts_of("layers", "perplexity", "frontier", "sweep")
    study = study_of(stats, folder)
    calls = _counted(monkeypatch)

    def stop(task: str, done: int, _total: int | None) -> None:
        if task == "switching neurons off" and done == 60:
            raise KeyboardInterrupt

    study.progress = stop
    with pytest.raises(KeyboardInterrupt):
        run(study, CLAIMS, some)
    before = len(calls)
    assert before > 10
    again = run(study_of(stats, folder), CLAIMS, some)
    resumed = len(calls) - before
    for name in ("perplexity", "frontier", "advantages", "sweep", "sweep_growth"):
        assert again.tables[name].equals(whole[1].tables[name]), name
    unbroken, finished = study_of(stats, tmp_path / "fresh.partial"), study_of(stats, folder)
    fresh = run(unbroken, CLAIMS, some)
    run(finished, CLAIMS, some)
    assert finished.notes == unbroken.notes
    assert again.tables["frontier"].equals(fresh.tables["frontier"])
    assert before + resumed <= len(calls) - before - resumed + 1, "what was measured is not measured again"


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one at every pass over a language's text."""
    from lape.experiments.perplexity import run as perplexity
    from lape.measure import ablation

    calls: list[int] = []
    for module in (ablation, perplexity):
        if hasattr(module, "line_loss"):
            real = module.line_loss
            monkeypatch.setattr(module, "line_loss", lambda *a, real=real, **k: (calls.append(1), real(*a, **k))[1])
    return calls


def test_the_plan_tells_how_many_passes_there_will_be(stats, tmp_path, monkeypatch):
    some = parts_of("perplexity", "frontier", "sweep")
    study = study_of(stats, tmp_path / "planned.partial")
    planned = int(plan(study, some)["passes"].sum())
    calls = _counted(monkeypatch)
    run(study, CLAIMS, some)
    assert 0.4 * planned <= len(calls) <= planned, "sets that coincide are measured once, and here many do"


def test_the_plan_is_announced_before_anything_is_run(stats, tmp_path):
    seen: list[Any] = []
    study = study_of(stats, tmp_path / "told.partial")
    study.progress = lambda task, *_: seen.append(task)
    run(study, CLAIMS, parts_of("layers", "perplexity"), announce=seen.append)
    plans = [k for k, one in enumerate(seen) if isinstance(one, pl.DataFrame)]
    assert plans == [0]


def test_another_study_s_folder_is_refused(stats, tmp_path):
    folder = tmp_path / "other.partial"
    run(study_of(stats, folder), CLAIMS, parts_of("layers"))
    other = StudyOptions(**{**vars(SMALL), "seed": 1})
    with pytest.raises(LapeError, match=r"other\.partial"):
        run(study_of(stats, folder, other), CLAIMS, parts_of("layers"))


def test_what_the_statistics_do_not_hold_is_left_out_or_refused_where_it_was_asked_for(stats, tmp_path):
    study = study_of(stats, tmp_path / "x.partial")
    out = left_out(study, taken(FrontierStudy, SMALL))
    assert set(out) == {"variation"}
    assert "--tuned" in out["variation"]
    asked = StudyOptions(**{**vars(SMALL), "methods": ("lape", "variation")})
    with pytest.raises(OptionError, match="--tuned"):
        compared(study_of(stats, tmp_path / "x.partial", asked), taken(FrontierStudy, asked))
    group = taken(FrontierStudy, StudyOptions(**{**vars(SMALL), "methods": ("published", "difference", "lape")}))
    assert compared(study, group) == ["lape", "lap", "lave", "random", "difference"], "of a group, what can be"


def test_sizes_are_those_of_the_published_sets_and_span_the_levels_unless_they_are_given(stats, tmp_path):
    study, usual = study_of(stats, tmp_path / "x.partial"), FrontierStudy(methods=("lape", "random"))
    mean = sum(len(study.neurons[language]) for language in LANGUAGES) / len(LANGUAGES)
    begun = [max(1, round(mean / 2)), round(mean)]
    assert usual.sizes_of("lape", study) == begun
    assert usual.sizes_of("random", study) == [round(mean)]
    assert FrontierStudy(sizes=(8, 3)).sizes_of("lape", study) == [3, 8]
    table = experiments()["frontier"].run(study, usual)["frontier"]
    assert table.filter(method="random")["size"].unique().to_list() == [round(mean)]
    sizes = table.filter(method="lape")["size"].unique().sort().to_list()
    assert {*begun} < {*sizes}
    whole = {row["language"]: row["own"] for row in table.filter(method="lape, published").iter_rows(named=True)}

    def shares(size):
        rows = table.filter(method="lape", size=size).iter_rows(named=True)
        return [row["own"] / whole[row["language"]] for row in rows if row["language"] in study.over]

    assert max(shares(sizes[0])) <= 0.25 or sizes[0] in (1, begun[0] // 32)
    assert min(shares(sizes[-1])) >= 1 or sizes[-1] == 8 * begun[1]
    for size in sizes[1:-1]:
        assert max(shares(size)) > 0.25 or size >= begun[0], "none below the levels but the last"
    cost = experiments()["frontier"].cost(study, usual)
    assert cost.passes == len(LANGUAGES) ** 2 * (1 + 10 + 1)


def test_sets_of_a_size_have_that_size(stats, tmp_path):
    study = study_of(stats, tmp_path / "x.partial")
    for method in ("lape", "lap", "lave", "difference", "probability", "random"):
        found = selected(study, method, 6)
        assert [len(found[language]) for language in LANGUAGES] == [6] * len(LANGUAGES), method
    assert neurons_of("own", "fr") <= set(selected(study, "difference", 6)["fr"])


def test_a_way_of_choosing_takes_options(stats, tmp_path):
    study = study_of(stats, tmp_path / "x.partial")
    direct = identify(stats, "difference", of="probability", against="largest", per_language=6, reliability=False)
    assert selected(study, "difference:of=probability,against=largest", 6).sets == direct.sets
    direct = identify(stats, "attribution", by="entropy", matters=0.1, per_language=6, reliability=False)
    assert selected(study, "attribution:by=entropy,matters=0.1", 6).sets == direct.sets
    with pytest.raises(OptionError, match="difference:against=largest"):
        selected(study, "difference:largest", 6)
    with pytest.raises(OptionError, match="agianst"):
        selected(study, "difference:agianst=largest", 6)


def test_a_recorded_language_without_parallel_text_is_named(stats, tmp_path):
    lines = {language: sentences(language, 60, 2) for language in LANGUAGES[:-1]}
    with pytest.raises(TextError, match=f"No parallel text was given for {LANGUAGES[-1]}"):
        Context(planted(), planted_tokenizer(), stats, lines, SMALL, tmp_path)


def test_an_unknown_part_is_refused_and_a_quick_study_has_fewer():
    with pytest.raises(OptionError, match=r"no part 'frontir'.*frontier"):
        chosen_parts(["frontir"], False)
    quick = {part.name for part in chosen_parts(None, True)}
    assert {"perplexity", "frontier", "layers"} <= quick < {part.name for part in chosen_parts(None, False)}


def test_lines_are_spread_evenly_and_the_same_in_every_language():
    lines = {language: sentences(language, 200, 3) for language in LANGUAGES}
    numbers, texts = spread(lines, 300, planted_tokenizer())
    gaps = {b - a for a, b in itertools.pairwise(numbers)}
    assert max(gaps) - min(gaps) <= 1
    for language in LANGUAGES:
        assert list(texts[language].texts) == [lines[language][k] for k in numbers]
    lengths = [
        len(planted_tokenizer()(line, add_special_tokens=False)["input_ids"])
        for k in LANGUAGES
        for line in texts[k].texts
    ]
    assert 250 < sum(lengths) / len(LANGUAGES) < 350


@pytest.mark.parametrize(("tokens", "fewer"), [(30, True), (5000, False)])
def test_too_few_sentences_for_an_interval_are_warned_of_with_what_to_ask_for(stats, tmp_path, tokens, fewer):
    lines = {language: sentences(language, 200, 3) for language in LANGUAGES}
    options = dataclasses.replace(SMALL, tokens=tokens)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        numbers, texts = Context(planted(), planted_tokenizer(), stats, lines, options, tmp_path).evaluation
    said = [str(one.message) for one in caught if issubclass(one.category, LapeWarning)]
    assert (len(numbers) < 20, len(said)) == (fewer, int(fewer))
    if fewer:
        held = sum(
            len(planted_tokenizer()(line, add_special_tokens=False)["input_ids"])
            for one in texts.values()
            for line in one.texts
        )
        assert f"{len(numbers)} sentences were taken, {held / len(LANGUAGES):,.0f} tokens per language" in said[0]
        enough = int(re.search(r"tokens=([0-9]+)", said[0])[1])
        assert len(spread(lines, enough, planted_tokenizer())[0]) >= 20


def test_sentences_of_one_document_are_resampled_together(stats, tmp_path):
    lines = {language: sentences(language, 60, 2) for language in LANGUAGES}
    options = dataclasses.replace(SMALL, tokens=400)
    documents = [number // 2 for number in range(60)]
    of = {
        "lines": study_of(stats, tmp_path / "lines", options),
        "documents": study_of(stats, tmp_path / "documents", options, documents=documents),
    }
    numbers, texts = of["documents"].evaluation
    assert numbers == of["lines"].evaluation[0]
    assert list(texts["fr"].texts) == [lines["fr"][k] for k in numbers]
    held = len({documents[k] for k in numbers})
    assert 20 <= held < len(numbers)
    assert (of["lines"].work.units, of["documents"].work.units) == (len(numbers), held)
    found = {name: run(study, [], parts_of("perplexity")).tables["controlled"] for name, study in of.items()}
    assert found["lines"]["own"].to_list() == pytest.approx(found["documents"]["own"].to_list())
    assert found["lines"]["more_low"].to_list() != found["documents"]["more_low"].to_list()
    others = of["documents"].spread(200, ["fr"], but=set(numbers))
    assert not {*others[0]} & {*numbers}
    assert others[1]["fr"].units == tuple(documents[k] for k in others[0])


def test_the_pages_say_every_claim_what_was_not_run_and_the_hashes(whole):
    study, found, target = whole
    page = (target / "claims.md").read_text()
    for one in found.judged:
        assert f"| {one.claim.says} | **{one.verdict}** |" in page
        assert f"- **{one.claim.name}** ({one.claim.source})" in page
        known = ", ".join(one.claim.seen) or "no model"
        assert f"Written {one.claim.written}, when results were known on {known}." in page
    for part in LEFT:
        assert f"- {part}: not asked for" in page
    kept = json.loads((target / "run.json").read_text())
    assert kept["evaluated"]["numbers"] == study.evaluation[0]
    assert kept["recorded_tokens"] == {language: int(study.stats[language].tokens.sum()) for language in LANGUAGES}


def test_the_page_on_the_study_names_every_part():
    page = (Path(__file__).parents[2] / "docs/study.md").read_text(encoding="utf-8")
    named = {
        name.strip() for line in page.splitlines() if line.startswith("| ") for name in line.split("|")[1].split(",")
    }
    assert set(experiments()) <= named


def test_steering_is_joined_from_its_folder_and_of_this_model_only(stats, tmp_path):
    row = {"family": "random", "measure": "good", "difference": 0.5, "low": 0.4, "high": 0.6}
    own = {"model": stats.manifest["model"], "records": [], "differences": [row], "command": ["force", "x"]}
    (tmp_path / "forcing.json").write_text(json.dumps(own))
    study = study_of(stats, tmp_path / "s.partial", StudyOptions(**{**vars(SMALL), "forcing": tmp_path}))
    found = run(study, CLAIMS, parts_of("forcing"))
    assert verdicts(found)["good answers, steering above random neurons"] == "holds"
    assert study.notes["forcing"] == ["measured by: lape force x"]
    other = own | {"made_from": {"neurons": "x", "method": "lape", "size": 1078}}
    (tmp_path / "forcing.json").write_text(json.dumps(other))
    again = study_of(stats, tmp_path / "o.partial", StudyOptions(**{**vars(SMALL), "forcing": tmp_path}))
    with pytest.warns(LapeWarning, match=r"measured with other neurons \(lape, 1,078 neurons\)"):
        run(again, CLAIMS, parts_of("forcing"))
    assert "not with the sets of this study" in again.notes["forcing"][1]
    (tmp_path / "forcing.json").write_text(json.dumps({**own, "model": {"checksum": "another"}}))
    with pytest.raises(MismatchError, match="another"):
        read_forcing(tmp_path / "forcing.json", stats.manifest["model"])
    shutil.rmtree(tmp_path / "s.partial")
    (tmp_path / "forcing.json").write_text("[]")
    with pytest.raises(FileError, match="lape force"):
        read_forcing(tmp_path / "forcing.json", {})


def test_the_command_line_runs_a_quick_study_and_writes_it(tmp_path, capsys):
    planted().save_pretrained(tmp_path / "model")
    planted_tokenizer().save_pretrained(tmp_path / "model")
    flags: list[str] = []
    for language in LANGUAGES:
        (tmp_path / f"{language}.txt").write_text("\n".join(sentences(language, 80, 1)) + "\n")
        (tmp_path / f"{language}2.txt").write_text("\n".join(sentences(language, 60, 2)) + "\n")
        flags += [
            "--text",
            f"{language}={tmp_path}/{language}.txt",
            "--parallel",
            f"{language}={tmp_path}/{language}2.txt",
        ]
    command = ["study", str(tmp_path / "model"), *flags, "--out", str(tmp_path / "out"), "--device", "cpu", "--quick"]
    small = ["--tokens", "250", "--sizes", "8", "--draws", "1", "--resamples", "50"]
    assert cli([*command, *small, "--plan-only"]) == 0
    assert "frontier" in capsys.readouterr().out
    assert not list(tmp_path.glob("out*")), "a plan keeps nothing"
    assert cli([*command, *small]) == 0
    said = capsys.readouterr()
    assert "passes" in said.err
    assert "holds" in said.out
    page = (tmp_path / "out" / "claims.md").read_text()
    kept = json.loads((tmp_path / "out" / "run.json").read_text())
    for one in kept["claims"]:
        assert f"| **{one['verdict']}** |" in page
    assert (tmp_path / "out" / "claims.toml").read_text() == standing()
    assert cli([*command, *small]) == 2
    assert "--overwrite" in capsys.readouterr().err
