"""The report in a browser: it renders, switches, searches, opens a neuron by its link, and asks nothing of the network."""

from __future__ import annotations

import json
import time

import polars as pl
import pytest

import lape
from lape.reporting import page
from lape.reporting.gather import gather
from lape.reporting.safe import named, shown
from support.browsing import faults, opened
from support.reports import HOSTILE, STUDY, contexts_of

pytest.importorskip("matplotlib", reason="needs the extra report")
SECTIONS = ("findings", "cards", "layers", "overlap", "perplexity", "neurons", "missing", "provenance")


def written(folder, path):
    path.write_text(page.html(gather(folder)), encoding="utf-8")
    return path.as_uri()


def harmless(watched, address):
    assert watched.said == []
    assert {one.split("#")[0] for one in watched.asked if not one.startswith("data:")} == {address}


def test_every_section_renders_switches_and_search_work(whole, tmp_path):
    address = written(whole, tmp_path / "report.html")
    neurons = lape.LanguageNeurons.load(whole)
    with opened(address) as watched:
        shown = watched.page
        for section in SECTIONS:
            box = shown.locator(f"#{section}").bounding_box()
            assert box is not None, section
            assert box["height"] > 60, section
        cell = shown.locator("#loss-table tbody td").first
        table = pl.read_parquet(whole / "perplexity.parquet")
        assert float(cell.inner_text().replace("−", "-")) == pytest.approx(table["delta_token"][0], abs=0.0051)
        shown.get_by_label("nats per sentence").check()
        assert float(cell.inner_text().replace("−", "-")) == pytest.approx(table["delta_sentence"][0], abs=0.051)
        shown.get_by_label("Jaccard (shared ÷ either)").check()
        assert shown.locator("#overlap-table tbody td").first.inner_text() == "1.00"

        shown.get_by_label("Language", exact=True).select_option("fr")
        assert shown.locator("#count").inner_text().startswith(f"{len(neurons['fr'])} of {len(neurons.union)} neurons")
        layer, _, index = neurons["fr"].addresses().row(0)
        shown.get_by_label("Search").fill(f"{layer}.{index}")
        assert shown.locator("#found tbody tr").first.locator("a").inner_text().startswith(f"{layer}.{index}")
        shown.get_by_label("Search").fill("no such word anywhere")
        assert shown.locator("#found tbody tr").count() == 0
        harmless(watched, address)


def test_a_neuron_opens_by_its_link_and_by_the_keyboard(whole, tmp_path):
    address = written(whole, tmp_path / "report.html")
    neurons = lape.LanguageNeurons.load(whole)
    layer, _, index = neurons.union.addresses().row(3)
    with opened(f"{address}#neuron={layer}.{index}") as watched:
        detail = watched.page.locator("#neuron")
        assert detail.locator("h3").inner_text() == f"Neuron {layer}.{index}"
        assert detail.locator(".context").count() == 5
        assert detail.locator(".context").first.locator("mark").all_inner_texts() == ["hello", " you"]
        detail.get_by_role("button", name="Close").press("Enter")
        assert detail.is_hidden()
        link = watched.page.locator("#found tbody a").first
        name = link.inner_text()
        link.press("Enter")
        detail.get_by_role("heading", name=f"Neuron {name}", exact=True).wait_for()
        assert watched.page.evaluate("document.activeElement.id") == "neuron"
        harmless(watched, address)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_it_fits_and_has_no_serious_accessibility_fault(whole, tmp_path, width, scheme):
    neurons = lape.LanguageNeurons.load(whole)
    address = written(whole, tmp_path / "report.html")
    layer, _, index = neurons.union.addresses().row(0)
    with opened(f"{address}#neuron={layer}.{index}", width=width, scheme=scheme) as watched:
        assert faults(watched.page) == []
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_text_does_no_harm(whole, tmp_path):
    neurons = lape.LanguageNeurons.load(whole)
    contexts_of(neurons, HOSTILE, 2).write_parquet(whole / "examples" / "contexts.parquet")
    address = written(whole, tmp_path / "report.html")
    layer, _, index = neurons.union.addresses().row(0)
    with opened(f"{address}#neuron={layer}.{index}") as watched:
        assert watched.page.locator("#neuron .context mark").first.inner_text().startswith("</script><script>alert(1)")
        assert watched.page.locator("#neuron img").count() == 0
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 1280
        harmless(watched, address)


def test_a_twin_whose_every_name_is_hostile_is_the_same_page(whole, tmp_path):
    """Model, revision, versions, command and texts speak HTML and turn the direction of writing: neither a tag more nor a request."""

    def tags(name, text):
        record = {"verb": "record", "model": {"id": text, "revision": text, "dtype": text}, "command": ["record", text]}
        (whole / "run.json").write_text(json.dumps({**record, "versions": {text: text}, "tokenizer": {"hash": text}}))
        contexts_of(lape.LanguageNeurons.load(whole), text, 2).write_parquet(whole / "examples" / "contexts.parquet")
        address = written(whole, tmp_path / name)
        with opened(address) as watched:
            found = watched.page.eval_on_selector_all("*", "all => all.map(one => one.tagName)")
            title = watched.page.title()
            harmless(watched, address)
        return found, title

    hostile = HOSTILE[:80] + "<svg onload=alert(3)>\"'><iframe src=//elsewhere.example>\u2028\x1b]0;x\x07"
    (plain, _), (other, title) = tags("benign.html", "benign"), tags("hostile.html", hostile)
    assert plain == other
    assert "⟨U+202E⟩evil⟨U+0000⟩" in title


def test_the_study_opens_at_once_and_has_no_serious_accessibility_fault(tmp_path):
    began = time.monotonic()
    address = written(STUDY, tmp_path / "study.html")
    made = time.monotonic() - began
    assert (tmp_path / "study.html").stat().st_size < 4_000_000
    with opened(address) as watched:
        timing = watched.page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
        assert faults(watched.page) == []
        harmless(watched, address)
    print(f"\nmade in {made:.1f} s, opened in {timing['loadEventEnd'] / 1000:.2f} s")  # noqa: T201


@pytest.mark.parametrize("mark", ["\u061c", "\u200e", "\u200f", "\u202e", "\ue000", "\x1b"])
def test_marks_that_turn_the_direction_of_writing_are_named_on_a_page(mark):
    assert named(f"a{mark}b") == shown(f"a{mark}b") == f"a⟨U+{ord(mark):04X}⟩b"
