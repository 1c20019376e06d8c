"""What a folder shows was made from the neurons and statistics that it holds; what was not is named, with what to type."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import polars as pl
import pytest

import lape
from lape.cli import run as cli
from lape.cli.common import provenance
from lape.data.texts import Documents
from lape.detect.identify import identify
from lape.errors import FileError, MismatchError
from lape.experiments.context import Context, SharedOptions
from lape.experiments.perplexity.run import PerplexityOptions, perplexity
from lape.model.identity import check_made_with
from lape.recording.record import record
from lape.reporting import page
from lape.reporting.figures import lacking, outdated
from lape.reporting.gather import gather
from lape.store.files import write_json
from lape.values.stats import merge
from support.brute import model_of, some_texts, tokenizer_of
from support.reports import data_of, made, text_of

pytest.importorskip("matplotlib", reason="needs the extra report")
TEXTS = {"en": ["my texts/en2.txt"], "fr": ["fr2.txt", "fr3.txt"], "zh-Hant": ["zh2.txt"]}


@pytest.fixture(scope="module")
def table(run) -> pl.DataFrame:
    neurons = lape.LanguageNeurons.load(run)
    texts = {language: Documents(some_texts(30, seed + 7)) for seed, language in enumerate(neurons)}
    return perplexity(model_of("llama"), tokenizer_of(), neurons, texts, draws=1, resamples=100, allow_recorded=True)


@pytest.fixture
def measured(run, table, tmp_path) -> Path:
    """A run with the folder that lape perplexity leaves in it."""
    folder = tmp_path / "a run"
    shutil.copytree(run, folder)
    table.write_parquet(made(folder / "perplexity") / "perplexity.parquet")
    neurons = lape.LanguageNeurons.load(folder)
    said = provenance("perplexity", neurons, options=PerplexityOptions(document="line"), texts=TEXTS)
    write_json(folder / "perplexity" / "run.json", said | {"command": ["perplexity", "my/model", "elsewhere"]})
    return folder


def test_what_was_measured_with_other_neurons_is_named_and_not_shown(measured, capsys):
    assert "perplexity" in gather(measured).tables
    size = len(lape.LanguageNeurons.load(measured).union)
    words = ["identify", str(measured), "--method", "difference", "--per-language", "5", "--overwrite"]
    capsys.readouterr()
    assert cli(words) == 0
    said = capsys.readouterr().out
    why = f"measured with other neurons (lape, {size:,} neurons)"
    typed = f"lape --again {shlex.quote(str(measured / 'perplexity'))} --overwrite"
    assert f"{why}. Type: {typed}" in " ".join(said.split())
    found = gather(measured)
    assert "perplexity" not in found.tables
    html = page.html(found)
    assert 'id="perplexity"' not in html
    assert all(card["own"] is None for card in page.cards(found))
    assert why in text_of(html)
    assert "chosen by the method difference" in text_of(html)
    assert cli(["figures", str(measured), "--format", "svg"]) == 0
    assert f"Not drawn: perplexity, own, {why}. Type: {typed}" in capsys.readouterr().out
    assert (measured / "figures" / "layers.svg").is_file()
    assert not (measured / "figures" / "own.svg").exists()
    words = ["identify", str(measured), "--rate", "0.2", "--no-reliability", "--overwrite"]
    assert cli(words) == 0
    again = gather(measured)
    assert ("perplexity" in again.tables, again.stale) == (True, []), "with the same sets it is shown again"


def test_no_command_is_advised_that_would_throw_a_chosen_method_away(measured):
    """It repeats the method and its options; where reliability cannot be measured, there is none."""
    stats = lape.ActivationStats.load(measured)

    def advice() -> str | None:
        return lacking(gather(measured)).get("reliability")

    folder = shlex.quote(str(measured))
    assert advice() == f"lape identify {folder} --rate 0.2 --overwrite"
    chosen = identify(stats, "difference", of="probability", per_language=7, reliability=False)
    chosen.save(measured / "neurons.safetensors", overwrite=True)
    assert advice() == f"lape identify {folder} --method difference --per-language 7 --of probability --overwrite"
    sums = identify(stats, "difference", per_language=7, reliability=False)  # which are not kept by halves
    for one in (sums, dataclasses.replace(chosen, method="mine")):
        one.save(measured / "neurons.safetensors", overwrite=True)
        assert advice() is None


def test_neurons_of_other_statistics_are_named_and_not_shown(measured, texts):
    other = record(
        model_of("llama"), tokenizer_of(), {k: Documents(some_texts(50, n + 20)) for n, k in enumerate(texts)}
    )
    identify(other, rate=0.3, reliability=False).save(measured / "neurons.safetensors", overwrite=True)
    found = gather(measured)
    assert found.neurons is None
    assert "histogram" not in found.tables
    assert "perplexity" in found.tables, "it was measured with neurons of these statistics"
    [stale] = found.stale
    assert stale.why.startswith("found in other statistics than those here (lape, ")
    assert stale.command == f"lape identify {shlex.quote(str(measured))} --rate 0.3 --overwrite"
    assert stale.why in text_of(page.html(found))
    assert outdated(found) == dict.fromkeys(
        ("layers", "overlap"), "of neurons found in other statistics than those here"
    )


def test_a_study_beside_other_neurons_is_one_stale_result_with_its_claims(measured, table):
    table.write_parquet(made(measured / "tables") / "perplexity.parquet")
    made_from = {"neurons": "of the study", "method": "lape", "size": 1}
    command = ["study", "m", "--text", "en=a", "--parallel", "en=b"]
    said = {"verb": "study", "command": command, "made_from": made_from, "claims": [{"name": "x", "verdict": "holds"}]}
    write_json(measured / "run.json", said)
    found = gather(measured)
    [stale] = found.stale
    assert stale.why == "made with other neurons (lape, 1 neuron)"
    assert stale.command == f"lape --again {shlex.quote(str(measured))} --overwrite"
    assert not any(one.startswith("Of 1 claims") for one in page._judged(found))
    write_json(measured / "run.json", said | {"made_from": lape.LanguageNeurons.load(measured).made_from})
    assert (gather(measured).stale, "perplexity" in gather(measured).tables) == ([], True)


def test_a_result_that_says_nothing_of_itself_is_shown_with_a_note(measured):
    path = measured / "perplexity" / "run.json"
    said = json.loads(path.read_text())
    del said["made_from"]
    path.write_text(json.dumps(said))
    found = gather(measured)
    assert found.unsure == ["perplexity"]
    assert "their files do not say: perplexity." in text_of(page.html(found))
    (measured / "neurons.safetensors").unlink()
    (measured / "stats.safetensors").unlink()
    assert gather(measured).unsure == [], "nothing is here that it could belong to or not"


def test_what_is_missing_is_made_by_a_command_that_takes_the_run_alone(measured):
    commands = {one["what"]: one["command"] for one in page.missing(gather(measured))}
    folder = shlex.quote(str(measured))
    assert commands["Similarity of translations"] == f"lape run similarity {folder} --parallel TAG=PATH"
    assert commands["Everything, with claims judged"] == f"lape study {folder} --parallel TAG=PATH --out STUDY"
    assert all(folder[:-1] in command for command in commands.values())


@pytest.fixture(scope="module")
def parts(texts):
    return [record(model_of("llama"), tokenizer_of(), texts, shard=f"{k}/2") for k in (1, 2)]


def test_shards_are_no_run_until_they_are_merged(parts, tmp_path, capsys):
    model, chosen = model_of("llama"), identify(merge(parts), reliability=False, rate=0.2)
    for use in (
        lambda: identify(parts[0]),
        lambda: identify(parts[0], "difference"),
        lambda: lape.steer(model, chosen, stats=parts[0], to="fr").__enter__(),
        lambda: check_made_with(model, statistics=parts[0]),
        lambda: Context(None, None, parts[0], {}, SharedOptions(), tmp_path),
    ):
        with pytest.raises(MismatchError, match=r"Missing: en: shard 2 of 2.*lape merge"):
            use()
    for k, part in enumerate(parts):
        part.save(made(tmp_path / f"s{k}") / "stats.safetensors")
    assert page.missing(gather(tmp_path / "s0"))[0]["command"] == f"lape merge {tmp_path}/s0 SHARD ... --out RUN"
    capsys.readouterr()
    assert cli(["identify", str(tmp_path / "s0")]) == 2
    assert "Missing: en: shard 2 of 2" in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in (tmp_path / "s0").iterdir()) == ["stats.safetensors"]


def test_merged_statistics_are_a_run_and_files_of_them_keep_apart(parts, texts, tmp_path, capsys):
    for k, part in enumerate(parts):
        part.save(made(tmp_path / f"s{k}") / "stats.safetensors")
        write_json(
            tmp_path / f"s{k}" / "run.json",
            {"verb": "record", "texts": {"en": [f"e{k}"], "fr": ["f"]}, **part.manifest},
        )
    both = [str(tmp_path / name) for name in ("s0", "s1")]
    assert cli(["merge", *both, "--out", str(tmp_path / "run")]) == 0
    said = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (said["verb"], said["texts"]) == ("merge", {"en": ["e0", "e1"], "fr": ["f"]})
    assert said["made_from"] == lape.ActivationStats.load(tmp_path / "run").made_from
    assert cli(["identify", str(tmp_path / "run"), "--no-reliability"]) == 0
    more = record(
        model_of("llama"), tokenizer_of(), {"en": Documents(some_texts(9, 77)), "fr": Documents(some_texts(9, 78))}
    )
    more.save(tmp_path / "more.safetensors")
    assert (
        cli(["merge", str(tmp_path / "run"), str(tmp_path / "more.safetensors"), "--out", str(tmp_path / "two")]) == 0
    )
    html = text_of(page.html(gather(tmp_path / "two")))
    assert html.count("text of en ") == 2, "each of a language's texts"
    for name in ("a", "b"):
        file = str(tmp_path / f"{name}.safetensors")
        assert cli(["merge", *both, "--out", file]) == 0
        assert cli(["identify", file, "--rate", "0.2"]) == 0
        assert (tmp_path / f"{name}.neurons.reliability.parquet").is_file()
        assert len(lape.LanguageNeurons.load(tmp_path / f"{name}.neurons.safetensors").union)
    for verb in ("report", "figures"):
        capsys.readouterr()
        assert cli([verb, file]) == 2
        assert f"lape merge {file} --out RUN" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(FileError, match="lape merge"):
        lape.report(file)
    assert data_of(page.html(gather(tmp_path / "run")))
