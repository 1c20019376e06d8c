"""The command line as a user meets it: what it makes, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import BertConfig, BertLMHeadModel, MambaConfig, MambaForCausalLM

from lape.cli import run
from lape.cli.common import out
from lape.cli.perplexity import own_tables, verdict
from lape.experiments.perplexity.run import SUMMARY
from lape.measure.controlled import CONTROLLED
from lape.recording.engine import Work
from lape.recording.engines.local import Local
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats
from support.tiny import tiny, tiny_tokenizer
from support.told import without_steps

ENGLISH = "the cat sat on the mat and the dog ate the rat\n" * 12
FRENCH = "le chat dort sur le lit et le chien mange le rat\n" * 12


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model, texts in two languages, and a run that recorded and identified."""
    folder = tmp_path_factory.mktemp("cli")
    tiny("llama", torch.float32).save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "en.txt").write_text(ENGLISH)
    (folder / "fr.txt").write_text(FRENCH)
    (folder / "en2.txt").write_text("a dog and a rat ate the mat\n" * 30)
    (folder / "fr2.txt").write_text("un chien et un rat sur le lit\n" * 30)
    assert run(_record(folder, folder / "run")) == 0
    assert run(["identify", str(folder / "run"), "--rate", "0.2", "--filter", "0.7", "--bar", "0.7"]) == 0
    return folder


def _record(folder: Path, out: Path, *more: str) -> list[str]:
    texts = ["--text", f"en={folder}/en.txt", "--text", f"fr={folder}/fr.txt"]
    return ["record", str(folder / "model"), *texts, "--out", str(out), "--row-tokens", "32", "--device", "cpu", *more]


def _refused(capsys: pytest.CaptureFixture[str], place: Path, arguments: list[str], *words: str) -> None:
    """Exit code 2, one paragraph that holds the words, and nothing new in the folder."""
    before = sorted(place.rglob("*"))
    capsys.readouterr()
    assert run(arguments) == 2
    said = without_steps(capsys.readouterr().err)
    assert "Traceback" not in said
    assert said.startswith("error: ")
    assert len(said) < 1500
    for word in words:
        assert word in said.replace("\n", " "), said
    assert sorted(place.rglob("*")) == before


def test_record_leaves_a_run_that_says_where_it_came_from(folder: Path) -> None:
    manifest = json.loads((folder / "run" / "run.json").read_text())
    assert manifest["options"]["row_tokens"] == 32
    assert len(manifest["model"]["checksum"]) == 64
    assert set(manifest["corpus"]) == {"en", "fr"}
    assert not list((folder / "run").glob("*.checkpoint"))


def test_identify_and_show_agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    neurons = LanguageNeurons.load(folder / "run")
    assert run(["show", str(folder / "run")]) == 0
    shown = capsys.readouterr().out
    for language, found in neurons.items():
        assert any(line.split()[:2] == [language, str(len(found))] for line in shown.splitlines() if line.strip())


def test_identify_says_that_stability_is_not_validity(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["identify", str(folder / "run"), "--out", str(tmp_path / "n.safetensors")]) == 0
    assert "stability, not validity" in capsys.readouterr().out
    assert (tmp_path / "n.reliability.parquet").is_file()


def test_perplexity_writes_its_tables(folder: Path, tmp_path: Path) -> None:
    texts = ["--text", f"en={folder}/en2.txt", "--text", f"fr={folder}/fr2.txt"]
    out = tmp_path / "ppl"
    assert (
        run(
            [
                "perplexity",
                str(folder / "model"),
                str(folder / "run"),
                *texts,
                "--draws",
                "1",
                "--out",
                str(out),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    table = pl.read_parquet(out / "perplexity.parquet")
    assert table.select("off", "language").rows() == [("en", "en"), ("en", "fr"), ("fr", "en"), ("fr", "fr")]
    assert json.loads((out / "run.json").read_text())["options"]["draws"] == 1
    assert pl.read_parquet(out / "lines.parquet")["nll"].is_finite().all()


def test_perplexity_leaves_a_recording_that_was_stopped_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = tmp_path / "out.partial"
    stopped.mkdir()
    (stopped / "state.checkpoint").write_text("{}")
    (stopped / "en.checkpoint").write_bytes(b"counts")
    arguments = ["perplexity", str(folder / "model"), str(folder / "run"), "--text", f"en={folder}/en2.txt"]
    _refused(capsys, tmp_path, [*arguments, "--out", str(tmp_path / "out")], "a recording that was stopped")
    assert (stopped / "en.checkpoint").read_bytes() == b"counts"


def test_published_format_goes_out_and_comes_back(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pth"
    LanguageNeurons.load(folder / "run").save(path)
    assert run(["show", str(path), "--languages", "en,fr", "--width", "44"]) == 0
    _refused(
        capsys, tmp_path, ["show", str(path)], "Give --languages en,zh,… --width 11008, for instance.", "in this order"
    )


def test_merge_adds_shards(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--tokens", "200", "--batch-tokens", "32")
    assert run(_record(folder, tmp_path / "whole", *small)) == 0
    for number in (1, 2, 3):
        capsys.readouterr()
        assert run(_record(folder, tmp_path / f"s{number}", *small, "--shard", f"{number}/3")) == 0
        said = capsys.readouterr().out
    assert "Next: record what is missing (en: shard 1, 2 of 3; fr: shard 1, 2 of 3), then lape merge " in said
    parts = [str(tmp_path / f"s{number}") for number in (3, 1, 2)]
    out = ["--out", str(tmp_path / "all.safetensors")]
    assert run(["merge", *parts, *out]) == 0
    whole, merged = ActivationStats.load(tmp_path / "whole"), ActivationStats.load(tmp_path / "all.safetensors")
    assert all(torch.equal(merged[k].fires, whole[k].fires) for k in whole.languages)
    assert merged.manifest == whole.manifest
    out = ["--out", str(tmp_path / "none.safetensors")]
    _refused(capsys, tmp_path, ["merge", *parts[:2], *out], "Missing: en: shard 2 of 3; fr: shard 2 of 3")
    _refused(capsys, tmp_path, ["merge", *parts, parts[0], *out], "the whole", "shard 3 of 3", "overlap")
    _refused(
        capsys, tmp_path, ["merge", str(tmp_path / "whole"), parts[0], *out], "the whole", "shard 3 of 3", "overlap"
    )
    _refused(capsys, tmp_path, _record(folder, tmp_path / "x", "--shard", "4/3"), "1/16 to 16/16")


@pytest.mark.parametrize(
    ("units", "said"),
    [((20, 30), ""), ((1, 25), "en has 1."), ((7, 9), "en has 7, fr has 9.")],
)
def test_each_language_without_an_interval_is_named_with_the_reason(units, said, capsys):
    """Also where others have one, and whatever the number."""
    known = {name: 1.0 for name, kind in SUMMARY.items() if kind == pl.Float64}
    rows = [
        known | {"off": k, "language": k, "neurons": 5, "units": n, "low": 0.1 if n >= 20 else None}
        for k, n in zip(("en", "fr"), units, strict=True)
    ]
    out.print(own_tables(pl.DataFrame(rows, schema=SUMMARY), pl.DataFrame(schema=CONTROLLED)))
    told = " ".join(capsys.readouterr().out.split())
    assert ("No interval where a text has under 20 documents" in told) == bool(said)
    assert said in told


def test_a_language_without_neurons_is_said_to_have_no_control_for_that_reason(capsys):
    known = {name: 1.0 for name, kind in SUMMARY.items() if kind == pl.Float64}
    rows = [known | {"off": k, "language": k, "neurons": n, "units": 30} for k, n in (("en", 0), ("fr", 7), ("de", 5))]
    rows = [row | ({"random_mean": None} if row["off"] != "de" else {}) for row in rows]
    out.print(own_tables(pl.DataFrame(rows, schema=SUMMARY), pl.DataFrame(schema=CONTROLLED)))
    told = " ".join(capsys.readouterr().out.split())
    assert "No control for en: it has no neurons." in told
    assert "No control for fr: none was drawn, or too few other neurons are left." in told
    assert "for de" not in told


def test_a_kind_of_control_that_was_not_asked_for_is_not_missed(capsys):
    known = {name: 1.0 for name, kind in SUMMARY.items() if kind == pl.Float64}
    rows = [known | {"off": k, "language": k, "neurons": 5, "units": 30, "random_mean": None} for k in ("en", "fr")]
    table, beside = pl.DataFrame(rows, schema=SUMMARY), pl.DataFrame(schema=CONTROLLED)
    out.print(own_tables(table, beside, ("matched", "gate")))
    assert "No control" not in capsys.readouterr().out
    out.print(own_tables(table, beside, ("random", "matched")))
    assert "No control for en, fr: none was drawn" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("inside", [True, False])
def test_what_comes_next_is_typed_so_that_a_shell_reads_it_and_shows_the_result(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], inside: bool
) -> None:
    run_of = tmp_path / "my run"
    assert run(_record(folder, run_of)) == 0
    assert f"Next: lape identify '{run_of}'\n" in capsys.readouterr().out
    assert run(["perplexity", "m", str(run_of), "--text", f"en={folder}/en2.txt"]) == 2
    assert f"Type: lape identify '{run_of}'" in capsys.readouterr().err
    assert run(["identify", str(run_of), "--rate", "0.2", "--filter", "0.7", "--bar", "0.7"]) == 0
    texts = ["--text", f"en={folder}/en2.txt", "--text", f"fr={folder}/fr2.txt"]
    elsewhere = tmp_path / "my examples"
    where = [] if inside else ["--out", str(elsewhere)]
    capsys.readouterr()
    assert run(["examples", str(folder / "model"), str(run_of), *texts, *where, "--device", "cpu"]) == 0
    assert f"Next: lape report '{run_of if inside else elsewhere}'\n" in capsys.readouterr().out


def test_export_writes_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    assert (
        run(
            [
                "export",
                str(folder / "model"),
                str(folder / "run"),
                "--off",
                "fr",
                "--out",
                str(tmp_path / "no-fr"),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert (tmp_path / "no-fr" / "config.json").is_file()
    assert (tmp_path / "no-fr" / "tokenizer.json").is_file()


def test_doctor_says_what_was_proven(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(folder / "model"), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "132 neurons (3 × 44)" in said
    assert "bit for bit" in said


def test_a_config_file_gives_the_options(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(f'text = ["en={folder}/en.txt", "fr={folder}/fr.txt"]\ntokens = 150\nrow-tokens = 24\n')
    assert (
        run(["record", str(folder / "model"), "--out", str(tmp_path / "r"), "--device", "cpu", "--config", str(config)])
        == 0
    )
    stats = ActivationStats.load(tmp_path / "r")
    assert int(stats["en"].tokens.sum()) == 150
    assert stats.manifest["options"]["row_tokens"] == 24


def test_help_does_not_import_torch() -> None:
    heavy = "{'torch', 'polars', 'transformers'} & sys.modules.keys()"
    code = f"import sys; from lape.cli import run; run(['--help']); run(['--version']); sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


# --- what a user can get wrong -------------------------------------------------------------------------------------


def _text(folder: Path, tmp_path: Path, french: str) -> list[str]:
    return [
        "record",
        str(folder / "model"),
        "--text",
        f"en={folder}/en.txt",
        "--text",
        french,
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]


def test_missing_text(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _refused(capsys, tmp_path, _text(folder, tmp_path, f"fr={tmp_path}/nothing.txt"), "no text at", "nothing.txt")


def test_empty_text(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").touch()
    _refused(capsys, tmp_path, _text(folder, tmp_path, f"fr={tmp_path}/empty.txt"), "fr is empty", "empty.txt")


def test_wrong_encoding(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin.txt").write_bytes("déjà vu\n".encode("latin-1"))
    _refused(capsys, tmp_path, _text(folder, tmp_path, f"fr={tmp_path}/latin.txt"), "not UTF-8", "iconv")


@pytest.mark.parametrize("flag", ["klingonish=x.txt", "=x.txt", "fr", "fr="])
def test_malformed_language_or_flag(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    _refused(capsys, tmp_path, _text(folder, tmp_path, flag), "xpected")


def test_one_language_only(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = [
        "record",
        str(folder / "model"),
        "--text",
        f"en={folder}/en.txt",
        "--out",
        str(tmp_path / "one"),
        "--device",
        "cpu",
    ]
    assert run(alone) == 0
    _refused(capsys, tmp_path, ["identify", str(tmp_path / "one")], "Only en", "Record two or more")


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (
            lambda: MambaForCausalLM(MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=300, state_size=4)),
            "No MLP neurons",
        ),
        (
            lambda: BertLMHeadModel(
                BertConfig(
                    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=300
                )
            ),
            "not causal",
        ),
    ],
    ids=["without MLP neurons", "encoder"],
)
def test_models_that_do_not_fit(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make, word: str
) -> None:
    make().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    _refused(capsys, tmp_path, ["doctor", str(tmp_path / "model"), "--device", "cpu"], word)


def test_a_folder_that_holds_no_model(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _refused(capsys, tmp_path, ["doctor", str(tmp_path)], "could not be loaded", "config.json")


@pytest.mark.parametrize("damage", ["truncated", "garbage", "another file"])
def test_damaged_statistics(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    whole = (folder / "run" / "stats.safetensors").read_bytes()
    path = tmp_path / "s.safetensors"
    source = (folder / "run" / "neurons.safetensors").read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "garbage": b"\x07" * 500, "another file": source}[damage])
    _refused(capsys, tmp_path, ["identify", str(path)], "s.safetensors")


def test_statistics_of_different_models(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny("llama", torch.float32)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] += 1e-3
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    texts = ["--text", f"en={folder}/en.txt", "--text", f"fr={folder}/fr.txt", "--row-tokens", "32", "--device", "cpu"]
    assert run(["record", str(tmp_path / "model"), *texts, "--out", str(tmp_path / "other")]) == 0
    a, b = (ActivationStats.load(p).manifest["model"]["checksum"] for p in (folder / "run", tmp_path / "other"))
    _refused(
        capsys,
        tmp_path,
        ["merge", str(folder / "run"), str(tmp_path / "other"), "--out", str(tmp_path / "m.safetensors")],
        a[:12],
        b[:12],
    )


class _Code:
    def __reduce__(self):
        return (os.system, ("touch RAN",))


def test_code_in_a_pth_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pth").write_bytes(pickle.dumps([_Code()]))
    torch.save([[_Code()]], tmp_path / "worse.pth")
    for name in ("bad.pth", "worse.pth"):
        _refused(capsys, tmp_path, ["show", name, "--languages", "en", "--width", "4"], name, "never run")
    assert not (tmp_path / "RAN").exists()


def test_an_output_that_exists(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    _refused(capsys, tmp_path, _record(folder, tmp_path / "out"), str(tmp_path / "out"), "--overwrite")
    _refused(capsys, folder, ["identify", str(folder / "run")], "neurons.safetensors", "--overwrite")


def test_overwrite_never_deletes_what_lape_did_not_write(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    _refused(capsys, tmp_path, [*_record(folder, tmp_path / "mine"), "--overwrite"], str(tmp_path / "mine"))
    for place in (".", "..", "/"):
        _refused(capsys, tmp_path, [*_record(folder, Path(place)), "--overwrite"], "cannot be the output")


def test_new_neurons_do_not_keep_the_old_ones_stability(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(_record(folder, tmp_path / "r")) == 0
    assert run(["identify", str(tmp_path / "r"), "--rate", "0.2"]) == 0
    assert run(["identify", str(tmp_path / "r"), "--rate", "0.3", "--no-reliability", "--overwrite"]) == 0
    capsys.readouterr()
    assert run(["show", str(tmp_path / "r")]) == 0
    assert "stable" not in capsys.readouterr().out


def test_on_a_full_disk_the_old_neurons_and_their_table_stay(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(_record(folder, tmp_path / "r")) == 0
    assert run(["identify", str(tmp_path / "r"), "--rate", "0.2"]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()}
    assert "neurons.reliability.parquet" in before

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for full_here in ("lape.cli.identify.save_table", "lape.store.tensors._save"):
        with monkeypatch.context() as patch:
            patch.setattr(full_here, full)
            assert run(["identify", str(tmp_path / "r"), "--rate", "0.3", "--overwrite"]) == 2
        assert {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()} == before


def test_rows_longer_than_the_model_reads(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["2000" if word == "32" else word for word in _record(folder, tmp_path / "r")]
    _refused(capsys, tmp_path, arguments, "1024 positions", "--row-tokens 1024")


def test_text_with_nothing_to_measure(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "blank.txt").write_text("\n \n\n")
    arguments = ["perplexity", str(folder / "model"), str(folder / "run"), "--text", f"en={tmp_path}/blank.txt"]
    _refused(capsys, tmp_path, [*arguments, "--out", str(tmp_path / "p"), "--device", "cpu"], "nothing to measure")


def test_sites_named_by_hand_work_in_every_verb(folder: Path, tmp_path: Path) -> None:
    named = ["--sites", "model.layers.*.mlp.act_fn", "model.layers.*.mlp.down_proj"]
    assert run([*_record(folder, tmp_path / "r"), *named]) == 0
    a, b = ActivationStats.load(folder / "run"), ActivationStats.load(tmp_path / "r")
    assert torch.equal(a["fr"].fires, b["fr"].fires)


def test_a_config_file_that_is_no_toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.toml").write_text("tokens = = 3")
    _refused(capsys, tmp_path, ["show", "x", "--config", str(tmp_path / "bad.toml")], "bad.toml", "not TOML")


def test_the_verdict_claims_nothing_that_was_not_shown() -> None:
    def said(control: str = "matched", **row: float | None) -> str:
        whole = {"language": "fr", "control": control, **row}
        return verdict(pl.DataFrame([whole], schema=CONTROLLED))

    both = {"difference": 0.5, "more": 9.0}
    sure = {"difference_low": 0.1, "difference_high": 0.9, "more_low": 2.0, "more_high": 12.0}
    shown = said(**both, **sure, energy_ratio=1.2)
    assert "interval above 0): fr. And" in shown
    assert shown.endswith("(per sentence): fr.")
    lacking = said(**both)  # under 20 units, or one draw
    assert lacking.count("none. Not known, for lack of an interval (under 20 sentences or documents, or one draw") == 2
    assert lacking.endswith("--elsewhere of 3 or more): fr.")
    one_draw_elsewhere = said(**both, difference_low=0.1, difference_high=0.9)
    assert "interval above 0): fr. And" in one_draw_elsewhere
    assert "(per sentence): none. Not known, for lack of an interval" in one_draw_elsewhere
    assert "interval above 0): none. Not shown: fr. And" in said(**both, **sure | {"difference_low": -0.1})
    assert said(**both, **sure | {"more_low": -0.1}).endswith("none. Not shown: fr."), "it may hurt the others as much"
    weaker = said(**both, **sure, energy_ratio=1.3)
    assert weaker.count("none. Against weaker controls alone: fr.") == 2
    assert said(**both, **sure, energy_ratio=0.5).endswith("(per sentence): fr."), "a stronger control makes it harder"
    assert said(difference=0.5).endswith("for lack of controls or of other languages: fr."), (
        "a single language has no others"
    )
    assert said().count("for lack of controls") == 2
    assert "fr" not in said("random", **both), "a control that is easy to beat shows nothing"


def test_recorded_text_is_not_evaluated(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "perplexity",
        str(folder / "model"),
        str(folder / "run"),
        "--text",
        f"en={folder}/en.txt",
        "--out",
        str(tmp_path / "p"),
    ]
    _refused(capsys, tmp_path, [*arguments, "--device", "cpu"], "recorded", "--allow-recorded")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["record"], "MODEL is missing"),
        (["recrod"], "recrod"),
        (["show", "x", "--bogus", "1"], "--bogus"),
        (["identify", "x", "--rate", "7"], "rate is 7"),
        (["record", "m", "--text", "fr=a", "--out", "o", "--tokens", "many"], "many"),
        (["show", "nowhere.safetensors"], "does not exist"),
        (["show", "x", "--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_slips_of_the_keyboard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    _refused(capsys, tmp_path, arguments, word)


def _script(arguments: list[str], limit: int | None = None) -> list[str]:
    cap = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));" if limit else ""
    return [sys.executable, "-c", f"{cap}from lape.cli import main; main({arguments!r})"]


@pytest.mark.parametrize("limit", [400, 5000])
def test_a_full_disk(folder: Path, tmp_path: Path, limit: int) -> None:
    """A limit on file size stands in for the disk: the first meets the tokens, the second the statistics."""
    done = subprocess.run(
        _script(_record(folder, tmp_path / "out"), limit), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.tmp"))
    assert not (tmp_path / "out").exists()


def test_ctrl_c(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(ENGLISH * 4000)
    arguments = [
        "record",
        str(folder / "model"),
        "--text",
        f"en={tmp_path}/long.txt",
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    child = subprocess.Popen(_script(arguments), stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out.partial").exists():
        time.sleep(0.05)
        assert child.poll() is None
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Ctrl-C" in said
    assert "Traceback" not in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.txt"]


def test_a_stopped_recording_goes_on_and_says_which_languages_are_done(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Local.count

    def stopped(self: Local, work: Work) -> dict[str, torch.Tensor]:
        if work.corpus.language == "fr":
            raise KeyboardInterrupt
        return inner(self, work)

    with monkeypatch.context() as patch:
        patch.setattr(Local, "count", stopped)
        assert run(_record(folder, tmp_path / "r")) == 130
    assert "goes on from there" in capsys.readouterr().err
    assert run(_record(folder, tmp_path / "r")) == 0
    assert "Found a run that was stopped, with en recorded:" in capsys.readouterr().err


def test_a_recording_that_another_process_makes_is_refused_at_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lape.cli.record.load_proven", None)  # no model is loaded for it
    hold = "import sys; from pathlib import Path; from lape.store.lock import Lock; lock = Lock(Path(sys.argv[1])); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "r")], **pipes) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert run(_record(folder, tmp_path / "r")) == 2
        other.communicate(b"\n")
    said = capsys.readouterr().err
    assert "is being written by another process" in said
    assert "Found" not in said
