"""Tasks of lm-eval under edits, on local data: scores by hand from the model's logits, differences, intervals, refusals."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from lape.cli import run
from lape.data.texts import Documents
from lape.edit.edit import Add, Off, edited
from lape.edit.steer import PUBLISHED
from lape.errors import FileError, MismatchError, OptionError, TextError
from lape.experiments.harness import run as module
from lape.experiments.harness.run import DOCUMENTS, TABLE, HarnessOptions, find_tasks, harness
from lape.measure.bootstrap import Resamples
from lape.measure.conditions import conditions
from lape.options import keywords_of
from lape.recording.record import record
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from support.brute import lively, logits_of, some_texts, tokenizer_of
from support.made import made_stats
from support.stopped import stopped
from support.tiny import LAYERS
from support.told import without_steps

harness = keywords_of(HarnessOptions)(harness)

SPACE = NeuronSpace.dense(LAYERS, 44)
STATS = made_stats(1, languages=("en", "fr", "zh"), space=SPACE, sums=True, written=True, of=None)
SETS = {"en": range(12), "fr": [*range(8, 16), *range(50, 58)], "zh": range(0)}
DOCS = 24

CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
  cache_dir: {cache}
test_split: test
{more}
"""
ACC = """
output_type: multiple_choice
doc_to_text: "{{passage}}"
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}, {metric: mcc, aggregation: matthews_corrcoef}]
"""
ROLLING = """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{passage}}"
metric_list: [{metric: word_perplexity}]
"""
WRITES = """
output_type: generate_until
doc_to_text: "{{passage}}"
doc_to_target: "x"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4, do_sample: false}
filter_list: [{name: strict, filter: [{function: take_first}]}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


pytestmark = pytest.mark.usefixtures("without_pip_list")


def neurons_of(sets=SETS, space=SPACE):
    return LanguageNeurons(space, {k: NeuronSet(space, torch.tensor(list(v))) for k, v in sets.items()})


@cache
def model_of():
    return lively("llama", torch.float32)


def documents():
    texts = some_texts(3 * DOCS, 4)
    return [
        {"passage": texts[3 * k], "choices": [texts[3 * k + 1][:12], texts[3 * k + 2][:12]], "label": k % 2}
        for k in range(DOCS)
    ]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of task files on local data."""
    pytest.importorskip("lm_eval")
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "data.jsonl"
    data.write_text("\n".join(json.dumps(one) for one in documents()))
    for name, more in (("choose", ACC), ("perplexity", ROLLING), ("write", WRITES)):
        text = CHOICE.format(name=name, data=data, cache=folder / "cache", more=more)
        (folder / f"{name}.yaml").write_text(text)
    lost = CHOICE.format(name="lost", data=folder / "none.jsonl", cache=folder / "cache", more=ACC)
    (folder / "lost.yaml").write_text(lost)
    return folder


@pytest.fixture(scope="module")
def found(tasks):
    return harness(
        model_of(),
        tokenizer_of(),
        neurons_of(),
        STATS,
        ["choose,perplexity", "write"],
        include=tasks,
        steer=PUBLISHED,
        draws=2,
        resamples=200,
    )


RUNS = [("none", "", 0)] + [
    (name, language, draw)
    for language in ("en", "fr")
    for name, draw in (("off", 0), ("steered", 0), ("control", 0), ("control", 1))
]
LESS = ("less_control", "less_control_low", "less_control_high")
METRICS = {("choose", "acc"), ("choose", "mcc"), ("perplexity", "word_perplexity"), ("write", "exact_match,strict")}


def right_by_hand(edits):
    """For each document whether the model finds the right choice likelier."""
    model, tokenizer = model_of(), tokenizer_of()
    result = []
    with edited(model, edits):
        for one in documents():
            start = len(tokenizer(one["passage"])["input_ids"])
            scores = []
            for choice in one["choices"]:
                ids = torch.tensor([tokenizer(f"{one['passage']} {choice}")["input_ids"]])
                logs = logits_of(model, ids)[0].double().log_softmax(-1)
                scores.append(float(logs[:-1].gather(1, ids[0, 1:, None])[start - 1 :].sum()))
            result.append(float(np.argmax(scores) == one["label"]))
    return result


def edits_of(name, language, draw):
    if name == "none":
        return []
    if name == "off":
        return [Off(neurons_of()[language])]
    if name == "steered":
        return [Add(neurons_of()[language], STATS.mean(language))]
    kinds, _ = conditions(model_of(), neurons_of(), STATS, language, steer=None, draws=2, seed=0)
    return list(next(one for one in kinds if (one.name, one.draw) == (name, draw)).edits)


def test_there_is_a_row_for_every_task_metric_condition_and_language(found):
    assert dict(found["tasks"].schema) == TABLE
    assert dict(found["documents"].schema) == DOCUMENTS
    rows = found["tasks"].select("task", "metric", "condition", "language", "draw").rows()
    assert len(rows) == len(set(rows))
    assert set(rows) == {(*metric, *one) for metric in METRICS for one in RUNS}
    assert found["tasks"]["n"].to_list() == [DOCS] * len(found["tasks"])
    assert len(found.notes) == 1
    assert "zh has no neurons" in found.notes[0]


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_every_document_is_scored_by_the_edited_model(found, run):
    name, language, draw = run
    mine = (pl.col("condition") == name) & (pl.col("language") == language) & (pl.col("draw") == draw)
    rows = found["documents"].filter(mine & (pl.col("metric") == "acc")).sort("document")
    assert rows["document"].to_list() == list(range(DOCS))
    expected = right_by_hand(edits_of(*run))
    assert rows["value"].to_list() == expected
    row = found["tasks"].filter(mine & (pl.col("metric") == "acc")).row(0, named=True)
    assert row["value"] == pytest.approx(np.mean(expected))
    assert row["stderr"] == pytest.approx(np.std(expected, ddof=1) / DOCS**0.5)


def test_edits_change_scores_here(found):
    by_run = {key: frame["value"].to_list() for key, frame in found["documents"].filter(metric="acc").partition_by(
        "condition", "language", "draw", as_dict=True).items()}  # fmt: skip
    assert len({tuple(values) for values in by_run.values()}) >= 3


def test_differences_are_to_the_unedited_model_with_a_paired_interval(found):
    none = found["tasks"].filter(condition="none")
    base = dict(zip(zip(none["task"], none["metric"], strict=True), none["value"], strict=True))
    assert none.select("difference", "low", "high").null_count().row(0) == (len(none),) * 3
    for row in found["tasks"].filter(pl.col("condition") != "none").iter_rows(named=True):
        assert row["difference"] == pytest.approx(row["value"] - base[row["task"], row["metric"]])
    before = np.array(right_by_hand([]))
    after = np.array(right_by_hand(edits_of("off", "en", 0)))
    drawn = Resamples(DOCS, 200, 0)
    expected = drawn.interval(drawn.ratio(after - before, np.ones(DOCS)))[1:]
    row = found["tasks"].filter(metric="acc", condition="off", language="en").row(0, named=True)
    assert (row["low"], row["high"]) == pytest.approx(expected)


def test_what_an_edit_does_is_set_beside_the_mean_of_the_draws_of_control_neurons(found):
    other = pl.col("condition").is_in(["off", "steered"])
    assert found["tasks"].filter(~other)["less_control"].null_count() == len(found["tasks"].filter(~other))
    for row in found["tasks"].filter(other).iter_rows(named=True):
        of = {name: row[name] for name in ("task", "metric", "language")}
        controls = found["tasks"].filter(**of, condition="control")
        assert len(controls) == 2
        assert row["less_control"] == pytest.approx(row["value"] - controls["value"].mean())
    after = np.array(right_by_hand(edits_of("off", "en", 0)))
    drawn = Resamples(DOCS, 200, 0)
    gaps = [after - np.array(right_by_hand(edits_of("control", "en", draw))) for draw in (0, 1)]
    each = np.stack([drawn.weights @ gap / DOCS for gap in gaps], 1)
    _, low, high = drawn.interval(each.mean(1), draws=[each[0]])
    row = found["tasks"].filter(metric="acc", condition="off", language="en").row(0, named=True)
    assert (row["less_control_low"], row["less_control_high"]) == pytest.approx((low, high))


def test_a_metric_that_is_no_mean_over_documents_has_no_interval(found):
    rows = found["tasks"].filter(pl.col("metric").is_in(["mcc", "word_perplexity"]) & (pl.col("condition") != "none"))
    assert rows["low"].null_count() == rows["stderr"].null_count() == len(rows) == 16
    assert rows["difference"].null_count() == 0
    assert rows.filter(metric="word_perplexity")["difference"].abs().min() > 0
    beside = rows.filter(condition="off")
    assert beside["less_control"].null_count() == 0
    assert beside["less_control_low"].null_count() == len(beside)


def test_under_20_documents_there_is_no_interval(tasks):
    found = harness(
        model_of(),
        tokenizer_of(),
        neurons_of(),
        STATS,
        ["choose"],
        include=tasks,
        limit=19,
        languages=("fr",),
        resamples=50,
    )["tasks"]
    assert found["n"].to_list() == [19] * len(found)
    assert found["low"].null_count() == len(found)
    assert set(found["language"]) == {"", "fr"}


def test_examples_are_the_same_in_every_condition(tasks):
    """With an edit that changes nothing, nothing changes: scaling by 1."""
    how = replace(PUBLISHED, how="scale", strength=1.0)
    found = harness(model_of(), tokenizer_of(), neurons_of(), STATS, ["choose"], include=tasks, steer=how, languages=("fr",), shots=2, draws=0)  # fmt: skip
    kinds = {
        key[0]: frame["value"].to_list()
        for key, frame in found["documents"].partition_by("condition", as_dict=True).items()
    }
    assert kinds["none"] == kinds["steered"]
    assert kinds["none"] != kinds["off"]
    assert kinds["none"] != right_by_hand([])  # the examples count


def test_running_leaves_model_and_tokenizer_as_they_were(tasks):
    from support.tiny import tiny_tokenizer

    model, tokenizer = lively("llama", torch.float32).train(), tiny_tokenizer()
    tokenizer.pad_token = None
    ids = torch.tensor([[1, 20, 30, 40]])
    before = logits_of(model, ids)
    harness(model, tokenizer, neurons_of(), STATS, ["choose"], include=tasks, limit=2, languages=("fr",), draws=0)
    assert model.training
    assert tokenizer.pad_token is None
    assert torch.equal(logits_of(model, ids), before)


def test_finished_conditions_are_kept_and_found_again(tasks, tmp_path, monkeypatch):
    counted, ran = stopped(module._results, 2)

    def again(**changes):
        given = {"include": tasks, "limit": 20, "languages": ("fr",), "resamples": 50, "folder": tmp_path, **changes}
        return harness(model_of(), tokenizer_of(), neurons_of(), STATS, ["choose"], **given)

    monkeypatch.setattr(module, "_results", counted)
    with pytest.raises(KeyboardInterrupt):
        again()
    ran.clear()
    found = again()
    assert len(ran) == 1  # the control; unedited and off were there
    ran.clear()
    assert again(resamples=60)["documents"].equals(found["documents"])
    assert not ran
    alone = again(folder=None, draws=0)
    assert found["tasks"].filter(pl.col("condition") != "control").drop(LESS).equals(alone["tasks"].drop(LESS))
    ran.clear()
    again(draws=2)  # further draws, with those that are there
    assert len(ran) == 1
    for changes, word in (({"limit": 21}, "limit"), ({"steer": PUBLISHED}, "steer")):
        with pytest.raises(FileError, match=word):
            again(**changes)


# --- names ---

KNOWN = SimpleNamespace(
    all_tasks=["x_de", "x_fr", "x_group", "y"], all_subtasks=["x_de", "x_fr", "y"]
)  # what lm-eval's manager says


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (["x_*"], ("x_de", "x_fr")),
        (["x_group"], ("x_group",)),
        (["y", "x_f?", "*"], ("y", "x_fr", "x_de")),
        (["x_[df]*"], ("x_de", "x_fr")),
    ],
)
def test_patterns_stand_for_tasks_names_for_groups_too(wanted, names):
    assert module._matching(wanted, KNOWN) == names


def test_an_unknown_name_is_refused_with_those_near_it():
    with pytest.raises(OptionError, match=r"'x_frr'.*x_fr"):
        module._matching(["y", "x_frr"], KNOWN)
    with pytest.raises(OptionError, match=r"'z_\*'"):
        module._matching(["z_*"], KNOWN)


def test_tasks_of_a_folder_that_are_named_in_full_need_no_others(tasks):
    found = find_tasks(["choose, write", "choose"], tasks)
    assert found.names == ("choose", "write")
    assert set(found.manager.all_tasks) == {"choose", "perplexity", "write", "lost"}


# --- groups ---


def test_a_group_counts_the_documents_of_its_tasks_and_has_no_interval():
    metrics = {"alias": "g", "acc,none": 0.5, "acc_stderr,none": "N/A", "f1,strict": 0.25, "f1_stderr,strict": 0.1}
    results = {
        "results": {"g": metrics},
        "n-samples": {"a": {"original": 9, "effective": 3}, "b": {"original": 9, "effective": 4}},
        "group_subtasks": {"g": ["a", "b"]},
    }
    assert list(module._values(results)) == [
        {"task": "g", "metric": "acc", "value": 0.5, "n": 7},
        {"task": "g", "metric": "f1,strict", "value": 0.25, "n": 7},
    ]


# --- what is refused ---


def test_what_cannot_be_run_is_refused(tasks):
    def refused(kind, words, names=("choose",), neurons=None, stats=STATS, **options):
        with pytest.raises(kind, match=words):
            harness(model_of(), tokenizer_of(), neurons or neurons_of(), stats, names, **{"include": tasks, **options})

    refused(OptionError, "No task was named", names=[" , "])
    refused(OptionError, "no folder", include=tasks / "none")
    refused(OptionError, "no first generated tokens", steer=replace(PUBLISHED, tokens="generated"))
    refused(TextError, "no neurons of ja", languages=("ja",))
    refused(MismatchError, "3 × 40", stats=made_stats(space=NeuronSpace.dense(3, 40), sums=True, of=None))
    refused(OptionError, "record that text again", stats=made_stats(space=SPACE, of=None))
    refused(OptionError, r"lost.*check the network", names=["lost"])


def test_code_that_a_task_would_run_is_refused(tasks):
    text = CHOICE.format(
        name="unsafe", data=tasks / "data.jsonl", cache=tasks / "cache", more=ACC + "unsafe_code: true\n"
    )
    folder = tasks / "more"
    folder.mkdir()
    (folder / "unsafe.yaml").write_text(text)
    with pytest.raises(OptionError, match="unsafe"):
        harness(model_of(), tokenizer_of(), neurons_of(), STATS, ["unsafe"], include=folder, draws=0)


@pytest.mark.parametrize("options", [{"limit": 0}, {"shots": -1}, {"draws": -1}, {"resamples": 0}, {"batch": 0}])
def test_numbers_that_cannot_be_are_refused(options):
    with pytest.raises(OptionError):
        HarnessOptions(**options)


def test_without_lm_eval_it_says_what_to_type(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(OptionError, match=r'pip install "\.\[eval\]"'):
        find_tasks(["belebele_fra_Latn"])


# --- the command line ---


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model and a run of it."""
    folder = tmp_path_factory.mktemp("eval")
    model_of().save_pretrained(folder / "model")
    tokenizer_of().save_pretrained(folder / "model")
    stats = record(model_of(), tokenizer_of(), {k: Documents(some_texts(9, n)) for n, k in enumerate(("en", "fr"))})
    (folder / "run").mkdir()
    stats.save(folder / "run" / "stats.safetensors")
    neurons_of({"en": range(12), "fr": SETS["fr"]}).save(folder / "run" / "neurons.safetensors")
    return folder


def command(saved, tasks, *more, names="choose"):
    return ["eval", str(saved / "model"), "--run", str(saved / "run"), "--tasks", names, "--include-path", str(tasks),
            "--limit", "20", "--device", "cpu", "--resamples", "50", *more]  # fmt: skip


def test_the_verb_writes_tables_and_shows_them(saved, tasks, capfd):
    assert run(command(saved, tasks, "--languages", "fr,en", "--steer")) == 0
    said, _ = capfd.readouterr()
    folder = saved / "run" / "eval"
    assert {path.name for path in folder.iterdir()} == {"tasks.parquet", "documents.parquet", "run.json"}
    table = pl.read_parquet(folder / "tasks.parquet")
    assert set(table["condition"]) == {"none", "off", "steered", "control"}
    assert set(table["language"]) == {"", "fr", "en"}
    assert dict(table.schema) == TABLE
    held = json.loads((folder / "run.json").read_text())
    assert held["verb"] == "eval"
    assert held["tasks"] == ["choose"]
    assert "lm-eval" in held["versions"]
    assert held["records"][0]["value"] == table["value"][0]
    for word in ("choose", "acc", "control", "off − control", "steered − control", "Written"):
        assert word in said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "--overwrite"),
        (("--out", "OUT", "--languages", "ja"), "no neurons of ja"),
        (("--out", "OUT", "--limit", "0"), "limit"),
    ],
)
def test_mistakes_end_in_one_paragraph_and_nothing_is_written(saved, tasks, capsys, more, words):
    (saved / "run" / "eval").mkdir(exist_ok=True)
    out = saved / "out"
    assert run(command(saved, tasks, *(str(out) if one == "OUT" else one for one in more))) == 2
    said = without_steps(capsys.readouterr().err).strip()
    assert said.startswith("error: ")
    assert words in said
    assert not out.exists()
    assert not list(saved.glob("**/*.partial"))
