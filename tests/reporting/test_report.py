"""A report shows what the tables say, names what is not there, and lets no text out of its place."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from html import unescape

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lape
from lape.cli import main
from lape.detect.identify import identify
from lape.errors import FileError, OptionError
from lape.experiments import experiments
from lape.reporting import browser, page, report, safe
from lape.reporting.figures import draw
from lape.reporting.gather import gather
from support.reports import HOSTILE, STUDY, contexts_of, data_of, made, text_of

pytest.importorskip("matplotlib", reason="needs the extra report")


def test_a_run_says_what_it_found_and_what_is_missing(run):
    html = page.html(gather(run))
    neurons, stats = lape.LanguageNeurons.load(run), lape.ActivationStats.load(run)
    text = text_of(html)
    for language, found in neurons.items():
        assert f"{len(found)} ({len(neurons.only(language))} unshared)" in text
        assert f"{int(stats[language].tokens.sum()):,}" in text
    assert f"{len(neurons.union):,} of {neurons.space}" in text
    assert "lape perplexity" in text
    assert "lape force" in text
    assert "lape examples" in text
    assert 'id="perplexity"' not in html
    assert 'id="forcing"' not in html


def test_the_matrix_holds_the_table_in_every_unit(whole):
    html = page.html(gather(whole))
    table = pl.read_parquet(whole / "perplexity.parquet")
    views = {name: view["values"] for name, view in data_of(html)["grids"]["loss"].items()}
    off, evaluated = (table[name].unique(maintain_order=True).to_list() for name in ("off", "language"))
    for row in table.iter_rows(named=True):
        r, c = off.index(row["off"]), evaluated.index(row["language"])
        for name in ("delta_token", "delta_sentence", "delta_character", "percent"):
            assert views[name][r][c] == pytest.approx(row[name])
        if row["matched_mean"] is None:
            assert views["matched"][r][c] is None
        else:
            assert views["matched"][r][c] == pytest.approx(row["delta_token"] - row["matched_mean"])


def test_the_browser_holds_the_selected_neurons_as_the_files_have_them(whole):
    held = data_of(page.html(gather(whole)))["browser"]
    neurons, stats = lape.LanguageNeurons.load(whole), lape.ActivationStats.load(whole)
    languages, probabilities = list(neurons), stats.probabilities()
    assert [one["f"] for one in held["neurons"]] == list(neurons.union)
    for n, one in enumerate(held["neurons"]):
        assert [languages[k] for k in one["g"]] == [k for k in neurons if one["f"] in neurons[k]]
        assert one["p"] == pytest.approx(probabilities[:, one["f"]].tolist(), abs=6e-5)
        assert one["m"] == pytest.approx([float(stats.mean(k)[one["f"]]) for k in languages], rel=6e-3)
        assert neurons.space.addresses(torch.tensor([one["f"]])).row(0) == (one["l"], one.get("x"), one["i"])
        assert one["e"] == pytest.approx(float(neurons.scores[n]), abs=6e-5)
        assert len(held["contexts"][str(one["f"])]) == browser.CONTEXTS
    text, value, digits = held["contexts"][str(held["neurons"][0]["f"])][0]
    assert held["texts"][text] == ["fr", ["hello", " you"]]
    assert (value, digits) == (2.0, "90")


def test_as_many_texts_are_left_out_as_it_takes_and_it_says_so(whole, monkeypatch):
    held = data_of(page.html(gather(whole)))["browser"]
    del held["controls"]  # few
    size = len(safe.embedded(held))
    monkeypatch.setattr(browser, "ROOM", size - 1)
    less = data_of(page.html(gather(whole)))["browser"]
    assert all(len(one) == browser.CONTEXTS - 1 for one in less["contexts"].values())
    assert f"all but {browser.CONTEXTS - 1} (up to 7 of each" in less["left_out"]
    monkeypatch.setattr(browser, "ROOM", 10)
    assert data_of(page.html(gather(whole)))["browser"]["contexts"] == {}


def test_hostile_text_stays_text(whole):
    neurons = lape.LanguageNeurons.load(whole)
    contexts_of(neurons, HOSTILE, 2).write_parquet(whole / "examples" / "contexts.parquet")
    (whole / "run.json").write_text(
        json.dumps({"model": {"id": "<b>bold</b>"}, "command": ["record", "</code><script>alert(2)</script>"]})
    )
    html = page.html(gather(whole))
    assert html.count("<script") == 2  # the data and our own
    assert "alert(1)" not in html.replace("\\u003cscript\\u003ealert(1)", "")
    assert "\u202e" not in html
    assert "\x00" not in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert len(html) < 1_000_000
    pieces = data_of(html)["browser"]["texts"][0][1]
    assert pieces[0].startswith("</script><script>alert(1)</script>")
    assert len(pieces[0]) < 100


ACTS = "\u202e\u2066\u2028\x00\x1b]0;x\x07"
"""Turns the direction of writing, breaks lines, speaks to terminals."""


def test_signs_that_act_are_named_wherever_a_file_speaks(whole):
    record = {
        "verb": "record",
        "model": {name: f"{ACTS}{name}" for name in ("id", "revision", "checksum", "config", "dtype")},
        "tokenizer": {"hash": ACTS},
        "versions": {ACTS: ACTS},
        "command": ["record", ACTS],
    }
    (whole / "run.json").write_text(json.dumps(record))
    html = page.html(gather(whole))
    assert not {sign for sign in html if sign in ACTS.removesuffix("]0;x\x07")}
    assert "<title>⟨U+202E⟩⟨U+2066⟩⟨U+2028⟩⟨U+0000⟩⟨U+001B⟩]0;x⟨U+0007⟩id" in html
    assert text_of(html).count("⟨U+202E⟩") >= 10


@given(st.text(max_size=80))
def test_embedded_json_is_what_went_in_and_ends_no_element(text):
    written = safe.embedded({"text": text})
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written)["text"] == text


@given(st.text(max_size=60), st.integers(1, 40))
def test_shown_text_has_no_signs_that_act(text, most):
    shown = safe.shown(text, most)
    assert not any(0x202A <= ord(sign) <= 0x202E or (ord(sign) < 32 and sign not in "\n\t") for sign in shown)
    if len(text) <= most and text.isascii() and text.isprintable():
        assert shown == text


def test_a_study_is_shown_with_its_claims_and_its_figures():
    html = page.html(gather(STUDY))
    text = text_of(html)
    record = json.loads((STUDY / "run.json").read_text())
    held = sum(one["verdict"].startswith("holds") for one in record["claims"])
    said = f"Of {len(record['claims'])} claims, {held} hold here."
    assert said in text
    ran = [one for one in experiments().values() if one.study != "asked" and one.name not in record["not_run"]]
    assert len(ran) == 12
    for section in ("cards", "claims", *(one.name for one in ran)):
        assert f'<section id="{section}"' in html
    own = pl.read_parquet(STUDY / "tables" / "perplexity.parquet").filter(
        (pl.col("off") == "zh") & (pl.col("language") == "zh")
    )
    assert (
        f"raises its loss by {own['delta_token'][0]:.2f} nats per token ({own['low'][0]:.2f} to {own['high'][0]:.2f})"
        in text
    )
    assert len(html) < 4_000_000


def test_tables_of_an_earlier_version_are_named_and_not_shown():
    text = text_of(page.html(gather(STUDY.parent / "gemma-3-270m-eleven")))
    assert "A part of the study (controlled, published, main)" in text


def test_the_pictures_are_those_that_lape_figures_writes(whole, tmp_path):
    drawn = draw(whole, format="svg", out=tmp_path / "figures")
    html = page.html(gather(whole))
    assert {"layers.svg", "overlap.svg", "perplexity.svg", "own.svg"} <= set(drawn.paths)
    for name, path in drawn.paths.items():
        assert base64.b64encode(path.read_bytes()).decode() in html, name
        assert drawn.captions[path.stem] in unescape(html), name


def test_nothing_is_fetched(whole):
    for folder in (whole, STUDY):
        html = page.html(gather(folder))
        assert "default-src 'none'" in html
        addresses = re.findall(r'(?:src|href|xlink:href|action)="([^"#]+)', html) + re.findall(r"url\(([^)#]+)", html)
        assert {one for one in addresses if not one.startswith("data:image/svg+xml;base64,")} <= {"data:,"}
        assert set(re.findall(r"https?://[^\"' <]+", html)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }


def test_a_report_is_made_anew_and_nothing_else_is_written_over(whole, tmp_path):
    path = lape.report(whole)
    assert path == whole / "report.html"
    before = path.read_bytes()
    assert lape.report(whole).read_bytes() == before
    mine = tmp_path / "mine.html"
    mine.write_text("<html>mine</html>")
    with pytest.raises(FileError, match="is no report of lape"):
        report(whole, out=mine)
    assert mine.read_text() == "<html>mine</html>"
    assert report(whole, out=tmp_path / "other.html").exists()


def test_what_cannot_be_reported_is_said(tmp_path, monkeypatch, run):
    with pytest.raises(FileError, match="none is not there"):
        report(tmp_path / "none")
    with pytest.raises(FileError, match="holds nothing to report"):
        report(made(tmp_path / "empty"))
    broken = made(tmp_path / "broken")
    (broken / "perplexity.parquet").write_bytes(b"PAR1")
    with pytest.raises(FileError, match="was not read"):
        report(broken)
    (broken / "perplexity.parquet").unlink()
    (broken / "neurons.safetensors").write_bytes((run / "neurons.safetensors").read_bytes())
    (broken / "run.json").write_text("{")
    with pytest.raises(FileError, match="not JSON"):
        report(broken)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(OptionError, match=r"jinja2, matplotlib.*\.\[report\]"):
        report(run)


def test_the_command_line(whole, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(whole)])
    assert stopped.value.code == 0
    assert "report.html" in capsys.readouterr().out.replace("\n", "")
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(whole)])
    assert stopped.value.code == 0, "a report is made from the run alone, and made again"


def test_a_run_without_sums_or_scores_is_shown_too(tmp_path):
    """As from counts made elsewhere."""
    fires = torch.tensor([[[5, 0, 9, 1]], [[0, 7, 9, 1]]])
    stats = lape.ActivationStats.from_counts(languages=["en", "fr"], tokens=[10, 10], fires=fires)
    folder = made(tmp_path / "counts")
    stats.save(folder / "stats.safetensors")
    identify(stats, per_language=1, reliability=False).save(folder / "neurons.safetensors")
    assert "m" not in data_of(page.html(gather(folder)))["browser"]["neurons"][0]
