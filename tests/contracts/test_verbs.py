"""What every verb owes: words for each flag, a result that is whole and as declared, options that come back, and refusals of one paragraph."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lape.cli import VERBS, app, run
from lape.experiments import experiments
from lape.options import descriptions
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats
from support.planted import LANGUAGES, SHAPES, planted_folder, sentences, shaped
from support.told import without_steps

pytestmark = pytest.mark.usefixtures("one_thread", "without_pip_list")

LEFT = {
    "demo": "it records and measures the real model: `make demo`, and tests/real",
    "play": "it serves until it is stopped: tests/play and tests/real/test_play_page.py",
}
EACH = "".join(f" --{{0}} {language}=HERE/{language}{{1}}.txt" for language in LANGUAGES)
TEXT, OTHER, PARALLEL = EACH.format("text", ""), EACH.format("text", "2"), EACH.format("parallel", "2")
COMMANDS = {
    "record": f"record HERE/model{TEXT} --document line --row-tokens 64 --device cpu --out OUT",
    "identify": "identify HERE/run --per-language 4 --no-reliability --out OUT.safetensors",
    "show": "show HERE/run",
    "samples": "samples OUT",
    "perplexity": f"perplexity HERE/model HERE/run{OTHER} --draws 1 --resamples 50 --device cpu --out OUT",
    "steer": "steer HERE/model 'fr01 fr02 fr03' --from fr --to en --run HERE/run --new-tokens 4 --device cpu",
    "confusion": "confusion HERE/model --languages fr,id --limit 3 --new-tokens 3 --resamples 20 --device cpu --out OUT",
    "fix": "fix HERE/model --answer fr --run HERE/run --limit 40 --new-tokens 3 --candidates 1 --sets difference:4 --device cpu"
    f"{TEXT} --out OUT",
    "force": "force HERE/model --run HERE/run --questions en=HERE/en2.txt --questions fr=HERE/fr2.txt --pairs en-fr --new-tokens 4"
    f" --candidates 2 --resamples 50 --families none neurons ceiling --device cpu{TEXT}{EACH.format('evaluation', '2')} --out OUT",
    "merge": "merge HERE/run --out OUT",
    "study": f"study HERE/model --run HERE/run{PARALLEL} --parts layers,perplexity --tokens 250 --resamples 50 --draws 1 --device cpu --out OUT",
    "examples": f"examples HERE/model HERE/run{OTHER} --device cpu --out OUT",
    "report": "report HERE/run --out OUT.html",
    "figures": "figures HERE/run --out OUT",
    "export": "export HERE/model HERE/run --off fr --device cpu --out OUT",
    "push": "push HERE/run me/planted --out OUT",
    "doctor": "doctor HERE/model --device cpu",
    "evaluate": "eval HERE/model --run HERE/run --tasks choose --include-path HERE --limit 20 --resamples 50 --device cpu --out OUT",
    "run": "run layers --run HERE/run --resamples 50 --out OUT",
}
"""A command of each verb; HERE stands for the planted folder and OUT for what is written."""
REFRESHED = ("figures", "report")
"""Verbs that replace what they made before."""
CODES = {"fix": 3}
"""Exit codes that are not 0: no adapter makes the planted model write French."""
WRITING = [verb for verb, command in COMMANDS.items() if "OUT" in command]
TASK = """
task: choose
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/choose.jsonl}}
  cache_dir: {folder}/cache
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{passage}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""

each = pytest.mark.parametrize("verb", COMMANDS)
writing = pytest.mark.parametrize("verb", WRITING)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("verbs"))


def made(folder: Path, model: Any = None) -> Path:
    """A planted folder with a task for `lape eval`."""
    planted_folder(folder, model)
    fr, en = sentences("fr", 40, 3), sentences("en", 40, 3)
    asked = [{"passage": a, "choices": [a[:4], b[:4]], "label": 0} for a, b in zip(fr, en, strict=True)]
    (folder / "choose.jsonl").write_text("\n".join(map(json.dumps, asked)))
    (folder / "choose.yaml").write_text(TASK.format(folder=folder))
    return folder


def words(verb: str, here: Path, out: Path) -> list[str]:
    """The command of a verb."""
    import shlex

    return [word.replace("HERE", str(here)).replace("OUT", str(out)) for word in shlex.split(COMMANDS[verb])]


def code_of(typed: list[str]) -> int:
    """The exit code of a command."""
    try:
        return run(typed)
    except SystemExit as ended:
        return int(str(ended.code))


def result(verb: str, out: Path) -> Path:
    """What a verb writes."""
    return Path(next(word for word in words(verb, Path("HERE"), out) if word.startswith(str(out))))


def files_of(path: Path) -> dict[str, bytes]:
    """Every file at or below a path."""
    return {str(one.relative_to(path.parent)): one.read_bytes() for one in [path, *path.rglob("*")] if one.is_file()}


@pytest.fixture(scope="module")
def ran(here: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Verb -> what it wrote, each run when it is first asked for."""

    class Lazily(dict[str, Path]):
        def __missing__(self, verb: str) -> Path:
            folder = tmp_path_factory.mktemp(verb) / "out["  # what is written has a name that would be markup: out[/x]
            folder.mkdir()
            out = folder / "x]"
            assert code_of(words(verb, here, out)) == CODES.get(verb, 0)
            path = self[verb] = result(verb, out)
            return path

    return Lazily()


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
def test_every_verb_runs_on_the_shapes_of_the_paper_s_models(kind, tmp_path_factory, capsys):
    """LLaMA-2's and BLOOM's, with random weights: a gated MLP and a plain one."""
    folder = made(tmp_path_factory.mktemp(kind), shaped(kind))
    for verb in COMMANDS:
        out = tmp_path_factory.mktemp(verb) / "x"
        assert code_of(words(verb, folder, out)) == CODES.get(verb, 0), (verb, capsys.readouterr().err)
        if verb in WRITING:
            assert result(verb, out).exists(), verb


def test_every_verb_is_tried_or_says_why_not():
    assert {*COMMANDS, *LEFT} == {*VERBS, "run"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_has_words(verb):
    every = app()
    verb = "eval" if verb == "evaluate" else verb
    for argument in every[verb].assemble_argument_collection(parse_docstring=True):
        if argument.parameter.parse is not False and argument.show:
            said = (argument.parameter.help or "").strip()
            assert said.endswith("."), (argument.name, said)


@each
def test_it_runs_and_leaves_nothing_half_written(verb, here, tmp_path, capsys, ran):
    if verb in WRITING:
        assert ran[verb].exists()
        assert [path.name for path in ran[verb].parent.iterdir() if ".partial" in path.name] == []
        return
    capsys.readouterr()
    before = files_of(here)
    assert run(words(verb, here, tmp_path)) == 0
    said = capsys.readouterr()
    assert said.out.strip()
    assert "Traceback" not in said.out + said.err
    assert files_of(here) == before, "a verb that names no output writes nothing"


@writing
def test_its_tables_are_as_their_experiment_declares(verb, ran):
    """In a verb's own folder a table is called as it is within a run's: forcing/costs.parquet is costs.parquet there."""
    owner = {"evaluate": "eval", "force": "forcing", "run": "layers"}.get(verb, verb)
    owners = [experiments()[owner]] if owner in experiments() else list(experiments().values())
    declared = {Path(table.file or name).stem: table for one in owners for name, table in one.tables.items()}
    found = sorted(ran[verb].rglob("*.parquet")) if ran[verb].is_dir() else []
    for path in found:
        if path.stem == "lines":  # the loss of every line, which nothing of lape reads again
            continue
        declared[path.stem].check(path.stem, pl.read_parquet(path, glob=False))
    assert bool(found) == (verb in ("perplexity", "force", "confusion", "fix", "study", "examples", "evaluate", "run"))


@pytest.mark.parametrize("verb", [verb for verb in WRITING if verb not in ("identify", "report", "samples")])
def test_its_folder_says_how_it_was_made(verb, ran):
    name = {"export": "lape.json", "figures": "figures.json", "push": "reproduce.json"}.get(verb, "run.json")
    said = json.loads((ran[verb] / name).read_text())
    if name == "run.json":
        assert said["verb"] == {"evaluate": "eval", "run": "layers"}.get(verb, verb)


USING = dict.fromkeys(("perplexity", "examples", "force", "evaluate", "study", "run"), ("neurons", "statistics"))
USING["merge"] = USING["fix"] = ("statistics",)


@pytest.mark.parametrize("verb", USING)
def test_its_result_says_which_neurons_and_statistics_it_was_made_from(verb, ran, here):
    """So that it is not shown beside others: the run's own are what is used here."""
    present = LanguageNeurons.load(here / "run").made_from | ActivationStats.load(here / "run").made_from
    said = json.loads((ran[verb] / "run.json").read_text())["made_from"]
    assert {name: said[name] for name in USING[verb]} == {name: present[name] for name in USING[verb]}
    assert ("neurons" in said) == ("neurons" in USING[verb])


@pytest.mark.parametrize("verb", ["record", "perplexity", "force"])
def test_its_run_json_lists_the_paths_of_its_texts(verb, ran, here):
    said = json.loads((ran[verb] / "run.json").read_text())["texts"]
    assert said == {language: [f"{here}/{language}{'2' if verb == 'perplexity' else ''}.txt"] for language in LANGUAGES}


@pytest.mark.parametrize("verb", ["perplexity", "examples", "force", "evaluate", "study", "run"])
def test_its_options_come_back_from_run_json_through_toml(verb, ran, here, tmp_path):
    """The options that run.json holds, given as a file, give the same options again."""
    kept = json.loads((ran[verb] / "run.json").read_text())["options"]
    lines = [f"{name} = {json.dumps(value)}" for name, value in kept.items() if value not in (None, [], {}, "")]
    (tmp_path / "run.toml").write_text("\n".join(lines) + "\n")
    assert tomllib.loads((tmp_path / "run.toml").read_text())
    out = tmp_path / "again"
    command = words(verb, here, out)
    bare = _without(command, {name.replace("_", "-") for name in kept})
    assert run([*bare, "--config", str(tmp_path / "run.toml")]) == 0
    assert json.loads((out / "run.json").read_text())["options"] == kept


def _without(command: list[str], names: set[str]) -> list[str]:
    """A command without some of its flags, and what follows them."""
    left, skip = [], False
    for word in command:
        if word.startswith("--"):
            skip = word[2:] in names
        if not skip:
            left.append(word)
    return left


@writing
def test_it_replaces_what_is_there_only_when_told(verb, ran, here, capsys):
    if verb in REFRESHED:
        pytest.skip("what it makes is derived, and made anew")
    path, out = ran[verb], ran[verb].parent / "x]"
    before = files_of(path)
    capsys.readouterr()
    assert run(words(verb, here, out)) == 2
    said = " ".join(without_steps(capsys.readouterr().err).split())
    assert said.startswith("error: ")
    assert "--overwrite" in said
    assert files_of(path) == before


@pytest.mark.parametrize("verb", [verb for verb in COMMANDS if verb != "samples"])  # which reads nothing
def test_what_is_not_there_is_one_paragraph_and_leaves_nothing(verb, here, tmp_path, capsys):
    command = [
        word.replace(str(here / "model"), str(tmp_path / "no-model")) for word in words(verb, here, tmp_path / "out")
    ]
    command = [word.replace(str(here / "run"), str(tmp_path / "no-run")) for word in command]
    capsys.readouterr()
    assert run(command) == 2
    said = without_steps(capsys.readouterr().err)
    assert "Traceback" not in said
    assert said.count("error: ") == 1
    assert "no-model" in said.replace("\n", "") or "no-run" in said.replace("\n", "")
    assert list(tmp_path.iterdir()) == []


def test_options_of_every_verb_are_described():
    for experiment in experiments().values():
        assert all(descriptions(experiment.options).values())
